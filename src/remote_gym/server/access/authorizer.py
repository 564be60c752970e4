"""Decides which identity may open what, and how often. Pure, but for what `PolicySource` reads."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from remote_gym.config import ServerOptions
from remote_gym.errors import ConfigError, FullReason, ServerFull
from remote_gym.server.access.policy import (
    DEFAULT,
    Policy,
    parse_allowed,
    parse_policy,
)
from remote_gym.server.access.rates import WINDOW, Rates
from remote_gym.tls import Reloaded
from remote_gym.v1 import worker_pb2

SETTLE = 1.0
"""Seconds for which a policy file has to stay as it is before it holds: half of one can be a policy, too."""
POLICY_BYTES = 2**20
"""Size of a policy file, at most."""


class Authorizer:
    """Decides about a client before anything is done for it.

    Args:
        options: The server's.
        policy: Who may open what.
        clock: Monotonic seconds.
    """

    def __init__(self, options: ServerOptions, policy: Policy, clock: Callable[[], float]) -> None:
        self._options = options
        self._rates = Rates(clock)
        self._held: Counter[str] = Counter()  # sessions of each identity that has any, from `admit` to `let_go`
        self.policy = policy

    def admit(self, identity: str, request: worker_pb2.Opening) -> None:
        """Let an identity open what it asks for. The session is counted as its own until `let_go`.

        Raises:
            NotPermitted: If it may not.
            ServerFull: If it has as many as it may, or has opened too many lately.
        """
        options = self._options
        grant = self.policy.decide(identity, self.environment(request))
        self.check_rate(identity, take=True)
        most = grant.max_sessions or options.max_sessions_per_identity
        if most is not None and self._held[identity] >= most:
            raise ServerFull(
                f"{identity or 'clients without an identity'!r} has {self._held[identity]} sessions, those that open "
                f"and close among them, as many as the server lets one identity have; close one, or have its policy, "
                f"or ServerOptions.max_sessions_per_identity, allow more. Sessions of clients that vanished without "
                f"closing end after {options.lease:g} s",
                reason=FullReason.IDENTITY,
            )
        self._held[identity] += 1

    def check_rate(self, identity: str, *, take: bool = False) -> None:
        """See whether an identity may open one more now, before anything of its request is read.

        Args:
            identity: Of the client that asks.
            take: Whether this one counts.

        Raises:
            ServerFull: If it has opened too many lately.
        """
        own = self.policy.opens_per_second(identity)
        rate = own or self._options.max_opens_per_second
        if rate is not None and (wait := self._rates.take(identity, rate, count=take)):
            limit = "its policy" if own else "ServerOptions.max_opens_per_second"
            raise ServerFull(
                f"{identity or 'clients without an identity'!r} opened more sessions than {limit} allows, which is "
                f"{rate:g} a second and {max(1, int(rate * WINDOW))} at once; try again in {wait:.1f} s",
                reason=FullReason.RATE,
            )

    def let_go(self, identity: str) -> None:
        """A session that was admitted is gone, with its environment, or was never opened."""
        self._held[identity] -= 1
        if not self._held[identity]:
            del self._held[identity]

    def environment(self, request: worker_pb2.Opening) -> str | None:
        """The environment's name as policies have it; None for an entrypoint that the client names."""
        return None if request.entrypoint and self._options.client_entrypoints is not None else request.environment

    def open_to(self, identity: str, *, has_default: bool) -> list[str]:
        """Names of the environments that an identity may open, the default one by `DEFAULT`."""
        offered = {*self._options.environments, *([DEFAULT] if has_default else [])}
        allowed = self.policy.environments(identity)
        return sorted(offered if allowed is None else offered & set(allowed))


def has_policy(options: ServerOptions) -> bool:
    """Whether the operator has said who may open what; from then on everybody else may open nothing."""
    return bool(options.allow) or options.policy is not None


class PolicySource:
    """The rules of `ServerOptions.allow` and of the file `ServerOptions.policy`, which is read again as it changes.

    Args:
        options: The server's.
        default_args: What it serves to who names no environment; None for nothing.

    Raises:
        ConfigError: If there is a rule that cannot work.
    """

    def __init__(self, options: ServerOptions, default_args: Mapping[str, Any] | None) -> None:
        self._allow = options.allow
        self._offered = {*options.environments, *([DEFAULT] if default_args is not None else [])}
        if DEFAULT in options.environments:
            raise ConfigError(
                f"environments[{DEFAULT!r}]: so rules call the environment of clients that name none; use another name"
            )
        self._path = None if options.policy is None else Path(options.policy).absolute()
        self._parsed: tuple[bytes, Policy] | None = None  # what the file held last
        self.policy = self._parse(None)
        self._file: Reloaded[Policy] | None = None
        if self._path is not None:
            self._file = Reloaded([self._path], functools.partial(self._load, self._path), settle=SETTLE)
            self.policy = self._file.get()

    def check_reachable(self, *, have_identities: bool) -> None:
        """Refuse rules that let nobody in, since clients have no identity that any could name.

        Args:
            have_identities: Whether clients have one.

        Raises:
            ConfigError: If clients show neither certificates nor tokens, and no rule is everybody's.
        """
        if not have_identities and self.policy.environments("") == ():
            raise ConfigError(
                "ServerOptions.allow and ServerOptions.policy name clients, but this server knows none: give it an "
                "authority (tls) or ServerOptions.token_file, or let '*' open something "
                "(check=False serves nobody all the same)"
            )

    def look(self) -> Policy | None:
        """The new policy, if the file has changed, and then stayed as it is for `SETTLE`; else None.

        A file that cannot be used changes nothing, and is told in the log once.
        """
        if self._file is None or (policy := self._file.get()) is self.policy:
            return None
        self.policy = policy
        return policy

    def _load(self, path: Path) -> Policy:
        data = _read(path)
        if self._parsed is None or self._parsed[0] != data:  # else it was written again, as it was
            self._parsed = data, self._parse(data)
        return self._parsed[1]

    def _parse(self, data: bytes | None) -> Policy:
        rules = parse_allowed(self._allow, self._offered)
        if data is not None:
            assert self._path is not None
            where = str(self._path)
            try:
                text = data.decode()
            except UnicodeDecodeError as error:
                raise ConfigError(f"{where} is not TOML: it is not UTF-8 ({error})") from error
            for identity, rule in parse_policy(text, where, self._offered).items():
                if identity in rules:
                    raise ConfigError(f"{where}: ServerOptions.allow names {identity!r}, too; keep one of the two")
                rules[identity] = rule
        return Policy(rules)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(POLICY_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > POLICY_BYTES:
        raise ConfigError(f"{path} is larger than {POLICY_BYTES:,} bytes, so it is hardly a policy")
    return data
