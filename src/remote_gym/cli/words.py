"""Errors of the package, which speaks of parameters, in the command line's words: flags."""

from __future__ import annotations

import re

_FLAGS = (
    ("client_credentials_paths=None", "no --ca, --certificate and --key"),
    ("client_credentials_paths=(ca, None, None)", "--ca"),
    ("client_credentials_paths=(ca, certificate, key)", "--ca, --certificate and --key"),
    ("client_credentials_paths[0]", "--ca"),
    ("client_credentials_paths", "--ca, --certificate and --key"),
    ("server_credentials_paths", "--certificate, --key and --ca"),
    ("remote_args={'environment': ...}", "--environment"),
    ("environments['", "--environment ['"),
    ("imports=(MODULE,)", "--import MODULE"),
    ("port=0", "--port 0"),
    ("use_thread=True", "--thread"),
    ("direct=False", "--no-direct"),
    ("check=False", "--no-check"),
    ("allow_insecure=True", "--allow-insecure"),
    ("entrypoint_kwargs", "--kwargs"),
    ("max_sessions", "--max-sessions"),
    ("render_mode=", "--render-mode "),
    ("connection='", "--connection '"),
)
_CALL = re.compile(r"\w+\(.*\)[^()]* was to be called with .*", re.DOTALL)
"""A function of the entrypoint's and what did not suit it: words of its author."""
_IN_POLICY = re.compile(r": \[allow")
"""A place in a policy file, whose keys are no flags."""
_KEYWORDS = re.compile(r'remote_args=\{"entrypoint_kwargs": (\{[^{}]*\})\}')
_OPTION = re.compile(r"\b(Server|Client)Options\.(\w+)")
_OTHER_NAMES = {"use_thread": "thread", "imports": "import", "environments": "environment", "worker_limits": "rlimit"}


def in_flags(message: str) -> str:
    """Say the same with the flags of the command line in place of parameters and fields."""
    if call := _CALL.search(message):
        return in_flags(message[: call.start()]) + call[0]
    if _IN_POLICY.search(message):
        return message
    message = _KEYWORDS.sub(r"--kwargs '\1'", message)
    message = _OPTION.sub(_flag, message)
    for parameter, flag in _FLAGS:
        message = re.sub(rf"(?<![\w-]){re.escape(parameter)}", flag.replace("\\", r"\\"), message)
    return message


def _flag(match: re.Match[str]) -> str:
    name = _OTHER_NAMES.get(match[2], match[2]).replace("_", "-")
    return f"the server's --{name}" if match[1] == "Server" else f"--{name}"
