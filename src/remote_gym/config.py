"""Options of servers and clients, as frozen dataclasses."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

from remote_gym.errors import ConfigError
from remote_gym.validation import (
    LEAST_MEMORY,
    check_choice,
    check_integer,
    check_number,
    check_resource_limit,
    check_seconds,
    check_type,
)


class RemoteArgs(TypedDict, total=False):
    """Which environment to create, and how.

    A client's are merged over the server's: ``entrypoint_kwargs`` one level deep, the client's winning.
    """

    entrypoint: str | None
    """Path of the Python file that defines ``create_environment``: below ``repo``, if there is one; else a server's, as
    its working directory has it, or a client's below `ServerOptions.client_entrypoints`."""
    entrypoint_kwargs: dict[str, Any]
    """Keyword arguments of ``create_environment``."""
    repo: str | None
    """Git repository to clone or update; only a server may name one."""
    reference: str | None
    """Branch, tag or commit of ``repo``."""
    environment: str | None
    """Name of one of the environments that the server offers; only a client names one."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on what a peer may send. Both ends apply their own."""

    message_bytes: int = 256 * 2**20
    """Size of one encoded message."""
    depth: int = 32
    """How deep spaces and values may nest."""
    items: int = 2**20
    """Values in one message, each list member, dict entry and array counting as one."""
    array_bytes: int = 256 * 2**20
    """Size of one decoded array, a space's bounds included."""
    text_length: int = 16 * 2**20
    """Characters in one text, and a Text space's ``max_length``."""

    def __post_init__(self) -> None:
        # gRPC counts message sizes in 32 bits.
        _check(check_integer, self, *vars(self), lowest=1, highest=2**31 - 1)
        if self.depth > 40:
            raise ConfigError(f"Limits.depth is {self.depth}; protobuf parsers stop at 100 levels, so use at most 40")


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """PEM files of one end of a TLS connection.

    Attributes:
        ca: Certificate authority that the other end's certificate must come from.
        certificate: This end's certificate.
        private_key: Its key.
    """

    ca: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None


TOKEN_VARIABLE = "REMOTE_GYM_TOKEN"
"""Of a client's environment: its token, where `ClientOptions.token` is None. Not sent without TLS."""

_TOKEN = re.compile(r"[!-~]{1,1000}")  # what a header of HTTP may hold


def is_token(value: object) -> bool:
    """Whether it can be a client's token, which travels in a header of HTTP."""
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def _check(check: Callable[..., None], options: object, *names: str, **what: Any) -> None:
    """Have fields of options checked, by one of `remote_gym.validation`."""
    for name in names:
        check(f"{type(options).__name__}.{name}", getattr(options, name), **what)


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How a client makes a broken connection again. Times are in seconds.

    The first attempt follows a break at once. A pause precedes each further one, and it ends with `connect_timeout` if
    the server is not reached, with `attempts` if it is but what is made breaks again, and with the request's deadline.
    """

    first_pause: float = 0.02
    """The longest that the second attempt waits."""
    longest_pause: float = 1.0
    """The longest that any attempt waits."""
    multiplier: float = 2.0
    """How much longer each further attempt may wait than the one before."""
    jitter: bool = True
    """Wait for a random part of that time, so that the clients of a server that was away do not return all at once."""
    attempts: int = 10
    """How many connections in a row may break before they have answered, until the session is given up."""
    steady_after: float = 5.0
    """A connection that stood for so long is not at fault: when it breaks, attempts and pauses begin anew."""

    def __post_init__(self) -> None:
        _check(check_seconds, self, "first_pause", "longest_pause", "steady_after")
        if self.longest_pause < self.first_pause:
            raise ConfigError(
                f"RetryPolicy.longest_pause is {self.longest_pause!r}; use at least first_pause, {self.first_pause!r}"
            )
        _check(check_number, self, "multiplier", lowest=1, highest=100)
        _check(check_integer, self, "attempts", lowest=1, highest=1_000_000)
        _check(check_type, self, "jitter", kind=bool, mend="True or False")


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How a server behaves, beyond what it serves and where it listens. Times are in seconds."""

    max_sessions: int = 1024
    """Sessions open at once; one more gets `ServerFull`."""
    max_sessions_per_identity: int | None = None
    """Of them, those of one identity; None for all. A policy's rule may say otherwise."""
    max_opens_per_second: float | None = None
    """Sessions that one identity may open, ten seconds' worth of them at once; None for any number."""
    max_connections: int | None = None
    """TCP connections to the gRPC server, on each address that it listens on; None for as many as the system allows."""
    max_pending: int = 256
    """Direct connections that have not yet said for which session they come."""
    receive_bytes: int = 512 * 2**20
    """Bytes of requests that the gRPC server holds at once, in all; half of them one client's. Others wait."""
    max_num_envs: int = 4096
    """Environments that one session's vector environment may hold."""
    open_timeout: float = 120.0
    """How long creating an environment may take before its worker is stopped."""
    close_timeout: float = 5.0
    """How long an environment's ``close`` may take before its worker is killed."""
    lease: float = 60.0
    """How long a session lives on with nobody attached."""
    step_timeout: float | None = None
    """How long a step, a render or a call may run before its worker is killed. None: for ever."""
    reset_timeout: float | None = None
    """How long a reset may run before its worker is killed. None: for ever."""
    memory_limit: int | None = None
    """Bytes that a worker and the processes it started may hold before it is killed. None: any. Needs Linux."""
    worker_limits: Mapping[str, int] = field(default_factory=dict)
    """Limits that the system keeps for each worker, by their names in the module `resource`, such as ``"nofile"``."""
    output_rate: int = 16 * 1024
    """Bytes a second that the log takes of what a worker prints, and four times as many of all; the rest is dropped."""
    idle_timeout: float | None = None
    """How long a connected client may ask nothing before its session ends. None: for any time."""
    admit_timeout: float = 0.0
    """How long opening may wait for a free place before `ServerFull`."""
    drain: float = 0.0
    """How long running episodes may take to end once the server is to stop."""
    use_thread: bool = False
    """Run environments in threads of the server rather than in processes of their own."""
    check_actions: bool = False
    """Refuse actions outside their space's bounds with `InvalidAction`, before the environment sees them."""
    allow_insecure: bool = False
    """Serve without TLS on addresses that other machines can reach."""
    reflection: bool = False
    """Answer gRPC server reflection; needs the ``reflection`` extra."""
    imports: tuple[str, ...] = ()
    """Modules that each worker imports first, such as ``"ale_py"``, because they register environments."""
    ids: tuple[str, ...] = ()
    """Patterns of ids that clients may choose where none is named, such as ``"ALE/*"``. Without: those that Gymnasium
    itself and `imports` register."""
    environments: Mapping[str, RemoteArgs] = field(default_factory=dict)
    """Environments that a client may choose by name, beside the default."""
    client_entrypoints: Path | None = None
    """Folder below which clients may name an entrypoint file. None: they may not."""
    interpreter: str | None = None
    """Python executable for workers, where the environment needs another than the server's."""
    direct: bool = True
    """Offer direct connections to workers, the fast path, where the system can hand over descriptors."""
    direct_port: int = 0
    """TCP port for them; 0 picks a free one."""
    poll_us: int = 50
    """Microseconds that a worker looks for the next direct request without sleeping, while there are cores enough."""
    common_names: bool = False
    """Know a client by its certificate's common name where that has no URI, DNS or email name."""
    token_file: Path | None = None
    """File of the digests of clients' tokens, as ``remote-gym token`` writes it. Needs TLS."""
    certificate_lifetime: float | None = None
    """How long a connection is answered before the client has to make another, and show its certificate again."""
    allow: tuple[str, ...] = ()
    """``IDENTITY`` or ``IDENTITY=ENVIRONMENT,...``: who may open what. With any, or a policy, others may nothing."""
    policy: Path | None = None
    """TOML file of rules that say more, see ``docs/security.md``. Read again when it changes."""
    check: bool = True
    """Create each environment once before the server listens, and refuse to start if one cannot be created."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        _check(check_seconds, self, "open_timeout", "close_timeout", *self._given("idle_timeout"))
        # Clients leave one connection before they are attached to the next.
        _check(check_seconds, self, "lease", *self._given("certificate_lifetime"), lowest=0.1)
        _check(check_seconds, self, "admit_timeout", "drain", or_zero=True)
        _check(check_integer, self, "poll_us", lowest=0, highest=1_000_000)
        _check(check_integer, self, "max_sessions", "max_num_envs", "max_pending", lowest=1, highest=1_000_000)
        _check(check_integer, self, "output_rate", lowest=0, highest=10**9)
        _check(check_integer, self, "receive_bytes", lowest=2**25, highest=2**50)
        self._check_doors()
        _check(check_integer, self, "direct_port", lowest=0, highest=65535)
        flags = ("use_thread", "check", "check_actions", "allow_insecure", "reflection", "direct", "common_names")
        _check(check_type, self, *flags, kind=bool, mend="True or False")
        path = "the path of a file that 'remote-gym token' made"
        _check(check_type, self, *self._given("token_file"), kind=(str, os.PathLike), mend=path)
        _check(check_type, self, "limits", kind=Limits, mend="Limits(...)")
        if not isinstance(self.imports, (tuple, list)) or not all(isinstance(name, str) for name in self.imports):
            raise ConfigError(f"ServerOptions.imports is {self.imports!r}; use a tuple of module names")
        if not isinstance(self.ids, (tuple, list)) or not all(isinstance(text, str) and text for text in self.ids):
            raise ConfigError(
                f"ServerOptions.ids is {self.ids!r}; use a tuple of patterns, such as ('CartPole-v1', 'ALE/*')"
            )
        if not isinstance(self.environments, Mapping):
            raise ConfigError(f"ServerOptions.environments is {self.environments!r}; use a dict of names to arguments")
        for name in self.environments:
            if not isinstance(name, str) or not name or "," in name:  # which separates names in a rule of `allow`
                raise ConfigError(
                    f"ServerOptions.environments is of {name!r}; use a text as a name, such as 'easy', without commas"
                )
        self._check_what_workers_may_do()
        folder = self.client_entrypoints
        if folder is not None and not (isinstance(folder, (str, os.PathLike)) and Path(folder).is_dir()):
            raise ConfigError(f"ServerOptions.client_entrypoints is {folder!r}; use the path of a folder")
        python = self.interpreter
        if python is not None and not (isinstance(python, (str, os.PathLike)) and shutil.which(python)):
            raise ConfigError(f"ServerOptions.interpreter is {self.interpreter!r}; use the path of a Python executable")
        if python is not None:
            self._check_own_processes("interpreter", "no other Python can run in it")
        if self.direct_port and not self.direct:
            raise ConfigError(
                f"ServerOptions.direct_port is {self.direct_port}, but with direct=False there are no direct "
                "connections; leave one of the two out"
            )

    def _given(self, *names: str) -> list[str]:
        """Those that are not None."""
        return [name for name in names if getattr(self, name) is not None]

    def _check_doors(self) -> None:
        given = self._given("max_sessions_per_identity", "max_connections")
        _check(check_integer, self, *given, lowest=1, highest=1_000_000)
        _check(check_number, self, *self._given("max_opens_per_second"), lowest=1e-3, highest=1e6)
        if not isinstance(self.allow, (tuple, list)) or not all(isinstance(text, str) for text in self.allow):
            raise ConfigError(f"ServerOptions.allow is {self.allow!r}; use a tuple, such as ('DNS:alice=easy',)")
        policy = self.policy
        if policy is not None and not (isinstance(policy, (str, os.PathLike)) and Path(policy).is_file()):
            raise ConfigError(f"ServerOptions.policy is {self.policy!r}; use the path of a file")

    def _check_what_workers_may_do(self) -> None:
        # Within less, not even an answer that is ready is seen.
        _check(check_seconds, self, *self._given("step_timeout", "reset_timeout"), lowest=0.01)
        if self.memory_limit is not None:
            _check(check_integer, self, "memory_limit", lowest=1, highest=2**63 - 1)
            if self.memory_limit < LEAST_MEMORY:
                raise ConfigError(
                    f"ServerOptions.memory_limit is {self.memory_limit:,} bytes; use at least {LEAST_MEMORY:,}, "
                    "which a worker needs with the smallest of environments"
                )
            self._check_own_processes("memory_limit", "none can be measured, or killed, by itself")
            if not Path("/proc/self/smaps_rollup").exists():
                raise ConfigError(
                    f"ServerOptions.memory_limit is {self.memory_limit}, but this system has no /proc/PID/smaps_rollup "
                    "to measure by; use None, or worker_limits={'as': BYTES}"
                )
        if not isinstance(self.worker_limits, Mapping):
            raise ConfigError(
                f"ServerOptions.worker_limits is {self.worker_limits!r}; use a dict such as {{'nofile': 256}}"
            )
        if self.worker_limits:
            self._check_own_processes("worker_limits", "the system would limit the server itself")
            for name, value in self.worker_limits.items():
                check_resource_limit("ServerOptions.worker_limits", name, value)

    def _check_own_processes(self, name: str, why: str) -> None:
        if self.use_thread:
            raise ConfigError(
                f"ServerOptions.{name} is {getattr(self, name)!r}, but with use_thread=True all environments share one "
                f"process: {why}; leave one of the two out"
            )


@dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """How a client behaves. Times are in seconds."""

    connect_timeout: float = 10.0
    """How long reaching and authenticating the server may take, at one attempt."""
    reconnect_timeout: float | None = None
    """How long to try for a broken connection before the session is given up. None: as long as the server keeps it."""
    recover_timeout: float = 0.0
    """How long a reset tries to open a session in place of a lost one. Needs ``on_session_lost="truncate"``."""
    open_timeout: float = 150.0
    """How long opening a session, which creates the environment, may take."""
    reset_timeout: float = 300.0
    step_timeout: float = 300.0
    """How long a step, a render or a call may take."""
    close_timeout: float = 10.0
    allow_insecure: bool = False
    """Connect without TLS to another machine."""
    connection: Literal["auto", "direct", "grpc"] = "auto"
    """Whether to use a direct connection to the worker: if it can be had, in any case, or never."""
    poll_us: int = 50
    """Microseconds to look for a direct answer without sleeping; 0 saves the processor's time."""
    frame_encoding: Literal["auto", "raw", "zstd", "jpeg"] = "auto"
    """How images travel: as they are, compressed without loss or with it; or, to another machine, as it turns out."""
    observation_encoding: Literal["auto", "raw", "zstd"] = "auto"
    """How large observations travel."""
    token: str | None = field(default=None, repr=False)
    """What the server knows this client by, instead of a certificate. None: ``REMOTE_GYM_TOKEN`` of the environment."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """How a broken connection is made again."""
    on_session_lost: Literal["raise", "truncate"] = "raise"
    """What a step does when the environment is gone: raise, or end the episode as truncated."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        _check(check_choice, self, "connection", choices=("auto", "direct", "grpc"))
        _check(check_choice, self, "frame_encoding", choices=("auto", "raw", "zstd", "jpeg"))
        _check(check_choice, self, "observation_encoding", choices=("auto", "raw", "zstd"))
        _check(check_choice, self, "on_session_lost", choices=("raise", "truncate"))
        _check(check_type, self, "retry", kind=RetryPolicy, mend="RetryPolicy(...)")
        _check(check_integer, self, "poll_us", lowest=0, highest=1_000_000)
        _check(check_type, self, "allow_insecure", kind=bool, mend="True or False")
        # Its value stays out of the message.
        if self.token is not None and not is_token(self.token):
            raise ConfigError("ClientOptions.token is not what 'remote-gym token' printed; use that")
        _check(check_type, self, "limits", kind=Limits, mend="Limits(...)")
        _check(check_seconds, self, "connect_timeout", "open_timeout", "reset_timeout", "step_timeout", "close_timeout")
        _check(check_seconds, self, "recover_timeout", or_zero=True)
        if self.reconnect_timeout is not None:
            _check(check_seconds, self, "reconnect_timeout", or_zero=True)
        if self.recover_timeout and self.on_session_lost != "truncate":
            raise ConfigError(
                f"ClientOptions.recover_timeout is {self.recover_timeout!r}, but with on_session_lost='raise' a reset "
                "does not replace what was lost by itself; use on_session_lost='truncate', or leave it out"
            )
