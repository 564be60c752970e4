"""Observations as VAGEN's agents read them: a text, and images that it marks; and their texts as actions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from gymnasium import spaces

from remote_gym.errors import InvalidAction
from remote_gym.server.frontends.http.images import holds_images, images_in, png_of
from remote_gym.server.frontends.http.values import JsonWriter, element_of
from remote_gym.wire.spaces.image import ImageSpace

MARK = "<image>"
TEXT = "obs_str"
MODALITIES = "multi_modal_input"

_WRITER = JsonWriter()


def observation_of(space: gym.Space[Any], observation: Any) -> tuple[dict[str, Any], list[bytes]]:
    """Write an observation.

    Args:
        space: Its space. Of a Dict the member ``obs_str``, or the only text, is the text, and the images among its
            members, alone or several, are the images. Of other spaces, and of a Dict without a text, the text is the
            observation in JSON, unless it is an image.
        observation: As the environment returned it.

    Returns:
        The text as ``obs``, which marks each image, with what is neither text nor image as ``members``; and the images
        as PNG, in order.
    """
    if holds_images(space):
        images = [png_of(image) for image in images_in(space, observation)]
        return {"obs": MARK * len(images)}, images
    if not isinstance(space, spaces.Dict) or not isinstance(observation, Mapping):
        return {"obs": observation if isinstance(observation, str) else _WRITER.write(observation).decode()}, []
    pictures = {name: member for name, member in space.spaces.items() if holds_images(member)}
    images = [png_of(image) for name, member in pictures.items() for image in images_in(member, observation[name])]
    texts = [name for name, member in space.spaces.items() if isinstance(member, spaces.Text)]
    named = TEXT if TEXT in space.spaces else texts[0] if len(texts) == 1 else None
    others = {str(name): value for name, value in observation.items() if name != named and name not in pictures}
    if named is None:
        text, members = _WRITER.write(others).decode(), {}
    else:
        text, members = str(observation[named]), {"members": others} if others else {}
    missing = 0 if _is_agents(space) else max(0, len(images) - text.count(MARK))
    return {"obs": text + MARK * missing, **members}, images


def prompt_of(value: Any) -> tuple[dict[str, Any], list[bytes]]:
    """Write what ``system_prompt`` returned: a text, or an observation of a text environment's.

    Returns:
        As `observation_of`.
    """
    if not isinstance(value, Mapping):
        return {"obs": str(value)}, []
    found = value.get(MODALITIES)
    images = found.get(MARK, ()) if isinstance(found, Mapping) else ()
    return {"obs": str(value.get(TEXT, ""))}, [png_of(image) for image in images if ImageSpace().contains(image)]


def action_of(space: gym.Space[Any], text: Any) -> Any:
    """The action that an agent's text is: itself, or what it holds as JSON.

    Raises:
        InvalidAction: If it is none.
    """
    if not isinstance(text, str):
        raise InvalidAction(f"action_str is a {type(text).__name__}; send a text")
    if isinstance(space, spaces.Text):
        return text
    try:
        return element_of(space, json.loads(text))
    except (ValueError, RecursionError):
        raise InvalidAction(f"action_str {text!r:.200} is no JSON, as an action of {space} has to be") from None


def _is_agents(space: spaces.Dict) -> bool:
    """Whether an environment of VAGEN's own shape has it, whose texts mark their images themselves."""
    return space.spaces.keys() == {TEXT, MODALITIES}
