from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_gym.auth.argument_schema import check_arguments
from remote_gym.errors import ConfigError, NotPermitted
from remote_gym.server.access.policy import (
    EVERYTHING_TO_EVERYBODY,
    NOTHING_TO_NOBODY,
    Policy,
    Terms,
    parse_allowed,
    parse_policy,
)

OFFERED = ("default", "easy", "hard")


def policy(text: str) -> Policy:
    return Policy(parse_policy(text, "policy.toml", OFFERED))


def allowed(*texts: str) -> Policy:
    return Policy(parse_allowed(texts, OFFERED))


def may(policy: Policy, identity: str, environment: str | None = "") -> bool:
    try:
        policy.decide(identity, environment)
    except NotPermitted:
        return False
    return True


def test_without_rules_everybody_may_open_everything_and_with_none_of_them_nobody_anything():
    assert may(EVERYTHING_TO_EVERYBODY, "")
    assert may(EVERYTHING_TO_EVERYBODY, "DNS:alice", "easy")
    assert may(EVERYTHING_TO_EVERYBODY, "DNS:alice", None)
    assert not may(NOTHING_TO_NOBODY, "DNS:alice")


def test_an_identity_without_environments_may_open_all_and_others_nothing():
    rules = allowed("DNS:alice")
    assert all(may(rules, "DNS:alice", name) for name in ("", "easy", "hard", None))
    for other in ("", "DNS:bob", "DNS:alic", "DNS:alicea", "DNS:Alice", "CN:alice", "email:alice", "alice", "*"):
        assert not may(rules, other)
        assert not may(rules, other, "easy")


def test_named_environments_are_all_that_may_be_opened():
    rules = allowed("DNS:alice=easy", "DNS:bob=default,hard", "DNS:alice=hard")
    assert [may(rules, "DNS:alice", name) for name in ("", "easy", "hard", None)] == [False, True, True, False]
    assert [may(rules, "DNS:bob", name) for name in ("", "easy", "hard", None)] == [True, False, True, False]


def test_a_refusal_tells_what_may_be_opened_instead():
    with pytest.raises(NotPermitted, match=r"'DNS:bob' open environment 'easy'; it may open: default, hard$"):
        allowed("DNS:bob=hard,default").decide("DNS:bob", "easy")
    with pytest.raises(NotPermitted, match="no rule for a client without an identity"):
        allowed("DNS:bob").decide("", "easy")
    with pytest.raises(NotPermitted, match="entrypoints of its own"):
        allowed("DNS:bob=hard").decide("DNS:bob", None)


def test_a_pattern_stands_for_whatever_begins_like_it_and_no_less():
    rules = allowed("URI:spiffe://lab/*=easy")
    assert may(rules, "URI:spiffe://lab/trainer/1", "easy")
    for other in ("URI:spiffe://lab", "URI:spiffe://lab.elsewhere/x", "DNS:spiffe://lab/x", "xURI:spiffe://lab/"):
        assert not may(rules, other, "easy")


def test_the_closest_rule_alone_holds_whatever_their_order():
    texts = ["*=easy", "URI:lab/*=hard", "URI:lab/a/*=easy,hard", "URI:lab/a/1=default"]
    for order in (texts, texts[::-1]):
        rules = allowed(*order)
        assert rules.environments("DNS:x") == ("easy",)
        assert rules.environments("") == ("easy",)
        assert rules.environments("URI:lab/b") == ("hard",)
        assert rules.environments("URI:lab/a/2") == ("easy", "hard")
        assert rules.environments("URI:lab/a/1") == ("default",)
        assert rules.environments("URI:lab/a/*") == ("easy", "hard")


def test_an_empty_list_locks_out():
    rules = policy('[allow."*"]\n[allow."DNS:mallory"]\nenvironments = []')
    assert may(rules, "DNS:alice", "hard")
    assert not may(rules, "DNS:mallory", "hard")


def test_quotas_and_terms_come_with_the_grant():
    pytest.importorskip("jsonschema")
    rules = policy(
        """
        [allow."DNS:alice"]
        max_sessions = 4
        max_opens_per_second = 0.5
        arguments = ["difficulty"]
        [allow."DNS:alice".environments.easy]
        [allow."DNS:alice".environments.hard]
        arguments = []
        schema = { properties = { difficulty = { type = "integer", maximum = 3 } } }
        """
    )
    easy, hard = rules.decide("DNS:alice", "easy"), rules.decide("DNS:alice", "hard")
    assert (easy.max_sessions, easy.max_opens_per_second) == (4, 0.5)
    assert easy.terms == Terms(arguments=("difficulty",))
    assert hard.terms.arguments == ()
    assert json.loads(hard.terms.schema)["properties"]["difficulty"]["maximum"] == 3
    assert not may(rules, "DNS:alice")
    assert rules.decide("DNS:alice", "easy") == easy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alice", r"ServerOptions\.allow: 'alice' is no identity; use one such as 'DNS:alice'"),
        ("dns:alice", "'dns:alice' is no identity"),
        ("DNS:", "'DNS:' is no identity"),
        ("", "'' is no identity"),
        ("=easy", "'' is no identity"),
        ("DNS:*", None),
        ("DNS:alice*", r"'DNS:alice\*' has a \* .* after one of / : "),
        ("URI:spiffe://lab*", "after one of"),
        ("DNS:*.lab", "only be the end"),
        ("DNS:a-*-*", "only be the end"),
        ("**", "no identity"),
        ("DNS:alice=", "no environment ''; the server offers default, easy, hard"),
        ("DNS:alice=easy,", "no environment ''"),
        ("DNS:alice=easi", "no environment 'easi'"),
        ("DNS:alice=*", r"no environment '\*'"),
        ("DNS:alice= easy", "no environment ' easy'"),
    ],
)
def test_a_text_that_cannot_work(text, message):
    if message is None:
        allowed(text)
        return
    with pytest.raises(ConfigError, match=message):
        allowed(text)


ALICE = '[allow."DNS:alice"]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("allow = 3 4", r"policy\.toml is not TOML: .*line 1"),
        ("", r'policy\.toml: there is no table \[allow\."IDENTITY"\]'),
        ("[allow]", "there is no table"),
        ("allow = 3", "there is no table"),
        ('[[allow]]\nidentity = "x"', "there is no table"),
        (ALICE + "[deny]", r"policy\.toml: there is no key 'deny'; use allow"),
        ("[allow.alice]", r'policy\.toml: \[allow\."alice"\]: \'alice\' is no identity'),
        ("allow.'DNS:alice' = 3", r'\[allow\."DNS:alice"\] is 3; use a table'),
        (ALICE * 2, "not TOML"),
        (ALICE + "environments = ['easy']\n[allow.'DNS:alice'.environments.easy]", "give each environment a table"),
        (ALICE + "enviroments = []", "no key 'enviroments'; use environments, max_sessions, max_opens_per_second"),
        (ALICE + "environments = 'easy'", "environments is 'easy'; use a list of names"),
        (ALICE + "environments = [1]", r'\[allow\."DNS:alice"\]: environments: there is no environment 1'),
        (ALICE + "environments = ['medium']", "no environment 'medium'; the server offers default, easy, hard"),
        (ALICE + "environments.medium = {}", "no environment 'medium'"),
        (ALICE + "environments.easy = 1", r'\[allow\."DNS:alice"\.environments\.easy\] is 1; use a table'),
        (ALICE + "environments.easy.max_sessions = 1", r"environments\.easy\]: there is no key 'max_sessions'"),
        *(
            (ALICE + f"max_sessions = {value}", "max_sessions is ")
            for value in ("0", "-1", "1.0", "true", "'4'", "2e6")
        ),
        (ALICE + f"max_sessions = 0x{'f' * 5000}", "max_sessions is a int too large to show"),
        (ALICE + f"max_sessions = {'9' * 5000}", "not TOML"),
        *(
            (ALICE + f"max_opens_per_second = {value}", "max_opens_per_second is ")
            for value in ("0", "nan", "inf", "'1'")
        ),
        (ALICE + "arguments = 'level'", r'\[allow\."DNS:alice"\]: arguments is \'level\'; use a list of names'),
        (ALICE + "arguments = [1]", "arguments is"),
        (ALICE + "schema = { maximum = 1979-05-27 }", "schema has no form in JSON"),
        (ALICE + "schema = { maximum = inf }", "schema has no form in JSON"),
        ("a" + ".a" * 1500 + " = 1", "there is no key|not TOML"),
        (ALICE + "environments" + ".a" * 1500 + " = 1", "no environment|not TOML"),
        # Python 3.13 reads and writes it, and then it is a matter of who checks it, or that nobody can.
        (ALICE + "schema" + ".properties.a" * 1500 + " = 1", "no form in JSON|not TOML|too deep|needs jsonschema"),
    ],
    ids=lambda text: text[:60],
)
def test_a_file_that_cannot_work(text, message):
    with pytest.raises(ConfigError, match=message):
        policy(text)


@pytest.mark.parametrize("missing", ["jsonschema", "referencing"])
def test_a_schema_without_its_library_is_refused_at_both_ends(monkeypatch, missing):
    for name in (missing, f"{missing}.jsonschema"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install 'remote-gym\[policy\]'"):
        policy(ALICE + "schema = {}")
    with pytest.raises(ConfigError, match=r"pip install 'remote-gym\[policy\]'"):
        check_arguments({}, None, "{}")


PIECES = st.sampled_from(
    [
        *"[]{}=.,\"'\n #*",
        "allow",
        '"DNS:alice"',
        "environments",
        "easy",
        "max_sessions",
        "1",
        "nan",
        "schema",
        "\\u0000",
    ]
)


@given(st.one_of(st.text(), st.lists(PIECES, max_size=30).map("".join)))
def test_whatever_a_file_holds_it_is_a_policy_or_an_error_that_says_where(text):
    said, rules = "", None
    try:
        rules = policy(text)
    except ConfigError as error:
        said = str(error)
    assert said.startswith("policy.toml") if rules is None else len(rules)
    if rules is not None and "*" not in text:
        assert not may(rules, "DNS:mallory")


@given(
    st.lists(st.text(alphabet="DNSURI:*/ab=,easyhrd", max_size=12), max_size=4),
    st.text(alphabet="DNSURI:*/ab", max_size=8),
)
def test_nobody_gets_in_without_a_rule_that_begins_like_the_identity(texts, identity):
    try:
        rules = parse_allowed(texts, OFFERED)
    except ConfigError:
        return
    fits = [rule for rule in rules if rule == identity or (rule.endswith("*") and identity.startswith(rule[:-1]))]
    assert (Policy(rules).environments(identity) == ()) == (not fits)
