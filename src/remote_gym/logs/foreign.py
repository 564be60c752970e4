"""Log lines of other packages: which are kept out, and by what loggers the others come."""

from __future__ import annotations

import logging

CYGRPC = logging.getLogger("grpc._cython.cygrpc")
"""Logger by which gRPC's Python layer writes."""


def drop_undecodable(record: logging.LogRecord) -> bool:
    """A filter for `CYGRPC`: what gRPC says, with a traceback, of each call whose metadata is no UTF-8 is not logged.

    Anybody can make such calls. What comes of them is logged like any other.
    """
    return not str(record.msg).startswith("Invalid encoding")


def logger_for(name: str, level: int) -> logging.Logger:
    """Make a logger of the standard library's, for another package to log by.

    Args:
        name: Its name, below a module's of ours, whose formatters escape what it says.
        level: Of the least lines that are of use.
    """
    logger = logging.getLogger(name)
    logger.setLevel(level)
    return logger
