"""A JSON object from a file, read field by field, with errors that say where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from remote_gym.errors import ConfigError
from remote_gym.logs import get_logger

log = get_logger(__name__)


class JsonObject:
    """A JSON object whose fields are found without regard to case, the last of several winning, as in Go.

    An absent field and a null both read as the type's empty value.

    Args:
        content: What the JSON parser returned.
        prefix: What error messages say before a field's name, such as ``"ca-csr.json: key."``.

    Raises:
        ConfigError: If ``content`` is not an object; by every method, if the field is of another type.
    """

    def __init__(self, content: object, prefix: str) -> None:
        self._prefix = prefix
        if not isinstance(content, dict):
            raise ConfigError(f"{prefix.rstrip(' .:')} is {content!r:.60}; use an object, {{...}}")
        self._fields: dict[str, Any] = {key.lower(): value for key, value in content.items()}
        self._names: list[str] = list(content)

    @classmethod
    def read(cls, path: Path) -> JsonObject:
        """Read the object that a file holds.

        Raises:
            ConfigError: If the file cannot be read, or holds something else.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path} is not JSON: {error}") from error
        return cls(content, f"{path}: ")

    def error(self, field: str, problem: object) -> ConfigError:
        """Return, for the caller to raise, an error that says where the problem is."""
        return ConfigError(f"{self._prefix}{field} {problem}")

    def text(self, field: str) -> str:
        """Return a text, ``""`` where there is none."""
        return self._get(field, str, "a text") or ""

    def integer(self, field: str) -> int:
        """Return a whole number, 0 where there is none."""
        return self._get(field, int, "a whole number") or 0

    def flag(self, field: str) -> bool:
        """Return true or false, False where there is none."""
        return self._get(field, bool, "true or false") or False

    def texts(self, field: str) -> tuple[str, ...]:
        """Return a list of texts."""
        values = self._list(field)
        for index, value in enumerate(values):
            if not isinstance(value, str):
                raise self.error(f"{field}[{index}]", f"is {value!r:.60}; use a text")
        return tuple(values)

    def object(self, field: str) -> JsonObject:
        """Return an object, an empty one where there is none."""
        return JsonObject(self._get(field, dict, "an object, {...}") or {}, f"{self._prefix}{field}.")

    def objects(self, field: str) -> tuple[JsonObject, ...]:
        """Return a list of objects."""
        values = self._list(field)
        return tuple(JsonObject(value, f"{self._prefix}{field}[{index}].") for index, value in enumerate(values))

    def members(self, field: str) -> dict[str, JsonObject]:
        """Return the objects inside an object, under their exact names."""
        values = self._get(field, dict, "an object, {...}") or {}
        return {name: JsonObject(value, f"{self._prefix}{field}.{name}.") for name, value in values.items()}

    def present(self, field: str) -> bool:
        """Tell whether the field is there and not null."""
        return self._fields.get(field.lower()) is not None

    def refuse(self, *fields: str) -> None:
        """Raise for those of the fields that ask for something: that are not null, false, zero or empty."""
        for field in fields:
            if self._fields.get(field.lower()):
                raise self.error(field, "is not supported; leave it out, or use cfssl itself")

    def others(self, *known: str) -> list[str]:
        """Return the names of the fields beside the known ones, as the file spells them."""
        folded = {field.lower() for field in known}
        return [name for name in self._names if name.lower() not in folded]

    def ignore(self, *fields: str) -> None:
        """Log that these fields have no effect."""
        for field in fields:
            log.warning("%s%s means nothing here and has no effect", self._prefix, field)

    def _get(self, field: str, kind: type, wanted: str) -> Any:
        value = self._fields.get(field.lower())
        # Exact types: a bool is an int to Python, but not to JSON.
        if value is not None and type(value) is not kind:
            raise self.error(field, f"is {value!r:.60}; use {wanted}")
        return value

    def _list(self, field: str) -> list[Any]:
        values: list[Any] = self._get(field, list, "a list, [...]") or []
        return values
