"""What docs/security.md shows works: its policy, its commands and its unit."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest

from remote_gym.cli.commands.serve import serve
from remote_gym.server.access.policy import Policy, parse_allowed, parse_policy

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "security.md").read_text(encoding="utf-8")
OFFERED = ("default", "hard")
TRAINER = "URI:spiffe://lab.example/trainers/7"


def block(language: str, number: int = 0) -> str:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[number]


def commands() -> list[list[str]]:
    """The arguments of each ``remote-gym serve``."""
    texts = [block("sh", 0), block("sh", 1), block("ini")]
    found = [re.search(r"remote-gym serve((?:.*\\\n)*.*)", text)[1] for text in texts]
    return [shlex.split(text.replace("\\\n", " ")) for text in found]


def test_the_policy_says_what_the_page_says_of_it():
    pytest.importorskip("jsonschema", reason="the extra policy is not installed")
    policy = Policy(parse_policy(block("toml"), "policy.toml", OFFERED))
    assert policy.environments("DNS:alice") is None
    assert policy.decide("DNS:alice", "").max_sessions == 16
    assert policy.environments("DNS:bob") == OFFERED
    assert policy.decide("DNS:bob", "hard").terms.arguments == ("difficulty",)
    assert policy.environments(TRAINER) == ("hard",)
    assert '"maximum": 5' in policy.decide(TRAINER, "hard").terms.schema
    assert policy.environments("URI:spiffe://lab.example/trainers/guest/7") == ()
    assert policy.environments("DNS:carol") == ()


@pytest.mark.parametrize("arguments", commands(), ids=["allow", "container", "unit"])
def test_commands_have_flags_that_there_are(arguments):
    known = {flag for parameter in serve.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    flags = [argument for argument in arguments if argument.startswith("--")]
    assert flags
    assert set(flags) <= known


def test_the_flags_let_in_whom_the_page_says():
    arguments = commands()[0]
    texts = [value for flag, value in itertools.pairwise(arguments) if flag == "--allow"]
    policy = Policy(parse_allowed(texts, OFFERED))
    assert policy.environments("DNS:alice") is None
    assert policy.environments("DNS:bob") == ("hard",)
    assert policy.environments(TRAINER) == OFFERED
