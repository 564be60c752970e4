"""The file of ``remote-gym serve --config``: TOML with a table for each group of flags, and for each environment."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from remote_gym.cli.command import OTHERS, PLACES, Flag, Number
from remote_gym.cli.environment_errors import ENVIRONMENT_PLACES
from remote_gym.cli.options import Size, show_size
from remote_gym.config import nearest
from remote_gym.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OFFER = "What to serve"
LISTEN = "Where to listen"
ACCESS = "Who may connect"
SESSIONS = "Sessions"
WORKERS = "Environments and their processes"

TABLES = {OFFER: "offer", LISTEN: "listen", ACCESS: "access", SESSIONS: "sessions", WORKERS: "workers", OTHERS: "log"}
"""Groups of flags, and their tables in the file."""

PLACE_FORMS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "python": (str, "a text"),
    "command": (list, "a list of texts"),
    "there": (bool, "true or false"),
    "include": (list, 'a list of texts, such as ["libero"]'),
    "conda": (str, "a text"),
    "uv": ((str, dict), 'a text, or a table such as {python = "3.8", with = ["gym==0.26.2"]}'),
    "image": (str, "a text"),
    "engine": (str, "a text"),
    "network": (str, "a text"),
    "mounts": (list, 'a list of texts, such as ["/data:/data:ro"]'),
    "engine_options": (list, 'a list of texts, such as ["--shm-size", "8g"]'),
    "ssh": (str, "a text"),
    "gpus": (list, "a list such as [0, 1]"),
    "cpus": (list, "a list such as [0, 1, 2, 3]"),
    "variables": (dict, 'a table such as {OMP_NUM_THREADS = "1"}'),
    "warm": (int, "an integer"),
    "reuse": (bool, "true or false"),
    "max_sessions": (int, "an integer"),
}
"""Keys of an environment's table that say where it runs, with the type of each and how to write that."""

PLACE_PARAMETERS = (*(name for name in PLACE_FORMS if name != "max_sessions"), "uv_with")
"""Parameters of the flags that say the same. The flag ``--max-sessions`` is for all environments together."""

_ENVIRONMENT = ("id", "entrypoint", "kwargs", "repo", "reference", *PLACE_FORMS)
"""Keys of the tables ``[environment]`` and ``[environments.NAME]``, which stand for several flags together."""

_FORMS = {"kwargs": (dict, "a table, or one as JSON in a text"), **PLACE_FORMS}
"""Types of those of them that are no texts, and how to write these."""

_NO_SETTINGS = frozenset(
    {*(set(_ENVIRONMENT) - {"max_sessions"}), *PLACE_PARAMETERS, "environments", "config", "print_config"}
)
"""Flags that say what the tables of environments say, or are of one call."""

_OTHER_NAMES = {"host": "url", "hostname": "url", "entrypoint_kwargs": "kwargs", "certificates": "certs"}
"""Keys by which one may look for others."""

_LIMITS = {
    "rlimits": '{nofile = 256, as = "4GiB"}',
    "message_limits": '{message_bytes = "512MiB", depth = 16}',
}
"""Flags of ``NAME=NUMBER``, whose keys have tables, and examples of these."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True)
class Offer:
    """Environments by the keys of their tables; the default one is None where there is none.

    Attributes:
        places: File and line of their tables, by name; None is the default one's.
    """

    default: Mapping[str, Any] | None = None
    named: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    places: Mapping[str | None, str] = field(default_factory=dict)


def load(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    """Let a file's settings be the defaults of a command's flags; its environments are found by `offer_of`.

    Raises:
        ConfigError: Naming the line of what cannot be.
    """
    if path is None:
        return
    try:
        text = path.read_text("utf-8")
        document = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", field="config") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}", field="config") from error
    reader = _Reader(path, text, _settings(ctx.command))
    reader.read(document)
    ctx.default_map = reader.values
    ctx.meta[PLACES] = reader.places
    ctx.meta[ENVIRONMENT_PLACES] = reader.environment_place
    ctx.meta[__name__] = Offer(default=reader.default, named=reader.named, places=reader.tables)


def offer_of(ctx: click.Context) -> Offer:
    """The environments of the configuration file that a command was given; none without one."""
    found: Offer = ctx.meta.get(__name__, Offer())
    return found


def _settings(command: click.Command) -> dict[str, dict[str, Flag]]:
    """The flags that are settings, by table and key."""
    tables: dict[str, dict[str, Flag]] = {table: {} for table in TABLES.values()}
    for param in command.params:
        if isinstance(param, Flag) and param.name not in _NO_SETTINGS:
            tables[TABLES[param.group]][str(param.name)] = param
    return tables


class _Reader:
    """Reads a document, and remembers where each setting stands.

    Attributes:
        values: Of parameters, in the form that their flags take.
        places: File and line, by the parameter's name.
        default, named: Environments.
        tables: File and line of environments' tables, by name; None is the default one's.
    """

    def __init__(self, path: Path, text: str, settings: Mapping[str, Mapping[str, Flag]]) -> None:
        self._path = path
        self._lines = text.splitlines()
        self._settings = settings
        self.values: dict[str, Any] = {}
        self.places: dict[str, str] = {}
        self.default: dict[str, Any] | None = None
        self.named: dict[str, dict[str, Any]] = {}
        self.tables: dict[str | None, str] = {}

    def read(self, document: Mapping[str, Any]) -> None:
        self._check_keys((), document, ("environment", "environments", *self._settings))
        for name, table in document.items():
            self._check_table((name,), table)
            if name == "environment":
                self.default = self._environment((name,), table)
            elif name == "environments":
                for each, content in table.items():
                    self._check_table((name, each), content)
                    self.named[each] = self._environment((name, each), content)
            else:
                self._read_settings(name, table, self._settings[name])

    def environment_place(self, name: str | None, key: str | None) -> str:
        """File and line of an environment's table, or of its key; empty where the document has none."""
        table = self.default if name is None else self.named.get(name)
        if table is None or (key is not None and key not in table):
            return ""
        path = ("environment",) if name is None else ("environments", name)
        return self._place(path if key is None else (*path, key))

    def _read_settings(self, table: str, content: Mapping[str, Any], flags: Mapping[str, Flag]) -> None:
        self._check_keys((table,), content, flags)
        for key, value in content.items():
            self.places[key] = self._place((table, key))
            try:
                self.values[key] = _as_flag(flags[key], value)
            except ValueError as error:
                raise ConfigError(f"{self.places[key]}: {key} is {value!r}; use {error}") from error

    def _environment(self, path: tuple[str, ...], table: Mapping[str, Any]) -> dict[str, Any]:
        self._check_keys(path, table, _ENVIRONMENT)
        self.tables[path[1] if len(path) > 1 else None] = self._place(path)
        if "id" in table and "entrypoint" in table:
            second = list(table)[max(list(table).index(key) for key in ("id", "entrypoint"))]
            place = self._place((*path, second))
            raise ConfigError(f"{place}: [{'.'.join(path)}] has both id and entrypoint; keep one of the two")
        found = dict(table)
        if isinstance(found.get("kwargs"), str):  # JSON says what TOML cannot: null
            try:
                found["kwargs"] = json.loads(found["kwargs"])
            except ValueError as error:
                raise ConfigError(f"{self._place((*path, 'kwargs'))}: kwargs is no JSON: {error}") from error
        for key, value in found.items():
            expected, form = _FORMS.get(key, (str, "a text"))
            if not isinstance(value, expected):
                raise ConfigError(f"{self._place((*path, key))}: {key} is {value!r}; use {form}")
        return found

    def _check_table(self, path: tuple[str, ...], value: object) -> None:
        if not isinstance(value, dict):
            raise ConfigError(f"{self._place(path)}: {'.'.join(path)} is {value!r}; use a table, [{'.'.join(path)}]")

    def _check_keys(self, path: tuple[str, ...], table: Mapping[str, Any], known: Iterable[str]) -> None:
        for key in table:
            if key not in known:
                what = f"[{'.'.join(path)}] has no {key!r}" if path else f"there is no table [{key}]"
                raise ConfigError(f"{self._place((*path, key))}: {what}; {self._mend(key, tuple(known))}")

    def _mend(self, key: str, known: Collection[str]) -> str:
        """Name what an unknown key could have meant, or the table it belongs in."""
        name = _OTHER_NAMES.get(key, key)
        if name in known:
            return f"use {name}"
        tables = {**self._settings, "environment": _ENVIRONMENT}
        table = next((table for table, keys in tables.items() if name in keys), None)
        return nearest(key, known) if table is None else f"{name} belongs in [{table}]"

    def _place(self, path: tuple[str, ...]) -> str:
        """File and line of a key: of the first line with which the text up to there has it."""
        begin = 1
        for number in range(1, len(self._lines) + 1):
            try:
                found: Any = tomllib.loads("\n".join(self._lines[:number]))
            except tomllib.TOMLDecodeError:  # amid a value of several lines
                continue
            for key in path:
                found = found.get(key) if isinstance(found, dict) else None
            if found is not None:
                break
            begin = number + 1
        return f"{self._path}, line {begin}"


def _as_flag(param: Flag, value: Any) -> Any:
    """A value of the file as the flag takes it.

    Raises:
        ValueError: If it is of another type, saying which it has to be.
    """
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if param.is_flag:
        if not isinstance(value, bool):
            raise ValueError("true or false")
        return value
    if param.name in _LIMITS:
        if not isinstance(value, dict):
            raise ValueError(f"a table such as {_LIMITS[param.name]}")
        return [f"{name}={number}" for name, number in value.items()]
    if param.multiple:
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise ValueError("a list of texts")
        return value
    if isinstance(param.type, Number):
        if not is_integer and (param.type.is_integer or not isinstance(value, float)):
            raise ValueError("an integer" if param.type.is_integer else "a number")
        return value
    if isinstance(param.type, Size):
        if not is_integer and not isinstance(value, str):
            raise ValueError('a number of bytes, or a text such as "2GiB"')
        return value
    if not isinstance(value, str):
        raise ValueError("a text")
    return value


def as_file(ctx: click.Context, params: Mapping[str, Any], offer: Offer, unused: Collection[str] = ()) -> str:
    """The file that means the same as what a command was given.

    Args:
        ctx: Of the command.
        params: Values of its parameters.
        offer: Its environments.
        unused: Parameters that others have put out of use.
    """
    document: dict[str, dict[str, Any]] = {}
    if offer.default is not None:
        document["environment"] = _environment_table(offer.default)
    for name, environment in offer.named.items():
        document[f"environments.{_key(name)}"] = _environment_table(environment)
    for table, flags in _settings(ctx.command).items():
        given = {
            name: show_size(params[name]) if isinstance(flag.type, Size) else params[name]
            for name, flag in flags.items()
            if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT and name not in unused
        }
        if given:
            document[table] = given
    tables = [
        "\n".join([f"[{name}]", *(f"{_key(key)} = {_value(value)}" for key, value in table.items())])
        for name, table in document.items()
    ]
    return "\n\n".join(tables)


def _environment_table(environment: Mapping[str, Any]) -> dict[str, Any]:
    table = {key: environment[key] for key in _ENVIRONMENT if environment.get(key) not in (None, {})}
    if "kwargs" in table and _has_null(table["kwargs"]):
        table["kwargs"] = json.dumps(table["kwargs"])
    return table


def _has_null(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_null, value.values()))
    return any(map(_has_null, value)) if isinstance(value, list) else value is None


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _value(name)


def _value(value: Any) -> str:
    """A value in TOML, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else f"{'-' if value < 0 else ''}inf"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_key(key)} = {_value(each)}' for key, each in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    # What JSON escapes TOML reads alike; DEL is the one character that TOML wants escaped and JSON does not.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
