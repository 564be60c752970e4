"""Operations of our own protocol in JSON, described once: they are checked, and the OpenAPI page is made, from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from remote_gym.errors import ConfigError

_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "object": (dict,),
    "array": (list,),
}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A request.

    Attributes:
        method: HTTP's.
        path: Below the prefix.
        summary: For people.
        takes: Members of the body, each with its JSON Schema. None of them is needed but those of `needs`.
        needs: Members that have to be there.
        gives: Members of the answer.
    """

    method: str
    path: str
    summary: str
    takes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    gives: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def check(self, data: Mapping[str, Any]) -> None:
        """Refuse what the operation does not take.

        Raises:
            ConfigError: Naming the member.
        """
        for name, value in data.items():
            if name not in self.takes:
                known = ", ".join(self.takes) or "nothing"
                raise ConfigError(f"is no member of this request, which takes {known}", field=name, where=name[:100])
            kind = self.takes[name].get("type")
            if value is None or kind is None:
                continue
            if isinstance(value, bool) or not isinstance(value, _KINDS[kind]):
                raise ConfigError(f"is {value!r:.100}; send a JSON {kind}", field=name, where=name)
        for name in self.needs:
            if name not in data:
                raise ConfigError("is missing", field=name, where=name)


_ANY: dict[str, Any] = {}
_REQUEST = {
    "type": "string",
    "description": "Chosen by the client for each request. One that comes again is answered by the same answer. To "
    "open a session it has 16 characters at least, since whoever sends it is given that session.",
}
_SEED = {"type": "integer", "description": "As for Gymnasium's reset."}
_OPTIONS = {"type": "object", "description": "As for Gymnasium's reset."}
_OBSERVATION = {"description": "An element of the observation space: arrays are nested lists, or as `arrays` says."}
_INFO = {"type": "object"}
_SESSION = "/sessions/{session}"

OPERATIONS: dict[str, Operation] = {
    "open": Operation(
        method="POST",
        path="/sessions",
        summary="Open a session, with an environment of its own, and reset it.",
        takes={
            "environment": {"type": "string", "description": "Name of one that the server offers; else its default."},
            "kwargs": {"type": "object", "description": "Keyword arguments of the environment."},
            "render_mode": {"type": "string"},
            "arrays": {
                "type": "string",
                "enum": ["list", "base64"],
                "description": 'How arrays come: as nested lists, or as {"dtype", "shape", "base64"}, little-endian.',
            },
            "seed": _SEED,
            "options": _OPTIONS,
            "request": _REQUEST,
        },
        gives={
            "session": {"type": "string", "description": "A secret that stands for the session in what follows."},
            "observation_space": {"type": "object", "description": "As JSON Schema, with Gymnasium's own terms."},
            "action_space": {"type": "object"},
            "exposed": {"type": "array", "items": {"type": "string"}},
            "lease": {"type": "number", "description": "Seconds that the session lives on without a request."},
            "observation": _OBSERVATION,
            "info": _INFO,
        },
    ),
    "reset": Operation(
        method="POST",
        path=f"{_SESSION}/reset",
        summary="Reset the environment.",
        takes={"seed": _SEED, "options": _OPTIONS, "request": _REQUEST},
        gives={"observation": _OBSERVATION, "info": _INFO},
    ),
    "step": Operation(
        method="POST",
        path=f"{_SESSION}/step",
        summary="Step the environment once.",
        takes={"action": {"description": "An element of the action space."}, "request": _REQUEST},
        needs=("action",),
        gives={
            "observation": _OBSERVATION,
            "reward": {"type": "number"},
            "terminated": {"type": "boolean"},
            "truncated": {"type": "boolean"},
            "info": _INFO,
        },
    ),
    "render": Operation(
        method="POST",
        path=f"{_SESSION}/render",
        summary="Render the environment.",
        takes={"request": _REQUEST},
        gives={"frame": {"description": "As the environment's render returns it."}},
    ),
    "call": Operation(
        method="POST",
        path=f"{_SESSION}/call",
        summary="Call a method that the environment exposes, or read an attribute.",
        takes={
            "name": {"type": "string"},
            "args": {"type": "array"},
            "kwargs": {"type": "object"},
            "request": _REQUEST,
        },
        needs=("name",),
        gives={"value": _ANY},
    ),
    "tools": Operation(
        method="GET",
        path=f"{_SESSION}/tools",
        summary="Describe the methods that the environment exposes, as tools of an agent.",
        gives={
            "tools": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "description": {"type": "string"},
                        "input_schema": {"type": "object", "description": "JSON Schema of its arguments, by name."},
                    },
                },
            }
        },
    ),
    "close": Operation(
        method="DELETE",
        path=_SESSION,
        summary="End the session.",
        gives={"closed": {"type": "boolean"}},
    ),
}


def openapi(version: str, prefix: str) -> dict[str, Any]:
    """The OpenAPI document of all of them.

    Args:
        version: Of this package.
        prefix: At which they are found.
    """
    paths: dict[str, dict[str, Any]] = {}
    for name, operation in OPERATIONS.items():
        described: dict[str, Any] = {
            "operationId": name,
            "summary": operation.summary,
            "responses": {
                "200": {"description": "Done.", "content": _content(operation.gives, tuple(operation.gives))},
                "default": {
                    "description": "Not done, and why.",
                    "content": _content({"detail": {"type": "string"}}, ("detail",)),
                },
            },
        }
        if "{session}" in operation.path:
            described["parameters"] = [
                {"name": "session", "in": "path", "required": True, "schema": {"type": "string"}}
            ]
        if operation.method == "POST":
            described["requestBody"] = {"required": True, "content": _content(operation.takes, operation.needs)}
        paths.setdefault(prefix + operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "remote_gym", "version": version},
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _content(members: Mapping[str, Any], required: tuple[str, ...]) -> dict[str, Any]:
    schema = {"type": "object", "properties": dict(members), "required": list(required)}
    return {"application/json": {"schema": schema}}
