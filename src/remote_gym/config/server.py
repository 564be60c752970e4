"""Options of servers."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from remote_gym.config.arguments import EnvironmentLike
from remote_gym.config.limits import Limits
from remote_gym.config.names import check_fields, names_checked
from remote_gym.errors import ConfigError
from remote_gym.validation import (
    LEAST_MEMORY,
    check_integer,
    check_number,
    check_resource_limit,
    check_seconds,
    check_type,
)

PathLike = str | os.PathLike[str]

HTTP_PROTOCOLS = ("openenv", "agentgpt", "vagen")
"""Protocols of others that are spoken over HTTP, each below a prefix of its name."""
HTTP_IMAGES = ("list", "png", "both")

_FLAGS = (
    "use_thread",
    "check",
    "check_actions",
    "allow_insecure",
    "reflection",
    "direct",
    "common_names",
    "http",
    "http_url_tokens",
    "dm_env_rpc",
)
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+")


@names_checked
@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How a server behaves, beyond what it serves and where it listens. In parentheses: the default and its unit.

    Attributes:
        max_sessions (1024): Sessions open at once; one more gets `ServerFull`.
        max_sessions_per_identity (None): Of them, those of one identity; None for all. A policy's rule may say
            otherwise.
        max_opens_per_second (None): Sessions that one identity may open, ten seconds' worth of them at once; None for
            any number.
        max_connections (None): TCP connections by gRPC, on all addresses together; None for as many as the system
            allows.
        max_pending (256): Connections that have not yet sent the bytes by which it is known what they are; one more
            takes the place of the oldest.
        receive_bytes (512 MiB): Bytes of requests that the gRPC server holds at once, in all; half of them one
            client's. Others wait.
        max_num_envs (4096): Environments that one session's vector environment may hold.
        open_timeout (120.0 s): How long creating an environment may take before its worker is stopped.
        close_timeout (5.0 s): How long an environment's ``close`` may take before its worker is killed.
        lease (60.0 s): How long a session lives on with nobody attached.
        step_timeout (None, or s): How long a step, a render or a call may run before its worker is killed. None:
            without end.
        reset_timeout (None, or s): How long a reset may run before its worker is killed. None: without end.
        memory_limit (None, or bytes): What a worker and the processes it started may hold before it is killed. None:
            anything. Needs Linux.
        rlimits ({}): Limits that the system keeps for each worker, by their names in the module `resource`, such as
            ``{"nofile": 256}``.
        output_rate (16 KiB/s): How much the log takes of what a worker prints, and four times as much of all; the rest
            is dropped.
        idle_timeout (None, or s): How long a connected client may ask nothing before its session ends. None: without
            end.
        queue_timeout (0.0 s): How long opening may wait for a free place before `ServerFull`.
        drain_timeout (0.0 s): How long running episodes may take to end once the server is to stop.
        use_thread (False): Run environments in threads of the server rather than in processes of their own.
        check_actions (False): Refuse actions outside their space's bounds with `InvalidAction`, before the environment
            sees them.
        allow_insecure (False): Serve without TLS on addresses that other machines can reach.
        reflection (False): Answer gRPC server reflection; needs the ``reflection`` extra.
        imports (()): Modules that each worker imports first, such as ``"ale_py"``, because they register environments.
        ids (()): Patterns of ids that clients may choose where none is named, such as ``"ALE/*"``. Without: those that
            Gymnasium itself and `imports` register.
        environments ({}): Environments that a client may choose by name, beside the default; each in any form in which
            the default one can be given.
        client_entrypoints (None): Folder below which clients may name an entrypoint file. None: they may not.
        interpreter (None): Python executable for workers, where the environment needs another than the server's.
        direct (True): Offer direct connections to workers, the fast path, where the system can hand over descriptors.
        grpc_port (None): One more TCP port, of gRPC alone, whose steps take no way round by the relay; 0 picks a free
            one.
        hub (None): A hub, ``"host:port"``, to which the server dials out, so that clients reach it through that under
            the names of its certificate. Needs TLS with an authority, and Linux.
        dm_env_rpc (False): Answer clients of dm_env_rpc, and those of remote-gym 0.7, at the port of gRPC, too. Needs
            the ``dm-env-rpc`` extra.
        http (False): Answer HTTP at the server's port, too: clients of OpenEnv, and others. Needs the ``http`` extra,
            and Linux.
        http_port (None): One more TCP port, of HTTP alone; 0 picks a free one. With or without `http`.
        http_root (None): The protocol that is also found without its prefix: ``"openenv"``, ``"agentgpt"`` or
            ``"vagen"``.
        http_hosts (()): Names, beside those of this machine and of the certificate, by which HTTP may be asked for.
        http_origins (()): Origins, such as ``"https://lab.example"``, whose pages a browser may let ask.
        http_url_tokens (False): Take tokens also from URLs, where others may find them.
        http_images ('list'): How images travel by HTTP: as lists of numbers, as base64 of a ``"png"``, or ``"both"``.
        poll_us (50 µs): How long a worker looks for the next direct request without sleeping, while there are cores
            enough.
        common_names (False): Know a client by its certificate's common name where that has no URI, DNS or email name.
        token_file (None): File of the digests of clients' tokens, as ``remote-gym token`` writes it. Needs TLS.
        certificate_lifetime (None, or s): How long a connection is answered before the client has to make another, and
            show its certificate again. None: without end.
        allow (()): ``"IDENTITY"`` or ``"IDENTITY=ENVIRONMENT,..."``: who may open what. With any, or a policy, others
            may nothing.
        policy (None): TOML file of rules that say more, see ``docs/security.md``. Read again when it changes.
        check (True): Create each environment once before the server listens, and refuse to start if one cannot be
            created.
        message_limits (Limits()): Bounds on what clients send.
    """

    max_sessions: int = 1024
    max_sessions_per_identity: int | None = None
    max_opens_per_second: float | None = None
    max_connections: int | None = None
    max_pending: int = 256
    receive_bytes: int = 512 * 2**20
    max_num_envs: int = 4096
    open_timeout: float = 120.0
    close_timeout: float = 5.0
    lease: float = 60.0
    step_timeout: float | None = None
    reset_timeout: float | None = None
    memory_limit: int | None = None
    rlimits: Mapping[str, int] = field(default_factory=dict)
    output_rate: int = 16 * 1024
    idle_timeout: float | None = None
    queue_timeout: float = 0.0
    drain_timeout: float = 0.0
    use_thread: bool = False
    check_actions: bool = False
    allow_insecure: bool = False
    reflection: bool = False
    imports: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    environments: Mapping[str, EnvironmentLike] = field(default_factory=dict)
    client_entrypoints: PathLike | None = None
    interpreter: str | None = None
    direct: bool = True
    grpc_port: int | None = None
    hub: str | None = None
    dm_env_rpc: bool = False
    http: bool = False
    http_port: int | None = None
    http_root: str | None = None
    http_hosts: tuple[str, ...] = ()
    http_origins: tuple[str, ...] = ()
    http_url_tokens: bool = False
    http_images: str = "list"
    poll_us: int = 50
    common_names: bool = False
    token_file: PathLike | None = None
    certificate_lifetime: float | None = None
    allow: tuple[str, ...] = ()
    policy: PathLike | None = None
    check: bool = True
    message_limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self._check_times()
        self._check_access()
        self._check_offer()
        self._check_workers()
        check_fields(check_integer, self, "max_sessions", "max_num_envs", "max_pending", lowest=1, highest=1_000_000)
        check_fields(check_integer, self, "receive_bytes", lowest=2**25, highest=2**50, unit="bytes")
        check_fields(check_type, self, "message_limits", kind=Limits, mend="Limits(...)")
        check_fields(check_type, self, *_FLAGS, kind=bool, mend="True or False")
        check_fields(check_integer, self, *self._given("grpc_port", "http_port"), lowest=0, highest=65535)
        self._check_http()
        if self.hub is not None and (not isinstance(self.hub, str) or not self.hub):
            raise self._error("hub", f"is {self.hub!r}; use HOST:PORT, such as 'trainer:56780'")

    def _error(self, name: str, problem: str) -> ConfigError:
        return ConfigError(problem, field=name, where=f"ServerOptions.{name}")

    def _given(self, *names: str) -> list[str]:
        """Names of options that are not None."""
        return [name for name in names if getattr(self, name) is not None]

    def _check_times(self) -> None:
        check_fields(check_seconds, self, "open_timeout", "close_timeout", *self._given("idle_timeout"))
        # Clients leave one connection before they are attached to the next.
        check_fields(check_seconds, self, "lease", *self._given("certificate_lifetime"), lowest=0.1)
        check_fields(check_seconds, self, "queue_timeout", "drain_timeout", or_zero=True)
        # Within less, not even an answer that is ready is seen.
        check_fields(check_seconds, self, *self._given("step_timeout", "reset_timeout"), lowest=0.01)

    def _check_access(self) -> None:
        counts = self._given("max_sessions_per_identity", "max_connections")
        check_fields(check_integer, self, *counts, lowest=1, highest=1_000_000)
        check_fields(check_number, self, *self._given("max_opens_per_second"), lowest=1e-3, highest=1e6)
        tokens = "the path of a file that 'remote-gym token' made"
        check_fields(check_type, self, *self._given("token_file"), kind=(str, os.PathLike), mend=tokens)
        self._check_texts("allow", "a tuple, such as ('DNS:alice=easy',)")
        policy = self.policy
        if policy is not None and not (isinstance(policy, (str, os.PathLike)) and Path(policy).is_file()):
            raise self._error("policy", f"is {policy!r}; use the path of a file")

    def _check_offer(self) -> None:
        self._check_texts("imports", "a tuple of module names")
        self._check_texts("ids", "a tuple of patterns, such as ('CartPole-v1', 'ALE/*')")
        if not isinstance(self.environments, Mapping):
            raise self._error("environments", f"is {self.environments!r}; use a dict of names to environments")
        for name in self.environments:
            if not isinstance(name, str) or not name or "," in name:  # which separates names in a rule of `allow`
                raise self._error(
                    "environments", f"is of {name!r}; use a text as a name, such as 'easy', without commas"
                )
        folder = self.client_entrypoints
        if folder is not None and not (isinstance(folder, (str, os.PathLike)) and Path(folder).is_dir()):
            raise self._error("client_entrypoints", f"is {folder!r}; use the path of a folder")

    def _check_texts(self, name: str, form: str) -> None:
        texts = getattr(self, name)
        if not isinstance(texts, (tuple, list)) or not all(isinstance(text, str) and text for text in texts):
            raise self._error(name, f"is {texts!r}; use {form}")

    def _check_http(self) -> None:
        if self.http_root not in (None, *HTTP_PROTOCOLS):
            raise self._error(
                "http_root", f"is {self.http_root!r}; use {' or '.join(map(repr, HTTP_PROTOCOLS))}, or None"
            )
        if self.http_images not in HTTP_IMAGES:
            raise self._error("http_images", f"is {self.http_images!r}; use {' or '.join(map(repr, HTTP_IMAGES))}")
        self._check_texts("http_hosts", "a tuple of host names, such as ('lab.example',)")
        self._check_texts("http_origins", "a tuple of origins, such as ('https://lab.example',)")
        for origin in self.http_origins:
            if not _ORIGIN.fullmatch(origin):
                raise self._error(
                    "http_origins", f"is {self.http_origins!r}; use schemes and hosts, as in ('https://lab.example',)"
                )

    def _check_workers(self) -> None:
        check_fields(check_integer, self, "poll_us", lowest=0, highest=1_000_000)
        check_fields(check_integer, self, "output_rate", lowest=0, highest=10**9)
        python = self.interpreter
        if python is not None and not (isinstance(python, (str, os.PathLike)) and shutil.which(python)):
            raise self._error("interpreter", f"is {python!r}; use the path of a Python executable")
        if python is not None:
            self._check_own_processes("interpreter", "no other Python can run in it")
        self._check_memory_limit()
        if not isinstance(self.rlimits, Mapping):
            raise self._error("rlimits", f"is {self.rlimits!r}; use a dict such as {{'nofile': 256}}")
        if self.rlimits:
            self._check_own_processes("rlimits", "the system would limit the server itself")
            for name, value in self.rlimits.items():
                check_resource_limit("ServerOptions.rlimits", name, value)

    def _check_memory_limit(self) -> None:
        if self.memory_limit is None:
            return
        check_fields(check_integer, self, "memory_limit", lowest=1, highest=2**63 - 1, unit="bytes")
        if self.memory_limit < LEAST_MEMORY:
            raise self._error(
                "memory_limit",
                f"is {self.memory_limit:,} bytes; use at least {LEAST_MEMORY:,}, which a worker needs with the "
                "smallest of environments",
            )
        self._check_own_processes("memory_limit", "none can be measured, or killed, by itself")
        if not Path("/proc/self/smaps_rollup").exists():
            raise self._error(
                "memory_limit",
                f"is {self.memory_limit}, but this system has no /proc/PID/smaps_rollup to measure by; use None, or "
                "rlimits={'as': BYTES}",
            )

    def _check_own_processes(self, name: str, why: str) -> None:
        if self.use_thread:
            raise self._error(
                name,
                f"is {getattr(self, name)!r}, but with use_thread=True all environments share one process: {why}; "
                "leave one of the two out",
            )
