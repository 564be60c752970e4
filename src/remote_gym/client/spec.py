"""The `gymnasium.envs.registration.EnvSpec` of a remote environment, and what of it may be written to files."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gymnasium.envs.registration import EnvSpec

from remote_gym.client.connect.opening import CredentialPaths
from remote_gym.config import differing_options
from remote_gym.v1 import remote_gym_pb2 as pb

ENTRY_POINT = "remote_gym:RemoteEnvironment"

_SECRET = frozenset({"token"})
_OF_THIS_MACHINE = frozenset({"url", "port", "addresses", "client_credentials_paths", "tls", "resume"})


def without_secrets(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `RemoteEnvironment` as a spec keeps them: specs are printed and saved."""
    named = {name: value for name, value in arguments.items() if name != "options"}
    all_at_once = differing_options(arguments.get("options"))
    return {name: value for name, value in {**all_at_once, **named}.items() if name not in _SECRET}


@dataclass
class RemoteSpec(EnvSpec):
    """A spec that makes an environment again by connecting to its server.

    Where that is, and where the keys lie, is in its keyword arguments, which copies and pickles keep. What `to_json`
    writes, and data sets are published with, says neither: give them anew, `gymnasium.make(spec, url=..., port=...)`.
    """

    def to_json(self) -> str:
        """Convert the spec into JSON, without addresses and paths of keys."""
        kwargs = {name: value for name, value in self.kwargs.items() if name not in _OF_THIS_MACHINE | _SECRET}
        return super(RemoteSpec, dataclasses.replace(self, kwargs=kwargs)).to_json()


class SpecAttribute:
    """The attribute ``spec`` of a remote environment.

    `gymnasium.make` sets it to that of ``remote_gym/Remote-v0``, which says nothing of the environment. If the server
    has told one, that remains.
    """

    def __get__(self, environment: object | None, owner: type) -> EnvSpec | None:
        """The spec that was set; None before."""
        return None if environment is None else vars(environment).get("_spec")

    def __set__(self, environment: object, spec: EnvSpec | None) -> None:
        """Keep a spec, or the server's in place of one that only leads here."""
        if spec is not None and type(spec) is EnvSpec and _leads_here(spec):
            known = vars(environment).get("_spec")
            spec = known if isinstance(known, RemoteSpec) else _as_remote(spec)
        vars(environment)["_spec"] = spec


def _leads_here(spec: EnvSpec) -> bool:
    return spec.entry_point == ENTRY_POINT or spec.vector_entry_point == "remote_gym:RemoteVectorEnv"


def _as_remote(spec: EnvSpec) -> RemoteSpec:
    fields: dict[str, Any] = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec) if field.init}
    fields["kwargs"] = without_secrets(spec.kwargs)
    return RemoteSpec(**fields)


def read_spec(
    description: pb.Description, *, client_credentials_paths: CredentialPaths | None, **arguments: Any
) -> RemoteSpec | None:
    """A spec that makes the environment again, by connecting to the server; None where it has none itself.

    Args:
        description: Of the environment.
        client_credentials_paths: Of `RemoteEnvironment`.
        **arguments: The others.
    """
    if not description.HasField("spec"):
        return None
    spec, paths = description.spec, client_credentials_paths
    return RemoteSpec(
        id=spec.id,
        entry_point=ENTRY_POINT,
        reward_threshold=spec.reward_threshold if spec.HasField("reward_threshold") else None,
        nondeterministic=spec.nondeterministic,
        max_episode_steps=spec.max_episode_steps if spec.HasField("max_episode_steps") else None,
        order_enforce=False,
        disable_env_checker=True,
        kwargs={
            **arguments,
            # As texts, since a spec can be written as JSON.
            "client_credentials_paths": paths and tuple(path and os.fspath(path) for path in paths),
        },
    )
