"""Requests read with bounds, and answers and errors written as JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from gymnasium.error import ResetNeeded
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from remote_gym.errors import (
    ConfigError,
    DeadlineExceeded,
    DenialReason,
    EncodingError,
    InvalidAction,
    NotPermitted,
    RemoteEnvironmentError,
    RemoteGymError,
    ServerFull,
    SessionLost,
)
from remote_gym.logs import get_logger

logger = get_logger(__name__)

BODY_BYTES = 4 * 2**20
"""Bytes of a request's body, or of a WebSocket's message: as of gRPC's messages. JSON of that size is read in 0.1 s."""

BODY_TIMEOUT = 30.0
"""Seconds that a body has to arrive."""

JSON_TYPE = "application/json"


class Refused(Exception):
    """A request that is answered by an error of HTTP.

    Args:
        status: HTTP's.
        text: Why, and what would be right.
        headers: Of the answer.
    """

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = dict(headers or {})


async def read_body(request: Request, content_type: str = JSON_TYPE) -> bytes:
    """Read a body.

    Args:
        request: Whose it is.
        content_type: It has to be of that: a form, which any page of any site can send, is not.

    Raises:
        Refused: If it is of another type, too large, or does not arrive.
    """
    found = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if found != content_type:
        raise Refused(415, f"the body's Content-Type is {found!r}; send {content_type}")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > BODY_BYTES:
        raise _too_large()
    parts = bytearray()
    try:
        async with _Deadline(BODY_TIMEOUT):
            async for part in request.stream():
                parts += part
                if len(parts) > BODY_BYTES:
                    raise _too_large()
    except asyncio.TimeoutError:
        raise Refused(408, f"the body did not arrive within {BODY_TIMEOUT:g} s", {"Connection": "close"}) from None
    except ClientDisconnect:
        raise Refused(400, "the client left before its request was whole") from None
    return bytes(parts)


def parse_object(data: bytes | str) -> dict[str, Any]:
    """Read a JSON object; nothing at all is an empty one.

    Raises:
        Refused: If it is none.
    """
    if not data:
        return {}
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise Refused(400, f"the body is a {type(found).__name__}; send a JSON object")
    return found


def answer(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that is JSON already."""
    return Response(body, status, dict(headers or {}), JSON_TYPE)


def status_of(error: Exception) -> int:
    """The status of HTTP that says most of an error."""
    if isinstance(error, Refused):
        return error.status
    if isinstance(error, NotPermitted):
        return 401 if error.reason is DenialReason.IDENTITY else 403
    for kinds, status in _STATUSES.items():
        if isinstance(error, kinds):
            return status
    return 500


def text_of(error: Exception) -> str:
    """An error as a client may read it: of the environment's own ones their kind and message, and no traceback."""
    if isinstance(error, RemoteEnvironmentError):
        return f"the environment raised {error.remote_type}: {error.remote_message}"
    if isinstance(error, (RemoteGymError, Refused, ResetNeeded, AttributeError)):
        return str(error)
    logger.error("could not answer a request", exc_info=error, repeats="")
    return "the server has a fault, which its log tells"


def error_answer(error: Exception, key: str = "detail") -> Response:
    """An answer that says what is wrong.

    Args:
        error: That.
        key: Of the text in the answer's object.
    """
    status = status_of(error)
    headers = dict(error.headers) if isinstance(error, Refused) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        headers["Retry-After"] = "1"
    return answer(json.dumps({key: text_of(error)}).encode(), status, headers)


def _too_large() -> Refused:
    return Refused(413, f"the body has over {BODY_BYTES:,} bytes", {"Connection": "close"})


_STATUSES: dict[tuple[type[Exception], ...], int] = {
    (InvalidAction, EncodingError, ConfigError): 400,
    (SessionLost,): 404,
    (ResetNeeded,): 409,
    (ServerFull,): 503,
    (DeadlineExceeded,): 504,
}


class _Deadline:
    """``asyncio.timeout``, which Python has from 3.11."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._is_over = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None

        def end() -> None:
            self._is_over = True
            task.cancel()

        self._timer = asyncio.get_running_loop().call_later(self._seconds, end)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._timer.cancel()
        if self._is_over and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise asyncio.TimeoutError from error
