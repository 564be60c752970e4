"""Errors advise arguments in Python, and flags on the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from remote_gym.cli.wording import with_flags

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "remote_gym"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("give certificates (tls), or allow_insecure=True", "give certificates (--certs), or --allow-insecure"),
        ("(check=False serves it)", "(--no-check serves it)"),
        ("a server with common_names=True", "a server with --common-names"),
        ("first: imports=('ale_py',)", "first: --import ale_py"),
        ("by the option imports", "by --import"),
        ("comes from (tls=TlsFiles(ca=...))", "comes from (--ca)"),
        ("preflight_check=False", "preflight_check=False"),
    ],
)
def test_arguments_are_flags_on_the_command_line(text, told):
    assert with_flags(text) == told


def test_no_error_of_the_package_names_a_flag():
    flags = re.compile(r"--(no-check|import|allow-insecure|certs|ca|common-names)\b")
    apart = {"demo.py", "config/tls.py"}  # which start the command, or speak of it
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith("cli/") and name not in apart:
            assert not flags.search(path.read_text("utf-8")), name
