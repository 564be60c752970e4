"""Bodies of several parts, as VAGEN's clients send and read them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from remote_gym.server.frontends.http.reading import Refused

MOST_PARTS = 64

_BOUNDARY = re.compile(r"""boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))""", re.IGNORECASE)

Part = tuple[dict[str, str], bytes]
"""Headers, their names in lower case, and content."""


def boundary_of(content_type: str) -> str:
    """The boundary that a header ``Content-Type`` names.

    Raises:
        Refused: If it is no multipart/form-data, or names none.
    """
    kind = content_type.partition(";")[0].strip().lower()
    found = _BOUNDARY.search(content_type)
    if kind != "multipart/form-data" or found is None:
        raise Refused(415, f"the body's Content-Type is {content_type[:200]!r}; send multipart/form-data; boundary=...")
    return found[1] or found[2]


def read_parts(body: bytes, boundary: str) -> list[Part]:
    """Take a body apart.

    Raises:
        Refused: If it is not what its boundary says.
    """
    first, *pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1"))
    if first.strip() or not pieces or not pieces[-1].startswith(b"--"):
        raise Refused(400, "the body does not begin and end with its boundary")
    if len(pieces) - 1 > MOST_PARTS:
        raise Refused(400, f"the body has over {MOST_PARTS} parts")
    parts = []
    for piece in pieces[:-1]:
        head, separator, content = piece.lstrip(b" \t").partition(b"\r\n\r\n")
        if not separator:
            raise Refused(400, "a part of the body has no end of its headers")
        lines = (line.partition(":") for line in head.decode("latin-1").split("\r\n") if line)
        parts.append(({name.strip().lower(): value.strip() for name, _, value in lines}, content))
    return parts


def write_parts(parts: Sequence[tuple[str, bytes]], boundary: str) -> bytes:
    """Put a body together.

    Args:
        parts: The type and the content of each, in order.
        boundary: In none of them.
    """
    pieces = []
    for kind, content in parts:
        pieces += [f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode(), content, b"\r\n"]
    return b"".join([*pieces, f"--{boundary}--\r\n".encode()])
