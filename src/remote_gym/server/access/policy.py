"""Rules about which identity may open what. Pure: texts in, an answer for an identity and an environment out."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from remote_gym.auth.argument_schema import check_schema
from remote_gym.errors import ConfigError, DenialReason, NotPermitted

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT = "default"
"""Name by which rules call the environment of clients that name none."""
EVERYBODY = "*"

_KINDS = ("URI", "DNS", "email", "CN", "token", "key")
_QUOTAS = ("max_sessions", "max_opens_per_second")
_TERMS = ("arguments", "schema")
_SEPARATORS = tuple("/:.-_@")
MOST = 1_000_000
"""Largest number in a rule."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Keyword arguments and modes that a client may choose.

    Attributes:
        arguments: Keyword arguments that it may set; None for any.
        schema: JSON Schema of all that it sets, as JSON; empty for none.
    """

    arguments: tuple[str, ...] | None = None
    schema: str = ""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Rights of one identity.

    Attributes:
        environments: The terms of each that it may open; None for whatever the server offers, clients' entrypoints too.
        terms: Those of all environments where `environments` is None.
        max_sessions: How many it may hold; None for as many as the server gives anyone.
        max_opens_per_second: How many it may open; None likewise.
    """

    environments: Mapping[str, Terms] | None = None
    terms: Terms = field(default_factory=Terms)
    max_sessions: int | None = None
    max_opens_per_second: float | None = None


@dataclass(frozen=True, kw_only=True)
class Grant:
    """The answer to one who may open an environment: on which terms, and how often."""

    terms: Terms
    max_sessions: int | None
    max_opens_per_second: float | None


class Policy:
    """Rules by identity. Exactly one is an identity's: its own, or else that of the longest pattern that fits.

    Args:
        rules: By identity, such as ``"DNS:alice"``; by a pattern with a ``*`` at its end; or by `EVERYBODY`.
    """

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self._rules = dict(rules)
        self._patterns = sorted((key[:-1] for key in rules if key.endswith("*")), key=len, reverse=True)

    def __len__(self) -> int:
        return len(self._rules)

    def decide(self, identity: str, environment: str | None) -> Grant:
        """Whether, and how, an identity may open an environment.

        Args:
            identity: A client's; empty for one without.
            environment: Its name, empty for the default one; None for an entrypoint file that the client names.

        Raises:
            NotPermitted: If it may not, telling what it may.
        """
        who = repr(identity) if identity else "a client without an identity"
        rule = self._rule(identity)
        if rule is None:
            raise NotPermitted(f"the server's policy has no rule for {who}", reason=DenialReason.ENVIRONMENT)
        terms = rule.terms if rule.environments is None else None
        if rule.environments is not None and environment is not None:
            terms = rule.environments.get(environment or DEFAULT)
        if terms is None:
            what = "entrypoints of its own" if environment is None else f"environment {environment or DEFAULT!r:.100}"
            may = ", ".join(sorted(rule.environments or ())) or "none"
            raise NotPermitted(
                f"the server's policy does not let {who} open {what}; it may open: {may}",
                reason=DenialReason.ENVIRONMENT,
            )
        return Grant(terms=terms, max_sessions=rule.max_sessions, max_opens_per_second=rule.max_opens_per_second)

    def environments(self, identity: str) -> tuple[str, ...] | None:
        """Names of the environments that an identity may open; None for whatever the server offers."""
        rule = self._rule(identity)
        if rule is None:
            return ()
        return None if rule.environments is None else tuple(sorted(rule.environments))

    def opens_per_second(self, identity: str) -> float | None:
        """How many sessions a second an identity may open; None where its rule does not say."""
        rule = self._rule(identity)
        return None if rule is None else rule.max_opens_per_second

    def _rule(self, identity: str) -> Rule | None:
        own = self._rules.get(identity) if not identity.endswith("*") else None
        if own is not None:
            return own
        return next((self._rules[f"{start}*"] for start in self._patterns if identity.startswith(start)), None)


EVERYTHING_TO_EVERYBODY = Policy({EVERYBODY: Rule()})
"""Policy of a server whose operator has said nothing."""
NOTHING_TO_NOBODY = Policy({})


def parse_allowed(texts: Iterable[str], offered: Collection[str]) -> dict[str, Rule]:
    """Rules of the option `ServerOptions.allow`.

    Args:
        texts: ``IDENTITY`` or ``IDENTITY=ENVIRONMENT,...`` each; the same identity may come several times.
        offered: Names of the environments that there are.

    Raises:
        ConfigError: Naming the text that cannot work.
    """
    chosen: dict[str, list[str] | None] = {}
    for text in texts:
        identity, equals, listed = text.partition("=")
        _check_identity("ServerOptions.allow", identity)
        names = listed.split(",") if equals else None
        if names is not None:
            _check_environments(f"ServerOptions.allow: {text!r}", names, offered)
        before = chosen.setdefault(identity, [])
        chosen[identity] = None if names is None or before is None else [*before, *names]
    return {
        identity: Rule(environments=None if names is None else dict.fromkeys(names, Terms()))
        for identity, names in chosen.items()
    }


def parse_policy(text: str, where: str, offered: Collection[str]) -> dict[str, Rule]:
    """Rules of a policy file: a table ``[allow."IDENTITY"]`` for each.

    Args:
        text: TOML.
        where: The file's name, for errors.
        offered: Names of the environments that there are.

    Raises:
        ConfigError: Naming file, table and key, what was found, and what would be right.
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # its own error is a ValueError; so is that of too long a number
        mend = "; give each environment a table, in place of the list" if "'environments'" in str(error) else ""
        raise ConfigError(f"{where} is not TOML: {error}{mend}") from error
    _check_keys(where, "", document, ("allow",))
    # A file that is being written may be empty for a moment, which must not be taken for a will to lock all out.
    if not isinstance(document.get("allow"), dict) or not document["allow"]:
        raise ConfigError(f'{where}: there is no table [allow."IDENTITY"]; write one, such as [allow."DNS:alice"]')
    return {
        identity: _parse_rule(where, f'[allow."{identity}"]', identity, table, offered)
        for identity, table in document["allow"].items()
    }


def _parse_rule(where: str, table_name: str, identity: str, table: Any, offered: Collection[str]) -> Rule:
    at = f"{where}: {table_name}"
    _check_identity(at, identity)
    if not isinstance(table, dict):
        raise ConfigError(f"{at} is {_shown(table)}; use a table")
    _check_keys(where, table_name, table, ("environments", *_QUOTAS, *_TERMS))
    _check_number(at, table, "max_sessions", int, 1)
    _check_number(at, table, "max_opens_per_second", (int, float), 0.001)
    terms = _parse_terms(where, table_name, table, Terms())
    environments = table.get("environments")
    if isinstance(environments, list):
        _check_environments(f"{at}: environments", environments, offered)
        environments = {name: {} for name in environments}
    elif environments is not None and not isinstance(environments, dict):
        raise ConfigError(f'{at}: environments is {_shown(environments)}; use a list of names, such as ["easy"]')
    each: dict[str, Terms] | None = None
    if environments is not None:
        _check_environments(f"{at}: environments", environments, offered)
        each = {}
        for name, own in environments.items():
            own_name = f"{table_name[:-1]}.environments.{name}]"
            if not isinstance(own, dict):
                raise ConfigError(f"{where}: {own_name} is {_shown(own)}; use a table")
            _check_keys(where, own_name, own, _TERMS)
            each[name] = _parse_terms(where, own_name, own, terms)
    return Rule(environments=each, terms=terms, **{name: table[name] for name in _QUOTAS if name in table})


def _parse_terms(where: str, table_name: str, table: Mapping[str, Any], otherwise: Terms) -> Terms:
    arguments, schema = otherwise.arguments, otherwise.schema
    if "arguments" in table:
        names = table["arguments"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ConfigError(
                f"{where}: {table_name}: arguments is {_shown(names)}; use a list of names of keyword arguments"
            )
        arguments = tuple(names)
    if "schema" in table:
        try:
            schema = json.dumps(table["schema"], allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"{where}: {table_name}: schema has no form in JSON: {error}") from error
        check_schema(f"{where}: {table_name}: schema", schema)
    return Terms(arguments=arguments, schema=schema)


def _check_identity(where: str, identity: str) -> None:
    if identity == EVERYBODY:
        return
    kind, colon, name = identity.partition(":")
    if kind not in _KINDS or not colon or not name:
        kinds = ", ".join(f"'{kind}:'" for kind in _KINDS)
        raise ConfigError(
            f"{identity!r} is no identity; use one such as 'DNS:alice', which begins with {kinds}, or '*' for "
            "everybody",
            field=_field(where),
            where=f"{where}:",
        )
    if "*" in name[:-1] or (name.endswith("*") and not identity[:-1].endswith(_SEPARATORS)):
        # Else "DNS:alice*" would let "alice.elsewhere" in, and "URI:spiffe://lab*" a "spiffe://lab.elsewhere/".
        raise ConfigError(
            f"{identity!r} has a * that stands for anything; it may only be the end, after one of "
            f"{' '.join(_SEPARATORS)}, as in 'URI:spiffe://lab/*'",
            field=_field(where),
            where=f"{where}:",
        )


def _field(where: str) -> str | None:
    """The option at fault; None where it is a policy file."""
    return "allow" if where.startswith("ServerOptions.allow") else None


def _check_number(
    where: str, table: Mapping[str, Any], name: str, kind: type | tuple[type, ...], lowest: float
) -> None:
    value: Any = table.get(name, lowest)
    is_number: bool = isinstance(value, kind) and not isinstance(value, bool)
    if not (is_number and lowest <= value <= MOST):
        what = "an integer" if kind is int else "a number"
        raise ConfigError(f"{where}: {name} is {_shown(value)}; use {what} from {lowest} to {MOST:,}")


def _check_environments(where: str, names: Iterable[Any], offered: Collection[str]) -> None:
    for name in names:
        if not isinstance(name, str) or name not in offered:
            raise ConfigError(
                f"there is no environment {_shown(name)}; the server offers {', '.join(sorted(offered))}",
                field=_field(where),
                where=f"{where}:",
            )


def _check_keys(where: str, table_name: str, table: Mapping[str, Any], known: Collection[str]) -> None:
    for key in table:
        if key not in known:
            place = f"{where}: {table_name}" if table_name else where
            raise ConfigError(f"{place}: there is no key {key!r:.100}; use {', '.join(known)}")


def _shown(value: object) -> str:
    """The beginning of its `repr`, which a number of too many digits, or a table too deep, does not have."""
    try:
        return f"{value!r:.100}"
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too large to show"
