"""Names of options and arguments: an unknown one is refused with the nearest."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from remote_gym.config.arguments import GUESSES
from remote_gym.errors import ConfigError

T = TypeVar("T")
Class = TypeVar("Class", bound=type)


def nearest(name: str, known: Collection[str], names: Mapping[str, str] | None = None) -> str:
    """A remark on what an unknown name could have meant, to end an error's text with.

    Args:
        name: The unknown one.
        known: All that there are.
        names: How to write each of `known`; as it is, unless given.
    """

    def shown(name: str) -> str:
        return (names or {}).get(name, name)

    import difflib  # where something is wrong only

    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    close = close or [other for other in sorted(known) if len(name) > 2 and (name in other or other in name)][:3]
    if close:
        return f"did you mean {' or '.join(map(shown, close))}?"
    return f"use {', '.join(map(shown, sorted(known)))}"


def check_names(what: str, given: Collection[str], known: Collection[str], field: str | None = None) -> None:
    """Refuse names that do not exist.

    Args:
        what: Whose names they are, such as ``"ServerOptions"``.
        given: The names.
        known: All that there are.
        field: The argument that holds them; None where the names are arguments themselves.

    Raises:
        ConfigError: Naming the first of them, and those that come nearest.
    """
    for name in given:
        if name not in known:
            raise ConfigError(f"has no {name!r}; {nearest(str(name), known)}", field=field or str(name), where=what)


def names_checked(cls: Class) -> Class:
    """Class decorator: a dataclass that refuses unknown names by `ConfigError`, where Python has a ``TypeError``."""
    known = [field.name for field in dataclasses.fields(cls)]
    initialise: Callable[..., None] = cls.__init__  # type: ignore[misc]

    @functools.wraps(initialise)
    def check_and_initialise(self: Any, *args: Any, **fields: Any) -> None:
        check_names(cls.__name__, fields, known)
        initialise(self, *args, **fields)

    cls.__init__ = check_and_initialise  # type: ignore[misc]
    return cls


def merge_options(
    cls: type[T],
    given: T | None,
    keywords: Mapping[str, Any],
    *,
    of: Callable[..., Any],
    beside: Iterable[str] = (),
) -> T:
    """Options as a function takes them: all at once as ``options=``, one by one as keyword arguments, or both.

    Args:
        cls: `ServerOptions` or `ClientOptions`.
        given: What ``options=`` was; None without.
        keywords: Single ones, which win.
        of: The function, or the class, whose own arguments a misspelt one may have meant as well.
        beside: Further keyword arguments that it takes, and that its signature does not name.

    Raises:
        ConfigError: If `given` is something else, or an option does not exist or cannot work.
    """
    if given is not None and not isinstance(given, cls):
        # An object of options is long.
        found = f"of type {type(given).__name__}" if dataclasses.is_dataclass(given) else f"{given!r:.200}"
        raise ConfigError(f"is {found}; use {cls.__name__}(...)", field="options", where="options")
    options = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in keywords.keys() - options:
        if name in GUESSES[cls.__name__]:
            right = GUESSES[cls.__name__][name]
            raise ConfigError(f"has no {name!r}; use {right}", field=name, where=of.__name__)
        check_names(of.__name__, [name], [*inspect.signature(of).parameters, *beside])
    if given is None:
        return cls(**keywords)
    return dataclasses.replace(given, **keywords) if keywords else given  # type: ignore[type-var]


def differing_options(options: Any) -> dict[str, Any]:
    """Options that are not a default, as keyword arguments; none for None."""
    if options is None:
        return {}
    defaults = type(options)()
    named = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    return {name: value for name, value in named.items() if value != getattr(defaults, name)}


def check_fields(check: Callable[..., None], options: object, *names: str, **expected: Any) -> None:
    """Check fields of options, by one of the functions of `remote_gym.validation`.

    Raises:
        ConfigError: Naming the field.
    """
    for name in names:
        check(f"{type(options).__name__}.{name}", getattr(options, name), **expected)
