"""Requests that open a session."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from remote_gym.address import is_loopback
from remote_gym.config import SERVERS_ALONE, ClientOptions, RemoteArgs, check_names
from remote_gym.errors import ConfigError
from remote_gym.protocol.constants import PROTOCOL_VERSION, package_versions
from remote_gym.protocol.ticket import SessionTicket
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.compression import is_installed, require
from remote_gym.wire.values import encode_value

ENCODINGS = {"raw": pb.ENCODING_RAW, "zstd": pb.ENCODING_ZSTD, "jpeg": pb.ENCODING_JPEG}


def check_arguments(
    frames: object,
    render_mode: object,
    resume: object = None,
    *,
    timings: Sequence[str] = ("step", "on_demand"),
) -> None:
    """Refuse arguments of a `RemoteEnvironment` or a `RemoteVectorEnv` that cannot work.

    Args:
        frames: Whose value is to be one of `timings`.
        render_mode: As given.
        resume: As given.
        timings: When frames may travel.

    Raises:
        ConfigError: Naming the argument.
    """
    if frames not in timings:
        raise ConfigError(f"is {frames!r}; use {' or '.join(map(repr, timings))}", field="frames", where="frames")
    if render_mode is not None and not isinstance(render_mode, str):
        raise ConfigError(
            f"is {render_mode!r}; use a text, such as 'rgb_array', or None", field="render_mode", where="render_mode"
        )
    if resume is not None and not isinstance(resume, SessionTicket):
        # By its type: it may be a secret, such as a ticket's token.
        raise ConfigError(
            f"is of type {type(resume).__name__}; use a SessionTicket, as `ticket` or `detach()` of another "
            "RemoteEnvironment gives one",
            field="resume",
            where="resume",
        )


def mode_to_open(render_mode: str | None) -> str | None:
    """The render mode of the environment: ``"human"`` is this end's own, for which it renders ``"rgb_array"``."""
    return "rgb_array" if render_mode == "human" else render_mode


def open_request(
    arguments: Mapping[str, Any], options: ClientOptions, *, render_mode: str | None, streams_frames: bool
) -> pb.OpenRequest:
    """Compose the request that opens a session.

    Args:
        arguments: `RemoteArgs`.
        options: The client's.
        render_mode: The environment's.
        streams_frames: Whether frames come with observations.

    Raises:
        ConfigError: If there is an argument that `RemoteArgs` does not have, or one of another type.
        EncodingError: If a keyword argument has no wire form.
    """
    check_names("remote_args", arguments, RemoteArgs.__annotations__, "remote_args")
    for name, value in arguments.items():
        if name in SERVERS_ALONE and value is not None:
            raise ConfigError(
                f"remote_args has {name!r}: in what an environment runs is the server's to say", field="remote_args"
            )
        if name == "entrypoint_kwargs":
            if value is not None and not isinstance(value, Mapping):
                raise ConfigError(f"is {value!r}; use a dict", field="remote_args", where=f"remote_args[{name!r}]")
        elif value is not None and not isinstance(value, (str, os.PathLike)):
            raise ConfigError(f"is {value!r}; use a text or None", field="remote_args", where=f"remote_args[{name!r}]")
    request = pb.OpenRequest(
        protocol_version=PROTOCOL_VERSION,
        versions=package_versions(),
        environment=os.fspath(arguments.get("environment") or ""),
        entrypoint=os.fspath(arguments.get("entrypoint") or ""),
        repo=os.fspath(arguments.get("repo") or ""),
        reference=os.fspath(arguments.get("reference") or ""),
        render_mode=render_mode or "",
        frames=pb.FRAMES_STEP if streams_frames else pb.FRAMES_NEVER,
    )
    kwargs = dict(arguments.get("entrypoint_kwargs") or {})
    encode_value(
        kwargs, request.entrypoint_kwargs, strict=True, limits=options.message_limits, path="entrypoint_kwargs"
    )
    return request


def choose_encodings(request: pb.OpenRequest, options: ClientOptions, url: str) -> None:
    """Write how frames and observations shall travel from `url`.

    Raises:
        ConfigError: If one was asked for whose library is not installed here.
    """
    # Through a hub or a tunnel that is on this machine the server is elsewhere.
    is_here = options.server_name is None and is_loopback(url)
    request.frame_encoding = _encoding("frame_encoding", options.frame_encoding, is_here=is_here)
    request.observation_encoding = _encoding("observation_encoding", options.observation_encoding, is_here=is_here)


def _encoding(option: str, asked: str, *, is_here: bool) -> pb.Encoding:
    if asked == "auto":
        # On one machine, copying is faster than compressing.
        return pb.ENCODING_AUTO if is_installed("zstd") and not is_here else pb.ENCODING_RAW
    if asked != "raw":
        require(asked, option, "client")
    return ENCODINGS[asked]
