"""Options as keyword arguments: what type checkers and editors know of them, and what `help` shows.

Python's dataclasses and its ``**keywords`` share no types: these two are written twice, and a test compares them.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict, TypeVar

from remote_gym.config.arguments import EnvironmentKeys, EnvironmentLike
from remote_gym.config.limits import Limits
from remote_gym.config.retry import RetryPolicy

PathLike = str | os.PathLike[str]
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class ServerKeywords(TypedDict, total=False):
    """The fields of `ServerOptions`, but ``use_thread``, which is an argument of its own."""

    max_sessions: int
    max_sessions_per_identity: int | None
    max_opens_per_second: float | None
    max_connections: int | None
    max_pending: int
    receive_bytes: int
    max_num_envs: int
    open_timeout: float
    close_timeout: float
    lease: float
    step_timeout: float | None
    reset_timeout: float | None
    memory_limit: int | None
    rlimits: Mapping[str, int]
    output_rate: int
    idle_timeout: float | None
    queue_timeout: float
    drain_timeout: float
    check_actions: bool
    allow_insecure: bool
    reflection: bool
    imports: tuple[str, ...]
    ids: tuple[str, ...]
    environments: Mapping[str, EnvironmentLike]
    client_entrypoints: PathLike | None
    interpreter: str | None
    direct: bool
    grpc_port: int | None
    hub: str | None
    dm_env_rpc: bool
    http: bool
    http_port: int | None
    http_root: str | None
    http_hosts: tuple[str, ...]
    http_origins: tuple[str, ...]
    http_url_tokens: bool
    http_images: str
    poll_us: int
    common_names: bool
    token_file: PathLike | None
    certificate_lifetime: float | None
    allow: tuple[str, ...]
    policy: PathLike | None
    check: bool
    message_limits: Limits


class LaunchKeywords(ServerKeywords, EnvironmentKeys, total=False):
    """The fields of `ServerOptions`, and keys of an environment that are no such field."""

    use_thread: bool


class ClientKeywords(TypedDict, total=False):
    """The fields of `ClientOptions`."""

    connect_timeout: float
    reconnect_timeout: float | None
    recover_timeout: float
    open_timeout: float
    reset_timeout: float
    step_timeout: float
    close_timeout: float
    allow_insecure: bool
    connection: Literal["auto", "direct", "grpc"]
    poll_us: int
    frame_encoding: Literal["auto", "raw", "zstd", "jpeg"]
    observation_encoding: Literal["auto", "raw", "zstd"]
    token: str | None
    server_name: str | None
    retry: RetryPolicy
    on_session_lost: Literal["raise", "truncate"]
    message_limits: Limits


def shows_options(options: type) -> Callable[[Decorated], Decorated]:
    """Decorator for a function of ``**options``, or a class: `help` shows each option, default, unit and meaning."""

    def decorate(decorated: Decorated) -> Decorated:
        function: Any = decorated.__init__ if isinstance(decorated, type) else decorated  # type: ignore[misc]
        function.__signature__ = expanded_signature(function, options)
        decorated.__doc__ = with_options(decorated.__doc__, options)
        return decorated

    return decorate


def expanded_signature(function: Callable[..., Any], options: type) -> inspect.Signature:
    """The signature with each option in place of ``**options``."""
    signature = inspect.signature(function)
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    more = [each for name, each in inspect.signature(options).parameters.items() if name not in signature.parameters]
    return signature.replace(parameters=[*own, *more])


def with_options(text: str | None, options: type) -> str | None:
    """A docstring with the list of options from the class's own at its end."""
    if text is None or options.__doc__ is None:  # without docstrings, under -OO
        return text
    _, _, listed = inspect.cleandoc(options.__doc__).partition("\nAttributes:\n")
    return f"{inspect.cleandoc(text)}\n\nOptions, and in parentheses their defaults and units:\n{listed}"
