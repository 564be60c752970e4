"""Help of all commands: grouped, in sentences, and without formulas."""

from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner

from remote_gym.cli import main
from remote_gym.cli.command import OTHERS, Command, Flag


def commands(group=main, path=()):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands())


def test_every_command_is_looked_at():
    assert {path[0] for path in COMMANDS} == set(main.list_commands(click.Context(main)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_flags_are_in_groups_and_explained_in_sentences(path):
    command = COMMANDS[path]
    assert isinstance(command, Command)
    for param in command.params:
        if isinstance(param, click.Option):
            assert isinstance(param, Flag), param.name
            text = re.sub(r"  \[default: .*\]$", "", param.help or "")
            assert re.fullmatch(r"[A-Z].*\.", text, re.DOTALL), (param.name, text)
    shown = CliRunner().invoke(main, [*path, "--help"]).output
    titles = re.findall(r"^(\S.*):$", shown, re.MULTILINE)
    assert titles[-1] == OTHERS
    assert "Options" not in titles
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_ranges_are_no_formulas(path):
    shown = CliRunner().invoke(main, [*path, "--help"]).output
    assert not re.search(r"\bx[<>]|[<>]=|<x\b", shown)


@pytest.mark.parametrize("path", [(), ("certs",)], ids=["", "certs"])
def test_lists_of_commands_say_in_whole_sentences_what_each_does(path):
    shown = CliRunner().invoke(main, [*path, "--help"]).output
    listed = re.findall(r"^  \w+ +(.*)$", shown.partition("Commands:\n")[2], re.MULTILINE)
    assert len(listed) == len(
        [each for each in COMMANDS if each[: len(path)] == path] if path else main.list_commands(None)
    )
    assert all(re.fullmatch(r"[A-Z].*[^.]\.", text) for text in listed), listed
