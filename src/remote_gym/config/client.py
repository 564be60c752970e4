"""Options of clients."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from remote_gym.config.limits import Limits
from remote_gym.config.names import check_fields, names_checked
from remote_gym.config.retry import RetryPolicy
from remote_gym.errors import ConfigError
from remote_gym.validation import check_choice, check_integer, check_seconds, check_type

TOKEN_VARIABLE = "REMOTE_GYM_TOKEN"
"""Environment variable that a client reads its token from when `ClientOptions.token` is None. Not sent without TLS."""

SERVER_VARIABLE = "REMOTE_GYM_SERVER"
"""Environment variable with the address of the server that clients use which name none: ``host:port`` or
``unix:path``. ``remote-gym launch`` sets it for the command that it runs."""

_SERVER_NAME = re.compile(r"(?![0-9.]+\Z)[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?")
_TOKEN = re.compile(r"[!-~]{1,1000}")  # what a header of HTTP may hold


def is_token(value: object) -> bool:
    """Whether it can be a client's token, which travels in a header of HTTP."""
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def is_server_name(value: object) -> bool:
    """Whether TLS and preambles can name a server by it: a host name in lower case, and no address (RFC 6066, 3)."""
    return isinstance(value, str) and _SERVER_NAME.fullmatch(value) is not None


@names_checked
@dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """How a client behaves. In parentheses: the default and its unit.

    Attributes:
        connect_timeout (10.0 s): How long reaching and authenticating the server may take, at one attempt.
        reconnect_timeout (None, or s): How long to try for a broken connection before the session is given up. None:
            as long as the server keeps it.
        recover_timeout (0.0 s): How long a reset tries to open a session in place of a lost one. Needs
            ``on_session_lost="truncate"``.
        open_timeout (150.0 s): How long opening a session, which creates the environment, may take.
        reset_timeout (300.0 s): How long a reset may take.
        step_timeout (300.0 s): How long a step, a render or a call may take.
        close_timeout (10.0 s): How long closing may take, and how long a reset waits for an answer that is overdue.
        allow_insecure (False): Connect without TLS to another machine.
        connection ('auto'): Whether to connect to the environment's worker directly: ``"auto"``, if it can be had;
            ``"direct"``, in any case; ``"grpc"``, never.
        poll_us (50 µs): How long to look for a direct answer without sleeping; 0 saves the processor's time.
        frame_encoding ('auto'): How images travel: ``"raw"``, as they are; ``"zstd"``, compressed without loss;
            ``"jpeg"``, with it; ``"auto"``, whatever pays to where the server is.
        observation_encoding ('auto'): How large observations travel: ``"raw"``, ``"zstd"`` or ``"auto"``.
        token (None): What the server knows this client by, instead of a certificate. None: the environment variable
            ``REMOTE_GYM_TOKEN``.
        server_name (None): The server's name, which its certificate has to hold, where that is not the host it is
            reached by: through a hub, which finds the server by it, or through a tunnel. Needs TLS.
        retry (RetryPolicy()): How a broken connection is made again.
        on_session_lost ('raise'): What a step does when the environment is gone: ``"raise"``, or ``"truncate"``, which
            ends the episode.
        message_limits (Limits()): Bounds on what the server sends.
    """

    connect_timeout: float = 10.0
    reconnect_timeout: float | None = None
    recover_timeout: float = 0.0
    open_timeout: float = 150.0
    reset_timeout: float = 300.0
    step_timeout: float = 300.0
    close_timeout: float = 10.0
    allow_insecure: bool = False
    connection: Literal["auto", "direct", "grpc"] = "auto"
    poll_us: int = 50
    frame_encoding: Literal["auto", "raw", "zstd", "jpeg"] = "auto"
    observation_encoding: Literal["auto", "raw", "zstd"] = "auto"
    token: str | None = field(default=None, repr=False)
    server_name: str | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    on_session_lost: Literal["raise", "truncate"] = "raise"
    message_limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        check_fields(check_choice, self, "connection", choices=("auto", "direct", "grpc"))
        check_fields(check_choice, self, "frame_encoding", choices=("auto", "raw", "zstd", "jpeg"))
        check_fields(check_choice, self, "observation_encoding", choices=("auto", "raw", "zstd"))
        check_fields(check_choice, self, "on_session_lost", choices=("raise", "truncate"))
        check_fields(check_type, self, "retry", kind=RetryPolicy, mend="RetryPolicy(...)")
        check_fields(check_integer, self, "poll_us", lowest=0, highest=1_000_000)
        check_fields(check_type, self, "allow_insecure", kind=bool, mend="True or False")
        # Its value stays out of the message.
        if self.token is not None and not is_token(self.token):
            raise ConfigError(
                "is not what 'remote-gym token' printed; use that", field="token", where="ClientOptions.token"
            )
        if self.server_name is not None and not is_server_name(self.server_name):
            raise ConfigError(
                f"is {self.server_name!r}; use a name of the server's certificate, in lower case, such as 'sim-home'",
                field="server_name",
                where="ClientOptions.server_name",
            )
        check_fields(check_type, self, "message_limits", kind=Limits, mend="Limits(...)")
        timeouts = ("connect_timeout", "open_timeout", "reset_timeout", "step_timeout", "close_timeout")
        check_fields(check_seconds, self, *timeouts)
        check_fields(check_seconds, self, "recover_timeout", or_zero=True)
        if self.reconnect_timeout is not None:
            check_fields(check_seconds, self, "reconnect_timeout", or_zero=True)
        if self.recover_timeout and self.on_session_lost != "truncate":
            raise ConfigError(
                f"is {self.recover_timeout!r}, but with on_session_lost='raise' a reset "
                "does not replace what was lost by itself; use on_session_lost='truncate', or leave it out",
                field="recover_timeout",
                where="ClientOptions.recover_timeout",
            )
