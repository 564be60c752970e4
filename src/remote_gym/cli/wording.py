"""Words of the command line: for errors, since the package names arguments, of which a command has flags."""

from __future__ import annotations

import re

LISTENS_ON = "Listens on: "
"""Begins the line that tells a program which port was chosen."""

_FLAGS = (
    (re.compile(r"\ballow_insecure=True\b"), "--allow-insecure"),
    (re.compile(r"\bcheck=False\b"), "--no-check"),
    (re.compile(r"\bcommon_names=True\b"), "--common-names"),
    (re.compile(r"\bimports=\('([^']*)',\)"), r"--import \1"),
    (re.compile(r"\bthe option imports\b"), "--import"),
    (re.compile(r"\(tls=TlsFiles\(ca=\.\.\.\)\)"), "(--ca)"),
    (re.compile(r"\(tls\)"), "(--certs)"),
)
"""Arguments as errors write them, and the flags that stand for them."""


def with_flags(text: str) -> str:
    """Put flags in place of the arguments that an error's text advises."""
    for argument, flag in _FLAGS:
        text = argument.sub(flag, text)
    return text
