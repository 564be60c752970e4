"""Observations as VAGEN's agents read them: a text, and images that it marks; and their texts as actions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from gymnasium import spaces

from remote_gym.errors import InvalidAction
from remote_gym.server.frontends.http.values import JsonWriter, element_of, is_image, png_of

MARK = "<image>"
TEXT = "obs_str"

_WRITER = JsonWriter()


def observation_of(space: gym.Space[Any], observation: Any) -> tuple[dict[str, Any], list[bytes]]:
    """Write an observation.

    Args:
        space: Its space. Of a Dict the member ``obs_str``, or the only text, is the text, and the images among its
            members, alone or several, are the images; the others are there by their names. Of other spaces the text is
            the observation in JSON, unless it is an image.
        observation: As the environment returned it.

    Returns:
        The ``obs`` without its images, and these as PNG, in order. The text marks each.
    """
    images: list[bytes] = []
    if not isinstance(space, spaces.Dict) or not isinstance(observation, Mapping):
        if _take_images(space, observation, images):
            return {TEXT: MARK * len(images)}, images
        text = observation if isinstance(observation, str) else _WRITER.write(observation).decode()
        return {TEXT: text}, []
    texts = [name for name, member in space.spaces.items() if isinstance(member, spaces.Text)]
    named = TEXT if TEXT in space.spaces else texts[0] if len(texts) == 1 else None
    shown = {
        str(name): value
        for name, value in observation.items()
        if name != named and not (name in space.spaces and _take_images(space.spaces[name], value, images))
    }
    text = str(observation[named]) if named is not None else _WRITER.write(shown).decode()
    return {**shown, TEXT: text + MARK * max(0, len(images) - text.count(MARK))}, images


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


def _take_images(space: gym.Space[Any], value: Any, images: list[bytes]) -> bool:
    """Add a value's images; False if it is none."""
    if is_image(space):
        images.append(png_of(value))
        return True
    members = (
        [space.feature_space] * len(value)
        if isinstance(space, spaces.Sequence)
        else list(space.spaces)
        if isinstance(space, spaces.Tuple)
        else []
    )
    if not members and not (isinstance(space, spaces.Sequence) and is_image(space.feature_space)):
        return False
    if not all(map(is_image, members)):
        return False
    images.extend(png_of(each) for each in value)
    return True
