"""Name the authorities that two ends' certificates come from, where they do not accept each other."""

from __future__ import annotations

from remote_gym.config import TlsFiles
from remote_gym.tls.facts import decode_certificate, read_certificate


def two_authorities(certificate: bytes, files: TlsFiles | None) -> str:
    """Which authority the server's certificate comes from, and which one this client trusts."""
    theirs = decode_certificate(certificate)
    if files is None or files.ca is None:
        return f"it comes from {theirs.issuer}, and this client trusts the system's authorities only"
    ours = read_certificate(files.ca)
    return (
        f"it comes from {_named(theirs.issuer, theirs.issuer_key)}, and this client trusts "
        f"{_named(ours.subject, ours.key)}, in {files.ca}"
    )


def whose(files: TlsFiles) -> str:
    """Which authority the client's certificate comes from, if it is not the one that the server's comes from."""
    assert files.certificate is not None
    ours = read_certificate(files.certificate)
    text = f"; the client's certificate comes from {_named(ours.issuer, ours.issuer_key)}"
    if files.ca is None:
        return text
    theirs = read_certificate(files.ca)  # the server's comes from there, or the client would have refused it first
    if theirs.key and ours.issuer_key and theirs.key != ours.issuer_key:
        return f"{text}, and the server's from another, {_named(theirs.subject, theirs.key)}"
    return text


def _named(name: str, key: str) -> str:
    """An authority, by its key as well: those that were made alike are called alike."""
    # By its `repr`: the other end chose it.
    return f"{name!r} (key {key[:8]})" if key else repr(name)
