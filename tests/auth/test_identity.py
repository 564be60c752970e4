"""Who a client is, by its certificate or its token."""

from __future__ import annotations

import os
import stat

import pytest

from remote_gym.auth.identity import IdentityRule
from remote_gym.auth.tokens import Tokens, add_token, read_tokens
from remote_gym.errors import ConfigError, NotPermitted

BY_CERTIFICATE = IdentityRule(certificates=True)
BY_COMMON_NAME = IdentityRule(certificates=True, common_names=True)


@pytest.fixture
def token_file(tmp_path):
    return tmp_path / "tokens"


@pytest.mark.parametrize(
    ("names", "identity"),
    [
        ([("email", "e"), ("DNS", "d"), ("URI", "u"), ("CN", "c")], "URI:u"),
        ([("email", "e"), ("DNS", "d")], "DNS:d"),
        ([("DNS", ""), ("email", "e")], "email:e"),
        ([("DNS", "first"), ("DNS", "second")], "DNS:first"),
        ([("DNS", "good"), ("CN", "J\xf6rg")], "DNS:good"),
    ],
)
@pytest.mark.parametrize("rule", [BY_CERTIFICATE, BY_COMMON_NAME])
def test_the_first_name_of_the_preferred_kind_counts(names, identity, rule):
    assert rule.identify(names, "") == identity


@pytest.mark.parametrize("names", [[("CN", "c")], [("DNS", ""), ("CN", "c")]])
def test_a_common_name_counts_only_where_that_was_chosen(names):
    assert BY_COMMON_NAME.identify(names, "") == "CN:c"
    with pytest.raises(NotPermitted, match=r"common name 'c' counts only for a server with common_names=True; make"):
        BY_CERTIFICATE.identify(names, "")


@pytest.mark.parametrize("name", ["alice\0.evil", "\0", "a\nb", "a\x1b[2J", "a\x7f", "\xe4lice", "a\u202eb"])
@pytest.mark.parametrize("kind", ["URI", "DNS", "email", "CN"])
def test_a_name_that_could_pass_for_another_is_refused_by_name(kind, name):
    beside = [] if kind == "CN" else [("URI", "good")]
    for names in ([(kind, name)], [(kind, name), (kind, "good")], [*beside, (kind, name)]):
        with pytest.raises(NotPermitted, match=rf"has the {kind} name .*no printable ASCII") as caught:
            BY_COMMON_NAME.identify(names, "")
        assert ascii(name) in str(caught.value)


@pytest.mark.parametrize("rule", [BY_CERTIFICATE, BY_COMMON_NAME])
def test_who_is_nobody_is_refused(rule):
    with pytest.raises(NotPermitted, match=r"names nobody: it has no URI, DNS or email name; make one"):
        rule.identify([], "")


def test_where_nothing_is_asked_for_nobody_has_a_name():
    assert IdentityRule().identify([("DNS", "not verified")], "a token") == ""


def test_a_token_counts_for_more_than_a_certificate(token_file):
    token = add_token(token_file, "alice")
    rule = IdentityRule(certificates=True, tokens=lambda: read_tokens(token_file))
    assert rule.identify([("DNS", "shared")], token) == "token:alice"
    assert rule.identify([("DNS", "shared")], "") == "DNS:shared"
    other = "x" if token[3] != "x" else "y"
    with pytest.raises(NotPermitted, match=f"token '{token[:3]}{other}'... is not"):
        rule.identify([("DNS", "shared")], token[:3] + other + token[4:])


def test_without_a_token_where_one_is_needed():
    with pytest.raises(NotPermitted, match="none came with the call; set token= or REMOTE_GYM_TOKEN"):
        IdentityRule(tokens=lambda: Tokens([])).identify([], "")


# The file


def test_each_of_a_names_tokens_counts_until_its_line_is_deleted(token_file):
    old, new, other = add_token(token_file, "alice"), add_token(token_file, "alice"), add_token(token_file, "bob@x.org")
    tokens = read_tokens(token_file)
    assert [tokens.name_of(token) for token in (old, new, other)] == ["alice", "alice", "bob@x.org"]
    lines = token_file.read_text().splitlines(keepends=True)
    token_file.write_text("".join(["# a comment\n\n", *lines[1:]]))
    tokens = read_tokens(token_file)
    assert [tokens.name_of(token) for token in (old, new, other)] == [None, "alice", "bob@x.org"]
    assert tokens.names == {"alice", "bob@x.org"}


@pytest.mark.parametrize("token", ["", "alice", "\udcff", "ä"])
def test_what_is_no_token_is_nobodys(token, token_file):
    add_token(token_file, "alice")
    assert read_tokens(token_file).name_of(token) is None


def test_the_file_holds_no_token_and_is_its_owners_alone(token_file):
    token = add_token(token_file, "alice")
    assert token not in token_file.read_text()
    assert len(token) >= 43  # 256 bits
    if os.name == "posix":
        assert stat.S_IMODE(token_file.stat().st_mode) == 0o600


def test_a_line_without_an_end_is_not_added_to(token_file):
    first = add_token(token_file, "alice")
    token_file.write_text(token_file.read_text().rstrip())
    second = add_token(token_file, "bob")
    tokens = read_tokens(token_file)
    assert (tokens.name_of(first), tokens.name_of(second)) == ("alice", "bob")


@pytest.mark.parametrize(
    "line", ["alice", 'alice = "secret"', f'alice = "sha256:{"A" * 64}"', f'a b = "sha256:{"a" * 64}"']
)
def test_a_line_that_is_none_is_told_by_its_number_alone(line, token_file):
    token_file.write_text(f"\n{line}\n")
    with pytest.raises(ConfigError, match=r"tokens, line 2: use NAME = ") as caught:
        read_tokens(token_file)
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="line 2"):
        add_token(token_file, "bob")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none, given as the token file, cannot be read"):
        read_tokens(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="no text in UTF-8"):
        read_tokens(tmp_path / "binary")


@pytest.mark.parametrize("name", ["", "a b", "a=b", "ä", "a\n", "x" * 101])
def test_a_name_that_is_none(name, token_file):
    with pytest.raises(ConfigError, match="the token's name is"):
        add_token(token_file, name)
    assert not token_file.exists()
