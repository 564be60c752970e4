"""How a server's log is written: one record a line for people, or one JSON object a line for programs."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone

from remote_gym.logs.escaping import PREFIX, printable

LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class TextFormatter(logging.Formatter):
    """Writes a record as one line; what follows, such as a traceback, is indented.

    It escapes once more, whatever logger a record comes from: other packages log what peers say, too.
    """

    def __init__(self) -> None:
        super().__init__(LINE)

    def format(self, record: logging.LogRecord) -> str:
        """The record, each of its lines printable."""
        first, *further = super().format(record).split("\n")
        lines = (line if line.startswith(PREFIX) else PREFIX + line for line in further)
        return "\n".join(map(printable, (first, *lines)))


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object on a line of ASCII.

    ``time`` (ISO 8601, UTC), ``level``, ``logger`` and ``message`` are always there; ``event``, ``session``,
    ``identity``, ``peer``, ``details`` and ``exception`` where they are known.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        details = getattr(record, "details", "")
        message = record.getMessage().removesuffix(f"\n{details}") if details else record.getMessage()
        found: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": message,
            **getattr(record, "fields", {}),
        }
        if details:
            found["details"] = "\n".join(line.removeprefix(PREFIX) for line in details.split("\n"))
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        # Of ASCII, DEL is the one control character that JSON need not escape.
        return json.dumps(found, default=str).replace("\x7f", "\\u007f")
