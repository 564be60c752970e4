"""The loggers of this package: the only ones that it uses, so that nothing can be logged past them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from remote_gym.logs.escaping import PREFIX, Shown, indented
from remote_gym.logs.repeats import LINES, REPEATS

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:  # not generic before Python 3.11
    _Adapter = logging.LoggerAdapter

FIELDS = ("event", "session", "identity", "peer")
"""Fields of a record beside its message, for programs that read the log."""

DETAILS_LENGTH = 20_000
"""Characters of the details of one record, escaped, at most; the last ones, which say most in a traceback."""


class Logger(_Adapter):
    """Logs as `logging.Logger` does, with these differences.

    - Whatever is no number is escaped where it enters the message, so that a peer's text stays within its line. It may
      be of 2,000 characters.
    - ``details="..."`` adds lines below the message, each indented, such as a traceback; where lines are counted, below
      the first few of a kind.
    - ``repeats="SOURCE"`` counts lines: of those with the same template and source the first few are written in a
      minute, and then how many more there were. ``lines=`` says how few.
    - ``event=``, ``session=``, ``identity=`` and ``peer=`` are fields of a JSON log.
    """

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at any level, as all other methods do by this one."""
        if not self.isEnabledFor(level):
            return
        template, shown = str(msg), tuple(map(_shown, args))
        fields = {name: kwargs.pop(name) for name in FIELDS if name in kwargs}
        details, source, lines = kwargs.pop("details", ""), kwargs.pop("repeats", None), kwargs.pop("lines", LINES)
        extra = {**(kwargs.pop("extra", None) or {}), "fields": fields}
        number = 0
        if source is not None:
            number = REPEATS.admit(
                self.logger.name,
                template,
                str(source),
                lines,
                text=lambda: template % shown if shown else template,
                write=lambda summary: self.logger.log(level, "%s", summary, extra=extra),
            )
            if not number:
                return
        if details and number <= LINES:
            block = _block(str(details))
            template, shown = template.replace("%", "%%") if not shown else template, (*shown, block)
            template += "\n%s"
            extra["details"] = block
        # One level up is who called this, or, where that was `info` or `error`, who called those.
        self.logger.log(level, template, *shown, **{"stacklevel": 2, **kwargs, "extra": extra})


def get_logger(name: str) -> Logger:
    """The logger of a module, by its ``__name__``."""
    return Logger(logging.getLogger(name), {})


def _shown(value: object) -> object:
    return value if isinstance(value, (int, float)) else Shown(value)


def _block(text: str) -> str:
    """The end of a text, indented; cut before it is escaped, which takes time, and after, which makes it longer."""
    text = text.replace("\r\n", "\n").rstrip("\r\n")
    cut = len(text) - DETAILS_LENGTH
    block = indented(text if cut <= 0 else f"({cut:,} characters before)\n{text[cut:]}")
    if len(block) <= DETAILS_LENGTH + DETAILS_LENGTH // 10:  # what the lines' prefixes take
        return block
    return f"{PREFIX}(more before)\n{PREFIX}{block[-DETAILS_LENGTH:]}"
