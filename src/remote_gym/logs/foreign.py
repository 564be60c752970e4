"""Keeps out of the log what gRPC says of each call that anybody can make."""

from __future__ import annotations

import logging

CYGRPC = logging.getLogger("grpc._cython.cygrpc")
"""Logger by which gRPC's Python layer writes."""


def drop_undecodable(record: logging.LogRecord) -> bool:
    """A filter for `CYGRPC`: what gRPC says, with a traceback, of each call whose metadata is no UTF-8 is not logged.

    Anybody can make such calls. What comes of them is logged like any other.
    """
    return not str(record.msg).startswith("Invalid encoding")
