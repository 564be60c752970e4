"""docs/options.md tells every option with its default and its flag."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from remote_gym.cli.commands.hub import hub
from remote_gym.cli.commands.play import play
from remote_gym.cli.commands.serve import serve
from remote_gym.config import ClientOptions, HubOptions, Limits, RetryPolicy, ServerOptions

PAGE = Path(__file__).resolve().parent.parent / "docs" / "options.md"
SECTIONS = {
    "Server": ServerOptions,
    "Client": ClientOptions,
    "Hub": HubOptions,
    "Retrying": RetryPolicy,
    "Limits": Limits,
}


def rows(section):
    """Cells of a section's table, its head aside."""
    text = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[1]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def default_of(field):
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@pytest.mark.parametrize("section", SECTIONS)
def test_every_option_is_told_with_its_default(section):
    expected = []
    for field in dataclasses.fields(SECTIONS[section]):
        default = default_of(field)
        shown = f"{type(default).__name__}()" if default in (Limits(), RetryPolicy()) else repr(default)
        expected.append((f"`{field.name}`", f"`{shown}`"))
    assert [(name, default) for name, default, *_ in rows(section)] == expected
    assert all(meaning.endswith(".") for *_, meaning in rows(section))


@pytest.mark.parametrize(
    ("section", "command", "arguments"),
    [("Server", serve, ["CartPole-v1"]), ("Client", play, ["localhost:1"]), ("Hub", hub, [])],
)
def test_flags_are_those_of_the_command_and_have_the_same_defaults(section, command, arguments):
    parsed = command.make_context("command", arguments).params
    parameters = {parameter.name: parameter for parameter in command.params}
    for name, default, flag, _ in rows(section):
        parameter = parameters.get(name.strip("`"))
        # Texts of the form NAME=ID rather than a mapping, and bounds that differ from the defaults by name.
        default = {"`environments`": "`()`", "`message_limits`": "`{}`" if parameter else default}.get(name, default)
        assert [flag] == [f"`{opt}`" for opt in parameter.opts if opt == flag.strip("`")] if parameter else not flag
        if parameter is not None:
            assert default == f"`{parsed[parameter.name]!r}`"
