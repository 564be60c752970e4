"""Names in the other end's certificate, read from its DER: the same for gRPC and for direct connections.

Neither gRPC's properties nor `ssl.SSLSocket.getpeercert` will do: the first end a name at its NUL, the second raises of
one that is no UTF-8. The package cryptography would, but it takes 11 MiB and 0.1 s of every worker. TLS has verified
the certificate, so that its form is known, and only the few parts that matter are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

from remote_gym.errors import DenialReason, NotPermitted

COMMON_NAME = "CN"

_SEQUENCE, _SET, _OID, _OCTETS = 0x30, 0x31, 0x06, 0x04
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_UTC_TIME, _GENERAL_TIME = 0x17, 0x18
_ALTERNATIVE_NAMES = bytes.fromhex("551d11")
_COMMON_NAME = bytes.fromhex("550403")
_KINDS = {0x81: "email", 0x82: "DNS", 0x86: "URI"}
_WIDE = {0x1C: "utf-32-be", 0x1E: "utf-16-be"}  # UniversalString, BMPString

_Element = tuple[int, bytes]
"""A tag, and what it holds."""


class _DamagedError(Exception):
    """It is no DER, or no certificate."""


@dataclass(frozen=True)
class PeerCertificate:
    """The parts of a certificate that decide who its holder is, and for how long.

    Attributes:
        names: Each after its kind, ``"URI"``, ``"DNS"``, ``"email"`` or ``"CN"``, in the order of the certificate. A
            byte that is no ASCII is a character that is none: no two different names read alike.
        not_before: When it begins to be valid, in seconds since the epoch.
        not_after: When it expires, likewise.
    """

    names: tuple[tuple[str, str], ...]
    not_before: float
    not_after: float


def read_peer_certificate(der: bytes) -> PeerCertificate:
    """Read a certificate that TLS has verified.

    Raises:
        NotPermitted: If it cannot be read.
    """
    try:
        ((_, certificate),) = _elements(der, _SEQUENCE)
        fields = _elements(_elements(certificate)[0][1])
        if fields[0][0] == _VERSION:
            fields = fields[1:]
        _serial, _algorithm, _issuer, (_, validity), (_, subject), _key, *rest = fields
        extensions = next((content for tag, content in rest if tag == _EXTENSIONS), None)
        names = () if extensions is None else tuple(_alternative_names(extensions))
        not_before, not_after = map(_moment, _elements(validity))
        return PeerCertificate((*names, *_common_names(subject)), not_before, not_after)
    except (_DamagedError, IndexError, ValueError) as error:
        raise NotPermitted(f"the client's certificate cannot be read: {error}", reason=DenialReason.IDENTITY) from error


def _alternative_names(extensions: bytes) -> Iterator[tuple[str, str]]:
    ((_, listed),) = _elements(extensions, _SEQUENCE)
    for _, extension in _elements(listed, _SEQUENCE):
        (_, kind), *_, (tag, value) = _elements(extension)
        if kind == _ALTERNATIVE_NAMES and tag == _OCTETS:
            ((_, names),) = _elements(value, _SEQUENCE)
            for tag, name in _elements(names):
                if tag in _KINDS:
                    yield _KINDS[tag], name.decode("latin-1")


def _common_names(subject: bytes) -> Iterator[tuple[str, str]]:
    for _, attributes in _elements(subject, _SET):
        for _, attribute in _elements(attributes, _SEQUENCE):
            (_, kind), (tag, value) = _elements(attribute)
            if kind == _COMMON_NAME:
                yield COMMON_NAME, value.decode(_WIDE.get(tag, "latin-1"), "replace")


def _moment(element: _Element) -> float:
    tag, content = element
    text = content.decode("ascii")
    if tag == _UTC_TIME:  # of two digits of the year, as RFC 5280 has it
        text = f"{19 if text >= '50' else 20}{text}"
    elif tag != _GENERAL_TIME:
        raise _DamagedError(f"a time has the tag {tag:#x}")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()


def _elements(data: bytes, wanted: int | None = None) -> list[_Element]:
    """Elements that stand side by side, all of the tag that is wanted."""
    found = []
    position = 0
    while position < len(data):
        tag, length = data[position], data[position + 1]
        position += 2
        if tag & 0x1F == 0x1F:
            raise _DamagedError(f"there is a tag of more than one byte, {tag:#x}")
        if length >= 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[position : position + size], "big")
            position += size
            if not 0 < size <= 4:
                raise _DamagedError("a length takes more than four bytes, or none")
        if position + length > len(data):
            raise _DamagedError("it ends early")
        if wanted is not None and tag != wanted:
            raise _DamagedError(f"the tag {tag:#x} is where {wanted:#x} has to be")
        found.append((tag, data[position : position + length]))
        position += length
    return found
