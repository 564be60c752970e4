"""Whether a server keeps to the protocol: named checks of one that runs, whoever wrote it.

Nothing is relied on but what ``remote_gym.proto`` says, so a server in another language can be checked as well.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from remote_gym.client.connect.opening import CredentialPaths
from remote_gym.config import TlsFiles
from remote_gym.errors import ConfigError, RemoteGymError
from remote_gym.testing import checks_of_connections, checks_of_environments, checks_of_sessions
from remote_gym.testing.checks import Check, NotApplicable, Subject
from remote_gym.testing.peer import Target
from remote_gym.tls import client_files

CHECKS: tuple[Check, ...] = (
    *checks_of_sessions.CHECKS,
    *checks_of_connections.CHECKS,
    *checks_of_environments.CHECKS,
    *checks_of_sessions.LAST,
)


class Verdict(enum.Enum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Outcome:
    """Result of one check.

    Attributes:
        check: Its name.
        verdict: How it ended.
        found: What was seen, or why the check does not apply.
    """

    check: str
    verdict: Verdict
    found: str

    def __str__(self) -> str:
        return f"{self.check}: {self.verdict.value}: {self.found}"


def examine_server(
    url: str,
    port: int,
    remote_args: Mapping[str, Any] | None = None,
    client_credentials_paths: CredentialPaths | None = None,
    tls: TlsFiles | None = None,
    *,
    local: Callable[[], gym.Env[Any, Any]] | None = None,
    steps: int = 200,
    checks: Collection[str] | None = None,
    **options: Any,
) -> Iterator[Outcome]:
    """Check a server, and tell of each check as it ends. At most two sessions are open at a time.

    Args:
        url: As for `RemoteEnvironment`.
        port: As for `RemoteEnvironment`.
        remote_args: What to open. Checks apply that its environment allows: those that compare two sessions need one
            that repeats itself under the same seed.
        client_credentials_paths: As for `RemoteEnvironment`.
        tls: As for `RemoteEnvironment`.
        local: Creates the same environment here, to compare it with the server's bit for bit.
        steps: How many to compare then, over each kind of connection.
        checks: Names of those to do; None for all.
        **options: Any field of `ClientOptions`; ``step_timeout`` is 30 seconds unless given.

    Raises:
        ConfigError: If an argument cannot work, or there is no check of a name.
        ConnectError: If the server cannot be reached.
    """
    by_name = {check.name: check for check in CHECKS}
    for name in checks or ():
        if name not in by_name:
            raise ConfigError(f"there is no check {name!r}; there is {', '.join(by_name)}", field="checks")
    target = Target(
        url=url,
        port=port,
        tls=client_files(client_credentials_paths, tls),
        remote_args=dict(remote_args or {}),
        changed_options={"step_timeout": 30.0, **options},
    )
    with target.session() as peer:  # whoever cannot be reached, or opens nothing, is told of once
        subject = Subject(target, peer.session.description, peer.session.HasField("direct"), local, steps)
    return (_outcome(check, subject) for name, check in by_name.items() if checks is None or name in checks)


def check_server(url: str, port: int, *arguments: Any, **options: Any) -> list[Outcome]:
    """Check a server, in a test say; the arguments are those of `examine_server`.

    Returns:
        What came of each check.

    Raises:
        AssertionError: If one failed, telling of all that did.
    """
    outcomes = list(examine_server(url, port, *arguments, **options))
    failed = [str(outcome) for outcome in outcomes if outcome.verdict is Verdict.FAILED]
    if failed:
        raise AssertionError(f"{len(failed)} of {len(outcomes)} checks failed:\n" + "\n".join(failed))
    return outcomes


def _outcome(check: Check, subject: Subject) -> Outcome:
    try:
        return Outcome(check.name, Verdict.PASSED, check.look(subject))
    except NotApplicable as reason:
        return Outcome(check.name, Verdict.NOT_APPLICABLE, str(reason))
    # Whatever else comes up, a KeyError of the environment's included, is an answer that should not have come.
    except (AssertionError, RemoteGymError, gym.error.Error) as error:
        kind = "" if type(error) is AssertionError else f"{type(error).__name__}: "
        return Outcome(check.name, Verdict.FAILED, kind + str(error))
