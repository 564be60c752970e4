"""Reading of a server's `Description` of an environment, spaces aside."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from remote_gym.config import Limits
from remote_gym.errors import ConfigError, EncodingError
from remote_gym.protocol.open_request import mode_to_open
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.exposed import not_exposed
from remote_gym.wire.values import decode_value

_PROMPT = "system_prompt"
"""A method of text environments that their agents' programs call, and not the agents."""


def read_metadata(description: pb.Description, limits: Limits, render_mode: str | None) -> dict[str, Any]:
    """Read the environment's metadata, with the render mode ``"human"`` wherever ``"rgb_array"`` is.

    Raises:
        ConfigError: As `check_render_mode` does.
        EncodingError: If it is no dict.
    """
    metadata = decode_value(description.metadata, limits)
    if not isinstance(metadata, dict):
        raise EncodingError(f"the environment's metadata is {metadata!r}, not a dict")
    modes = list(metadata.get("render_modes") or [])
    if "rgb_array" in modes and "human" not in modes:
        metadata["render_modes"] = [*modes, "human"]
    check_render_mode(render_mode, metadata)
    return metadata


def check_render_mode(render_mode: str | None, metadata: Mapping[str, Any]) -> None:
    """Refuse a render mode that the environment does not know, which else would fail where a frame is asked for.

    Args:
        render_mode: The client's.
        metadata: The environment's. It may declare no modes, and then is believed to know any.

    Raises:
        ConfigError: Naming those that there are.
    """
    # These are refused elsewhere, by whether they work: an entrypoint may render by other means than it declares.
    if render_mode in (None, "human", "rgb_array"):
        return
    modes = sorted(map(str, metadata.get("render_modes") or ()))
    # Gymnasium makes a collection of frames out of any mode.
    if modes and render_mode.removesuffix("_list") not in modes and render_mode not in modes:
        raise ConfigError(
            f"is {render_mode!r}, which the environment does not know; use {' or '.join(modes)}",
            field="render_mode",
            where="render_mode",
        )


def read_exposed(description: pb.Description, own: Collection[str]) -> dict[str, bool]:
    """Names that the entrypoint exposes, which read like the client's own attributes, and whether each is a method.

    Args:
        description: Of the environment.
        own: Names that mean something of the client's itself, such as ``"port"`` or ``"metadata"``, which it has to set
            again for another session. What is exposed under these can only be called.
    """
    return {exposed.name: exposed.callable for exposed in description.exposed if exposed.name not in own}


def read_tools(description: pb.Description) -> list[dict[str, Any]]:
    """Describe the exposed methods, as language models are told of tools.

    Returns:
        For each its ``name``, its docstring as ``description``, and the JSON Schema of its arguments as
        ``input_schema``; that is of any arguments where the server does not know them.
    """
    return [
        {
            "name": each.name,
            "description": each.description,
            "input_schema": json.loads(each.parameters) if each.parameters else {"type": "object"},
        }
        for each in description.exposed
        if each.callable and each.name != _PROMPT
    ]


def check_exposed(description: pb.Description, name: str, *, to_set: bool = False) -> None:
    """Refuse a name that the environment does not expose, as a local one refuses what it does not have.

    Args:
        description: Of the environment.
        name: What is to be called or read, or to be set.
        to_set: Which of these.

    Raises:
        AttributeError: If it is not exposed, saying what would expose it; or if a method was to be set.
    """
    exposed = {each.name: each.callable for each in description.exposed}
    if name not in exposed:
        raise AttributeError(
            not_exposed(name, exposed=exposed, lacking=description.lacking, made_by_id=description.made_by_id)
        )
    if to_set and exposed[name]:
        raise AttributeError(f"{name!r} is a method of the remote environment, and cannot be set")


def check_resumed(description: pb.Description, render_mode: str | None, num_envs: int = 0) -> None:
    """Refuse to go on with an environment that is not as this client would have opened it.

    Args:
        description: Of what a ticket is for.
        render_mode: The client's.
        num_envs: How many environments it would have; 0 for a single one, which is no vector.

    Raises:
        ConfigError: If it renders otherwise, or has another number of environments.
    """
    if description.num_envs != num_envs:
        kinds = [
            f"a worker with {count} environments" if count else "a single environment"
            for count in (description.num_envs, num_envs)
        ]
        raise ConfigError(
            f"the ticket is for {kinds[0]}, and {kinds[1]} is to be resumed; use RemoteVectorEnv for the tickets of "
            "one, with the same num_envs and workers, and RemoteEnvironment for others",
            field="resume",
        )
    if mode_to_open(render_mode) != (description.render_mode or None):
        raise ConfigError(
            f"is {render_mode!r}, and the environment to be resumed was opened with "
            f"{description.render_mode or None!r}; use the same",
            field="render_mode",
            where="render_mode",
        )
