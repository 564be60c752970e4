"""Use a server step by step, from its name to a step of its environment, and tell of each how it went."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from remote_gym.address import is_loopback
from remote_gym.client.connect.diagnosis import Check, diagnose, look
from remote_gym.client.connect.opening import connect
from remote_gym.client.environment import RemoteEnvironment
from remote_gym.config import TOKEN_VARIABLE, ClientOptions, TlsFiles
from remote_gym.errors import (
    ConfigError,
    ConnectError,
    InvalidObservation,
    NotPermitted,
    ProtocolMismatch,
    RemoteEnvironmentError,
    RemoteGymError,
    ServerFull,
    SessionLost,
    TransportError,
)
from remote_gym.protocol.constants import PROTOCOL_VERSION
from remote_gym.tls import check_files

_MENDS: tuple[tuple[type[RemoteGymError], str], ...] = (
    (NotPermitted, "ask for something else, or have the server allow it"),
    (ProtocolMismatch, "install the same release of remote_gym at both ends"),
    (ConfigError, "correct the arguments, here or of the server"),
    (RemoteEnvironmentError, "correct the environment's own code, which raised this, or what it needs on the server"),
    (InvalidObservation, "correct the environment: what it returns does not fit its own observation_space"),
    (SessionLost, "look into the server's log for what ended the environment"),
    (TransportError, "look into the server's log; it may be overloaded, or something in between cuts connections"),
)


# What is full, by a part of the error's text; the last one fits any.
_FULL = (
    ("stopping", "wait until the server has been started again, or use another one"),
    ("opened more sessions than", "wait, or have the server's operator allow more openings"),
    ("let one identity have", "close one of this client's sessions, or have the server's operator allow it more"),
    ("worker", "look into the server's log for why it starts no worker"),
    ("", "close a session, or raise ServerOptions.max_sessions"),
)


def examine(
    url: str,
    port: int,
    files: TlsFiles | None,
    remote_args: Mapping[str, Any] | None,
    *,
    timeout: float,
    connection: Literal["auto", "direct", "grpc"] = "auto",
    allow_insecure: bool = False,
    server_name: str | None = None,
) -> Iterator[Check]:
    """Take the steps one by one, until one fails.

    Args:
        url: Host name, address, or ``unix:path``.
        port: TCP port.
        files: This client's; None for plaintext.
        remote_args: What to open.
        timeout: Seconds for each step of the connection. The environment has those of `ClientOptions`.
        connection: As in `ClientOptions`; which kinds to try. For ``"auto"`` both, of which the direct one may fail.
        allow_insecure: As in `ClientOptions`; without it, plaintext to another machine is refused.
        server_name: As in `ClientOptions`.
    """
    if files is not None:
        check = _check_own_files(files)
        yield check
        if not check.works:
            return
    checks = diagnose(url, port, files, server_name=server_name, timeout=timeout)
    for check in checks:
        if check.step in ("TLS", "plaintext"):
            yield from _look_at_server(url, port, timeout, server_name)
        yield check
    if not all(check.works for check in checks):
        return
    if files is None and not allow_insecure and not is_loopback(url):
        mend = "give certificates, or accept it by allow_insecure=True"
        yield Check("encryption", False, f"{url} is another machine, and anybody in between could read along", mend)
        return
    arguments: dict[str, Any] = {
        "connect_timeout": timeout,
        "allow_insecure": allow_insecure,
        "server_name": server_name,
    }
    if files is not None:
        check = _check_identity(url, port, files, ClientOptions(**arguments))
        yield check
        if not check.works:
            return
    use = functools.partial(RemoteEnvironment, url, port, remote_args, tls=files, **arguments)
    works = True
    if connection != "direct":
        for check in _use_grpc(functools.partial(use, connection="grpc")):
            works = works and check.works
            yield check
    if works and connection != "grpc":
        yield _use_directly(functools.partial(use, connection="direct"), needed=connection == "direct")


def _check_own_files(files: TlsFiles) -> Check:
    # Here, since without TLS there is no need to load cryptography.
    from remote_gym.tls.facts import read_certificate

    step = "this client's certificate"
    try:
        check_files(files, "client")
    except ConfigError as error:
        return Check(step, False, str(error), "correct the file", hopeless=True)
    if files.certificate is None:
        return Check(step, True, "none is given")
    return Check(step, True, str(read_certificate(files.certificate)))


def _check_identity(url: str, port: int, files: TlsFiles, options: ClientOptions) -> Check:
    """Whether the server knows this client; what it may open there is another question."""
    step = "identity"
    token = f"the token in {TOKEN_VARIABLE}" if os.environ.get(TOKEN_VARIABLE) else "no token"
    mend = (
        f"check {TOKEN_VARIABLE}: a token is made by 'remote-gym token NAME --file FILE', where FILE is "
        "ServerOptions.token_file, and is printed only then"
    )
    try:
        with contextlib.closing(connect(url, port, files, options)) as connection:
            connection.check_known(options.connect_timeout)
    except ConfigError as error:
        return Check(step, False, str(error), mend, hopeless=True)
    except NotPermitted as error:
        if token == "no token" and files.certificate is not None:
            mend = "show a certificate that names this client, or a token that the server knows, as is said here"
        return Check(step, False, str(error), mend, hopeless=True)
    except TransportError:  # a server of an older release, or in trouble; opening tells of that
        return Check(step, True, "the server does not tell whether it knows this client")
    return Check(step, True, f"the server knows this client, which sends {token}")


def _look_at_server(url: str, port: int, timeout: float, server_name: str | None) -> Iterator[Check]:
    """Check what the server shows to anybody, and whether it asks for a certificate; nothing where it speaks no TLS."""
    from remote_gym.tls.facts import decode_certificate

    shown = look(url, port, timeout, server_name)
    if shown is None:
        return
    try:
        facts = decode_certificate(shown.certificate)
    except ConfigError as error:
        yield Check("server's certificate", False, str(error), "make the server a new certificate")
    else:
        mend = "make the server a new certificate; 'remote-gym certs server' does" if facts.has_expired else ""
        yield Check("server's certificate", not facts.has_expired, str(facts), mend)
    yield Check("server's demand", True, f"{'a' if shown.requires_certificate else 'no'} client certificate")


def _use_grpc(use: Callable[[], RemoteEnvironment]) -> Iterator[Check]:
    start = time.perf_counter()
    try:
        environment = use()
    except (ConnectError, ProtocolMismatch) as error:
        yield _failure("protocol", error)
        return
    except RemoteGymError as error:
        yield Check("protocol", True, f"version {PROTOCOL_VERSION}")
        yield _failure("session", error)
        return
    with contextlib.closing(environment):
        yield Check("protocol", True, f"version {PROTOCOL_VERSION}")
        name = environment.spec.id if environment.spec else "an environment"
        yield Check("session", True, f"opened for {name} in {_since(start)}{_standing(environment)}")
        reset = _timed("reset", environment.reset, "over gRPC, observation of ")
        yield reset
        if reset.works:
            take_step = functools.partial(environment.step, environment.action_space.sample())
            yield _timed("step", take_step, "over gRPC, observation of ")


def _standing(environment: RemoteEnvironment) -> str:
    """Identity by which the server knows this client, and the environments that it lets it open."""
    session = environment._session
    if session is None or not session.environments:
        return ""
    # By their `repr`, since the server chose these texts, and a terminal may do what they say.
    who = repr(session.identity) if session.identity else "nobody in particular"
    return f"; the server takes this client for {who}, who may open {', '.join(map(repr, session.environments))}"


def _use_directly(use: Callable[[], RemoteEnvironment], *, needed: bool) -> Check:
    """On a session of its own: one that has been closed makes room for it, even where there is room for one only."""
    step = "direct connection"
    slower = "" if needed else "; until then gRPC is used, which is slower"
    try:
        environment = use()
    except RemoteGymError as error:
        failure = _failure(step, error)
        if isinstance(error, ConnectError):
            failure = replace(failure, mend=f"have the server offer them (ServerOptions.direct){slower}")
        return replace(failure, needed=needed or not isinstance(error, ConnectError))
    with contextlib.closing(environment):
        try:
            environment.reset()
        except TransportError as error:
            mend = (
                "see what is between this machine and the server's port: it lets gRPC pass, and no other TLS; or, from "
                f"a server on Windows or macOS, not the second port that these have{slower}"
            )
            return Check(step, False, str(error), mend, needed=needed)
        except RemoteGymError as error:
            return replace(_failure(step, error), needed=needed)
        take_step = functools.partial(environment.step, environment.action_space.sample())
        return _timed(step, take_step, "a step, observation of ")


def _timed(step: str, call: Callable[[], tuple[Any, ...]], found: str) -> Check:
    start = time.perf_counter()
    try:
        observation = call()[0]
    except RemoteGymError as error:
        return _failure(step, error)
    shape = getattr(observation, "shape", None)
    what = type(observation).__name__ if shape is None else f"shape {shape}"
    return Check(step, True, f"{found}{what} in {_since(start)}")


def _failure(step: str, error: RemoteGymError) -> Check:
    if isinstance(error, ServerFull):
        mend = next(mend for part, mend in _FULL if part in str(error))
    elif isinstance(error, ConnectError):
        mend = "correct the port: another server listens there, or one that is not ready"
    else:
        mend = next((mend for kind, mend in _MENDS if isinstance(error, kind)), "look into the server's log")
    if isinstance(error, RemoteEnvironmentError):
        found = f"the environment raised {error.remote_type}: {error.remote_message}"
        return Check(step, False, found, mend, details=error.remote_traceback)
    return Check(step, False, str(error), mend)


def _since(start: float) -> str:
    return f"{(time.perf_counter() - start) * 1e3:.1f} ms"
