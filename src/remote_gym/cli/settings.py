"""Settings of a server, from the flags of ``remote-gym serve`` and its configuration file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from remote_gym.cli.config_file import PLACE_FORMS, PLACE_PARAMETERS, Offer, offer_of
from remote_gym.cli.tls import files_in_use, tls_files
from remote_gym.config import Limits, RemoteArgs, ServerOptions, TlsFiles
from remote_gym.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The arguments of `create_remote_environment_server`.

    Attributes:
        offer: Its environments as a configuration file has them.
        unused: Parameters that others have put out of use.
    """

    default_args: Mapping[str, Any] | None
    url: str
    port: int
    tls: TlsFiles | None
    options: ServerOptions
    offer: Offer
    unused: frozenset[str]


def read_settings(ctx: click.Context, params: Mapping[str, Any]) -> Settings:
    """Bring parameters into the form that a server takes.

    Args:
        ctx: Of the command.
        params: Values of its parameters.

    Raises:
        click.UsageError: If flags contradict each other, or nothing is served.
        ConfigError: If an option cannot work.
    """
    rest = dict(params)
    id_, kwargs, named, url, port = (
        rest.pop(name) for name in ("environment_id", "kwargs", "environments", "url", "port")
    )
    texts = {name: rest.pop(name) for name in ("entrypoint", "repo", "reference")}
    place = {name: rest.pop(name) for name in PLACE_PARAMETERS}
    files = {name: rest.pop(name) for name in ("certs", "certificate", "key", "ca")}
    if id_ is not None and id_.endswith(".py") and texts["entrypoint"] is None:  # as Python takes it
        id_, texts["entrypoint"] = None, id_
    given = {
        "id": id_,
        **texts,
        "kwargs": kwargs.pop(None, None),
        **_given_place(place),
    }
    offer = offer_of(ctx)
    default = _default(offer.default, {key: value for key, value in given.items() if value is not None}, rest["ids"])
    environments = _named(offer.named, named, kwargs)
    _check_tables(offer, default, environments, rest["ids"])
    if default is None and not environments and rest["client_entrypoints"] is None:
        raise click.UsageError(
            "Say what to serve: an ID such as CartPole-v1, a FILE.py, --environment, or --ids PATTERN."
        )
    options = {
        **rest,
        "environments": {name: _remote_args(table) for name, table in environments.items()},
        "message_limits": _message_limits(rest.get("message_limits") or {}),
    }
    return Settings(
        default_args=None if default is None else _remote_args(default),
        url=url,
        port=port,
        tls=tls_files(ctx, files, "server"),
        options=ServerOptions(**options),
        offer=Offer(default=default, named=environments),
        unused=frozenset(files) - frozenset(files_in_use(ctx, files)),
    )


def _words(text: str, name: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(
            f"is {text!r}: {error}; quote it as in a shell", field=name, where=f"--{name.replace('_', '-')}"
        ) from error


def _given_place(params: Mapping[str, Any]) -> dict[str, Any]:
    """Where flags say that the default environment runs, by the keys of a table; None where they say nothing."""
    found: dict[str, Any] = {name: params[name] or None for name in PLACE_PARAMETERS if name != "uv_with"}
    for name in ("command", "engine_options"):
        if params[name] is not None:
            found[name] = _words(params[name], name)
    for name in ("mounts", "include"):
        if params[name]:
            found[name] = list(params[name])
    if params["uv_with"]:
        version = {} if params["uv"] is None else {"python": params["uv"]}
        found["uv"] = {**version, "with": list(params["uv_with"])}
    return found


def _default(filed: Mapping[str, Any] | None, given: dict[str, Any], ids: tuple[str, ...]) -> Mapping[str, Any] | None:
    """The default environment: a file's, refined by flags, or replaced by them if they name another."""
    if "id" in given and "entrypoint" in given:
        raise click.UsageError("Give either an ID or --entrypoint.")
    names_one = "id" in given or "entrypoint" in given
    table = {**({} if names_one else filed or {}), **given}
    if ("repo" in table or "reference" in table) and "entrypoint" not in table:
        raise click.UsageError("--repo and --reference need --entrypoint, a file in that repository.")
    if not names_one and filed is None and not ids:
        if given.get("kwargs"):
            raise click.UsageError("--kwargs needs an ID or --entrypoint; those of a named one are NAME=JSON.")
        return None
    return table


def _named(
    filed: Mapping[str, Mapping[str, Any]], texts: tuple[str, ...], kwargs: Mapping[str, dict[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """Environments by name: a file's, those of ``--environment`` over them, and the arguments of ``--kwargs``."""
    given: dict[str, Mapping[str, Any]] = {}
    for text in texts:
        name, _, what = text.partition("=")
        if not name or not what:
            raise ConfigError(
                f"is {text!r}; use NAME=ID or NAME=FILE.py, such as easy=CartPole-v1",
                field="environments",
                where="--environment",
            )
        if name in given:
            raise ConfigError(
                f"is given twice for {name!r}; use a name once", field="environments", where="--environment"
            )
        given[name] = {"entrypoint" if what.endswith(".py") else "id": what}
    found = {**filed, **given}
    for name, arguments in kwargs.items():
        if name not in found:
            names = ", ".join(found) or "none"
            raise ConfigError(
                f"is for {name!r}, which --environment does not name; there is {names}",
                field="kwargs",
                where="--kwargs",
            )
        found[name] = {**found[name], "kwargs": arguments}
    return found


def _check_tables(
    offer: Offer, default: Mapping[str, Any] | None, named: Mapping[str, Mapping[str, Any]], ids: tuple[str, ...]
) -> None:
    """Refuse a file's table that says nothing of which environment it is for, which else would be for any."""
    tables = [*([] if default is None else [(None, default)]), *named.items()]
    for name, table in tables:
        if name in offer.places and not ids and "id" not in table and "entrypoint" not in table:
            title = "environment" if name is None else f"environments.{name}"
            raise ConfigError(
                f"{offer.places[name]}: [{title}] has neither id nor entrypoint; add one, or, to let clients choose, "
                "ids in [offer]"
            )


def _message_limits(bounds: Mapping[str, int]) -> Limits:
    try:
        return Limits(**bounds)
    except ConfigError as error:
        _, _, name = (error.where or "").rpartition(".")  # its class is of no interest in a flag or a file
        raise ConfigError(f"{name} {error.problem}", field="message_limits") from error


def _remote_args(table: Mapping[str, Any]) -> RemoteArgs:
    kwargs = dict(table.get("kwargs") or {})
    where: RemoteArgs = {}
    where.update({name: table[name] for name in PLACE_FORMS if name in table})  # type: ignore[typeddict-item]
    if "id" in table:
        return {"entrypoint_kwargs": {"id": table["id"], **kwargs}, **where}
    if "entrypoint" not in table:
        return {"entrypoint_kwargs": kwargs, **where}
    return {
        **where,
        "entrypoint": table["entrypoint"],
        "entrypoint_kwargs": kwargs,
        "repo": table.get("repo"),
        "reference": table.get("reference"),
    }
