"""What the JSON files may say, without cfssl at hand."""

from __future__ import annotations

import json
from datetime import timedelta
from fractions import Fraction
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_gym.certs.cfssl import (
    BUILT_IN_PROFILES,
    AuthorityRequest,
    CertificateRequest,
    KeyRequest,
    Name,
    parse_duration,
    read_profile,
    read_request,
)
from remote_gym.certs.hosts import Hosts, parse_hosts
from remote_gym.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "it.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def refused(function, argument):
    """The message of the ConfigError that the function raises, if it does."""
    try:
        function(argument)
    except ConfigError as error:
        return str(error)
    return None


# Requests


def test_every_field_of_a_request_arrives(write):
    content = {
        "CN": "one",
        "names": [{"C": "DE", "ST": "a", "L": "b", "O": "c", "OU": "d", "E": "e@example.com"}, {}],
        "serialnumber": "5",
        "hosts": ["x", "y"],
        "key": {"algo": "rsa", "size": 2048},
        "ca": {"expiry": "2h", "backdate": "3m", "pathlen": 4},
    }
    assert read_request(write(content)) == CertificateRequest(
        common_name="one",
        names=(Name(country="DE", state="a", locality="b", organization="c", unit="d", email="e@example.com"), Name()),
        serial_number="5",
        hosts=("x", "y"),
        key=KeyRequest(algorithm="rsa", size=2048),
        authority=AuthorityRequest(expiry=timedelta(hours=2), backdate=timedelta(minutes=3), path_length=4),
    )


def test_absent_null_and_empty_fields_take_the_defaults(write):
    empty = {"CN": None, "names": None, "hosts": None, "key": {"algo": "", "size": 0}, "ca": None, "extensions": []}
    assert read_request(write(empty)) == read_request(write({})) == CertificateRequest()
    assert read_request(write({"ca": {}})).authority == AuthorityRequest()


@pytest.mark.parametrize(("settings", "length"), [({}, None), ({"pathlen": 0}, None), ({"pathlenzero": True}, 0)])
def test_path_length_of_zero_needs_its_flag(write, settings, length):
    assert read_request(write({"ca": settings})).authority.path_length == length


def test_keys_of_any_case_are_read_and_the_last_wins(write):
    assert read_request(write('{"cn": "first", "CN": "second", "Hosts": ["a"]}')) == CertificateRequest(
        common_name="second", hosts=("a",)
    )


def test_unknown_fields_are_told_in_the_log(write, caplog):
    read_request(write({"host": ["a"], "names": [{"country": "DE"}], "ca": {"length": 1}}))
    messages = "\n".join(caplog.messages)
    assert "host " in messages
    assert "names[0].country" in messages
    assert "ca.length" in messages


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "it.json is not JSON"),
        ("[" * 100_000, "it.json is not JSON"),
        ([], "it.json is []; use an object"),
        ({"CN": 5}, "it.json: CN is 5; use a text"),
        ({"hosts": "a"}, "it.json: hosts is 'a'; use a list"),
        ({"hosts": ["a", 5]}, "it.json: hosts[1] is 5; use a text"),
        ({"names": {}}, "it.json: names is {}; use a list"),
        ({"names": [{}, 3]}, "it.json: names[1] is 3; use an object"),
        ({"names": [{"C": "Example Country"}]}, "names[0].C is 'Example Country'; use the two letters"),
        ({"names": [{"OID": {"1.2": "x"}}]}, "names[0].OID is not supported"),
        ({"key": 1}, "it.json: key is 1; use an object"),
        ({"key": {"algo": "rsa", "size": True}}, "key.size is True; use a whole number"),
        ({"key": {"algo": "rsa"}}, "key has size 0; use 2048 to 8192"),
        ({"key": {"algo": "rsa", "size": 1024}}, "key has size 1024; use 2048 to 8192"),
        ({"key": {"algo": "rsa", "size": 8193}}, "key has size 8193"),
        ({"key": {"algo": "ecdsa", "size": 255}}, "key has size 255; use 256 or 384"),
        ({"key": {"algo": "ecdsa", "size": 521}}, "key is ecdsa 521, which gRPC refuses; use ecdsa 256"),
        ({"key": {"algo": "ed25519"}}, "key is ed25519, which gRPC refuses; use ecdsa 256"),
        ({"key": {"algo": "RSA", "size": 2048}}, "key has algo 'RSA'; use 'ecdsa' or 'rsa'"),
        ({"ca": {"expiry": "5y"}}, "it.json: ca.expiry is '5y'; use hours"),
        ({"ca": {"expiry": "-5h"}}, "ca.expiry is '-5h'; use a positive duration"),
        ({"ca": {"pathlen": -1}}, "ca.pathlen is -1; use a number from 0"),
        ({"ca": {"pathlenzero": 1}}, "ca.pathlenzero is 1; use true or false"),
        ({"extensions": [{"id": "1.2"}]}, "extensions is not supported"),
        ({"delegation_enabled": True}, "delegation_enabled is not supported"),
        ({"crl_url": "http://x"}, "crl_url is not supported"),
    ],
)
def test_faulty_request_is_refused_saying_where(write, content, said):
    with pytest.raises(ConfigError) as caught:
        read_request(write(content))
    assert said in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.json cannot be read: No such file"):
        read_request(tmp_path / "none.json")


# Profiles

SERVER = {"usages": ["server auth"], "expiry": "5h"}
CLIENT = {"usages": ["client auth"], "expiry": "6h"}


@pytest.mark.parametrize(
    ("signing", "name", "hours"),
    [
        ({"default": SERVER}, None, 5),
        ({"default": SERVER, "profiles": {"default": CLIENT}}, None, 5),
        ({"default": SERVER, "profiles": {"default": CLIENT}}, "default", 6),
        ({"default": SERVER, "profiles": {"x": CLIENT}}, "x", 6),
        ({"profiles": {"default": CLIENT}}, None, 6),
        ({"profiles": {"x": CLIENT}}, None, 8760),
        ({}, None, 8760),
        (None, None, 8760),
    ],
)
def test_profile_is_the_one_asked_for(write, signing, name, hours):
    assert read_profile(write({"signing": signing}), name).expiry == timedelta(hours=hours)


@pytest.mark.parametrize("name", [None, "default", "server", "client"])
def test_profiles_are_built_in(name):
    assert read_profile(None, name) == BUILT_IN_PROFILES[name or "default"]


def test_profile_nobody_asks_for_may_be_of_an_unsupported_kind(write):
    intermediate = {"usages": ["cert sign"], "expiry": "1h", "ca_constraint": {"is_ca": True}}
    path = write({"signing": {"profiles": {"intermediate": intermediate, "x": SERVER}}})
    assert read_profile(path, "x").usages == ("server auth",)
    with pytest.raises(ConfigError, match=r"signing\.profiles\.intermediate\.ca_constraint is not supported"):
        read_profile(path, "intermediate")


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ({"expiry": "1h"}, "signing.default.usages is empty"),
        ({"usages": ["server auth"]}, "signing.default.expiry is missing"),
        (
            {"usages": ["server auht"], "expiry": "1h"},
            "signing.default.usages has 'server auht'; use some of signing, ",
        ),
        ({**SERVER, "ocsp_url": "http://x"}, "signing.default.ocsp_url is not supported"),
        ({**SERVER, "backdate": "x"}, "signing.default.backdate is 'x'; use hours"),
        (5, "signing.default is 5; use an object"),
    ],
)
def test_faulty_profile_is_refused_saying_where(write, profile, said):
    with pytest.raises(ConfigError) as caught:
        read_profile(write({"signing": {"default": profile}}), None)
    assert said in str(caught.value)


def test_unknown_profile_is_refused_naming_those_there_are(write):
    with pytest.raises(ConfigError, match="has no 'sever'; use one of client, server"):
        read_profile(write({"signing": {"profiles": {"server": SERVER, "client": CLIENT}}}), "sever")
    with pytest.raises(
        ConfigError,
        match="there is no profile 'sever' without a configuration file; use one of client, default, server",
    ):
        read_profile(None, "sever")


# Durations

UNITS = {"us": 1, "µs": 1, "ms": 10**3, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6}  # microseconds


@given(
    st.lists(st.tuples(st.integers(0, 10**5), st.sampled_from(sorted(UNITS))), min_size=1, max_size=5), st.booleans()
)
def test_duration_is_the_sum_of_its_parts(parts, negative):
    text = "-" * negative + "".join(f"{number}{unit}" for number, unit in parts)
    total = timedelta(microseconds=sum(number * UNITS[unit] for number, unit in parts))
    assert parse_duration(text) == (-total if negative else total)


@given(st.decimals(0, 10**6, places=6), st.sampled_from(sorted(UNITS)))
def test_duration_may_have_decimals(number, unit):
    assert parse_duration(f"{number}{unit}") == timedelta(microseconds=int(Fraction(number) * UNITS[unit]))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("+1h", 3600), (".5s", 0.5), ("1.s", 1), ("1500ns", 1e-6), ("2562047h", 2562047 * 3600)],
)
def test_duration_in_any_spelling_of_go(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "1", "h", "1d", "1 h", "1h ", "--1h", "1e3h", ".h", "१h", "2562048h", "1hh", "1h-1m"]
)
def test_no_duration_is_refused(text):
    with pytest.raises(ConfigError):
        parse_duration(text)


@given(st.text("0123456789.hmsnuµ+-", max_size=12))
def test_any_text_is_a_duration_or_refused_with_it(text):
    refusal = refused(parse_duration, text)
    assert refusal is None or repr(text) in refusal


# Hosts


@given(st.lists(st.ip_addresses()))
def test_addresses_are_taken_for_addresses(addresses):
    expected = tuple(getattr(address, "ipv4_mapped", None) or address for address in addresses)
    assert parse_hosts([str(address) for address in addresses]) == Hosts(addresses=expected)


LABELS = st.from_regex(r"\A[a-zA-Z]([a-z0-9-]{0,20}[a-z0-9])?\Z")


@given(st.lists(st.lists(LABELS, min_size=1, max_size=4).map(".".join)))
def test_host_names_are_taken_for_names(names):
    assert parse_hosts(names) == Hosts(dns=tuple(names))


@given(st.text())
def test_any_text_is_a_host_or_refused_with_it(text):
    refusal = refused(parse_hosts, [text])
    assert refusal is None or f"host {text!r}" in refusal


def test_kinds_are_told_apart_and_keep_their_order():
    texts = [
        "b.x",
        "*.x",
        "my_service",
        "urn:a:b",
        "spiffe://x:1/y",
        "b@x.y",
        "::1",
        "a.x",
        "10.0.0.1",
        "::ffff:10.0.0.2",
    ]
    assert parse_hosts(texts) == Hosts(
        dns=("b.x", "*.x", "my_service", "a.x"),
        emails=("b@x.y",),
        addresses=(ip_address("::1"), ip_address("10.0.0.1"), ip_address("10.0.0.2")),
        uris=("urn:a:b", "spiffe://x:1/y"),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; leave it out"),
        ("ENTER_ENVIRONMENT_HOSTING_SERVER_IP_HERE", "is a placeholder; write the name or IP address"),
        ("<hostname>", "is a placeholder"),
        ("${HOST}", "is a placeholder"),
        ("h.example.com:8443", "has a port"),
        ("localhost:8443", "has a port"),
        ("[::1]:8443", "has a port"),
        ("[::1]", "has brackets"),
        ("fe80::1%eth0", "has a zone"),
        ("10.0.0.0/8", "has a slash"),
        ("/x", "has a slash"),
        ("10.0.0.256", "is neither an IP address nor a host name"),
        ("10.0.0", "is neither"),
        ("a..b", "is neither"),
        ("-a", "is neither"),
        ("a b", "is neither"),
        ("*", "is neither"),
        ("a.*.b", "is neither"),
        ("x\n", "is neither"),
        ("a" * 64, "is neither"),
        (".".join(["a" * 60] * 5), "is neither"),
        ("münchen.example", "is not ASCII; write an international name in its 'xn--' form"),
    ],
)
def test_host_that_nobody_could_match_is_refused(text, said):
    with pytest.raises(ConfigError) as caught:
        parse_hosts(["localhost", text])
    assert f"host {text!r} {said}" in str(caught.value)
