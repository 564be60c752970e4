"""Keyword arguments of clients beside what the server's policy lets them set.

The server checks the rules themselves. What clients send it does not look into: the worker, a process of its own,
decodes that and calls `check_arguments` before any code of the environment is loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from remote_gym.errors import ConfigError, DenialReason, NotPermitted


def check_schema(where: str, schema: str) -> None:
    """Refuse what is no JSON Schema (draft 2020-12), or refers to another document.

    Args:
        where: Said first in errors.
        schema: As JSON.

    Raises:
        ConfigError: If it is none, or `jsonschema` is not installed.
    """
    jsonschema, referencing = _libraries()
    try:
        content = json.loads(schema)
        jsonschema.Draft202012Validator.check_schema(content)
    except jsonschema.SchemaError as error:
        raise ConfigError(f"{where}, at {error.json_path}: {error.message:.300}") from error
    except RecursionError as error:
        raise ConfigError(f"{where} nests too deep to be checked") from error
    resource = referencing.jsonschema.DRAFT202012.create_resource(content)
    resolver = referencing.Registry().with_resource("", resource).resolver()
    for reference in _references(content):
        # What a worker would have to fetch, it does not.
        if not reference.startswith("#"):
            raise ConfigError(
                f"{where}: it refers to {reference!r:.100}; use references within it, such as '#/$defs/x'"
            )
        try:
            resolver.lookup(reference)
        # The others where it leads into a list by a name, or on from a number.
        except (referencing.exceptions.Unresolvable, ValueError, TypeError) as error:
            raise ConfigError(f"{where}: it refers to {reference!r:.100}, which it does not have") from error


def check_arguments(arguments: Mapping[str, Any], allowed: Collection[str] | None, schema: str) -> None:
    """Refuse keyword arguments that a client may not set, or not so.

    Args:
        arguments: The client's, decoded.
        allowed: Which it may set; None for any.
        schema: What they have to fit, as JSON; empty for anything.

    Raises:
        NotPermitted: Naming the first that does not.
        ConfigError: If there is a schema, and `jsonschema` is not installed.
    """
    for name in arguments:
        if allowed is not None and name not in allowed:
            may = ", ".join(sorted(allowed)) or "none"
            raise NotPermitted(
                f"the server's policy does not let this client set the keyword argument {name!r:.100}; it may set: "
                f"{may}",
                reason=DenialReason.ARGUMENTS,
            )
    if not schema:
        return
    for name, value in arguments.items():
        _check_json(f"entrypoint_kwargs[{name!r:.100}]", value)
    jsonschema, referencing = _libraries()
    # An empty registry: otherwise the validator would fetch what a reference names.
    validator = jsonschema.Draft202012Validator(json.loads(schema), registry=referencing.Registry())
    try:
        error = jsonschema.exceptions.best_match(validator.iter_errors(_as_json(arguments)))
    except RecursionError as recursion:
        raise NotPermitted(
            "entrypoint_kwargs nest too deep to be held against the schema in the server's policy, or that refers to "
            "itself without end",
            reason=DenialReason.ARGUMENTS,
        ) from recursion
    if error is not None:
        raise NotPermitted(
            f"entrypoint_kwargs, at {error.json_path:.200}: {error.message:.300}; the server's policy asks for that",
            reason=DenialReason.ARGUMENTS,
        )


def _check_json(where: str, value: Any) -> None:
    """Refuse what a schema could not see.

    Its keywords pass by whatever is not of a JSON type: an array of NumPy has no ``maximum``, nor has NaN.
    """
    if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return
    if type(value) in (list, tuple):
        for index, item in enumerate(value):
            _check_json(f"{where}[{index}]", item)
        return
    if type(value) is dict and all(type(name) is str for name in value):
        for name, item in value.items():
            _check_json(f"{where}[{name!r:.100}]", item)
        return
    raise NotPermitted(
        f"{where} is {value!r:.100}, of type {type(value).__name__}; the server's policy has a schema for it, so use "
        "None, bool, int, a finite float, str, and lists and dicts with str keys of them",
        reason=DenialReason.ARGUMENTS,
    )


def _as_json(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _as_json(item) for name, item in value.items()}
    return value


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield value
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _references(item)


def _libraries() -> tuple[Any, Any]:
    try:
        import jsonschema
        import referencing.jsonschema
    except ImportError as error:
        raise ConfigError(
            "a schema in the server's policy needs jsonschema: pip install 'remote-gym[policy]'"
        ) from error
    return jsonschema, referencing
