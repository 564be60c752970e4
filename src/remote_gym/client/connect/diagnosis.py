"""Find out, step by step, why a server cannot be reached.

gRPC reports a closed port, a wrong certificate authority and a missing client certificate alike, as UNAVAILABLE, so
the steps of a connection are taken here one by one, with the standard library.
"""

from __future__ import annotations

import contextlib
import enum
import os
import socket
import ssl
from dataclasses import dataclass, replace
from typing import NamedTuple

from remote_gym.address import is_unix, unix_path
from remote_gym.config import CERTS_VARIABLE, TlsFiles
from remote_gym.errors import ConfigError, ConnectReason
from remote_gym.tls import check_files, client_context

_SECOND_PORT = "the port may be the second one of a server on Windows or macOS, which takes direct connections only"

_TUNNEL = "if this is a tunnel, nothing listens at its far end"
_URLS_NAME = ", the url's since no server_name (--server-name) was given,"
_NAME_SERVER = "server_name, a name of the server's certificate, and see that the server runs with this hub"
_CLOSED = "the server closed the connection without an answer"
_FULL = "it may be full, or keep this address out for some seconds, as its log says"

_NO_TLS = "the server does not speak TLS"

# What an HTTP/2 client says first. A server that accepts it answers with its settings.
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_TLS_ALERT, _TLS_HANDSHAKE = 0x15, 0x16
_FRAME_HEADER_SIZE, _SETTINGS = 9, 4


class Cause(enum.Enum):
    """Kind of failure whose text can say more once one knows what the server shows to anybody."""

    OTHER = enum.auto()
    CLOSED = enum.auto()
    """The connection was closed without an answer."""
    NO_TLS = enum.auto()
    """The process that listens there does not speak TLS."""
    UNTRUSTED = enum.auto()
    """The server's certificate comes from an authority that this client does not trust."""
    OTHER_NAME = enum.auto()
    """The server's certificate is for other names."""
    NOT_ACCEPTED = enum.auto()
    """The server's certificate is not accepted for another reason, such as its age."""


@dataclass(frozen=True)
class Check:
    """One step of a connection.

    Attributes:
        step: What was tried, such as ``"TCP"``.
        works: Whether it did.
        found: What was found.
        mend: What would likely help; empty where it works.
        hopeless: Whether trying again, unchanged, cannot help.
        needed: Whether an environment can be used only if it works.
        details: What is too long for `found`, such as a remote traceback.
        reason: What a `ConnectError` is about if it does not work.
        cause: More about why it does not work.
    """

    step: str
    works: bool
    found: str
    mend: str = ""
    hopeless: bool = False
    needed: bool = True
    details: str = ""
    reason: ConnectReason = ConnectReason.UNKNOWN
    cause: Cause = Cause.OTHER


class Shown(NamedTuple):
    """Certificates and demands that a TLS server shows to anybody.

    Attributes:
        certificate: Its certificate, DER.
        requires_certificate: Whether it takes no client without one.
    """

    certificate: bytes
    requires_certificate: bool


def diagnose(
    url: str, port: int, files: TlsFiles | None, *, timeout: float, server_name: str | None = None
) -> list[Check]:
    """Take the steps of a connection until one fails.

    Args:
        url: Host name, address, or ``unix:path``.
        port: TCP port.
        files: None for plaintext.
        timeout: Seconds for each step that waits.
        server_name: As in `ClientOptions`.
    """
    checks: list[Check] = []
    sock = reach(url, port, timeout, checks)
    if sock is None:
        return checks
    with sock:
        checks.append(_check_plaintext(sock) if files is None else _check_tls(sock, url, files, server_name))
    if not checks[-1].works and checks[-1].hopeless:
        if checks[-1].cause is Cause.NO_TLS:
            checks[-1] = _see_plaintext(checks[-1], url, port, timeout)
        # Who is not let in looks once more at what the server shows to anybody, so as to name the right cause.
        checks[-1] = _explain(checks[-1], look(url, port, timeout, server_name), files)
    return checks


def _see_plaintext(check: Check, url: str, port: int, timeout: float) -> Check:
    """Look at what answers without TLS: to connect without certificates would be no help where that is no server."""
    sock = reach(url, port, timeout, [])
    if sock is None:
        return check
    with sock:
        plain = _check_plaintext(sock)
    if plain.reason is not ConnectReason.NO_SERVER:
        return check
    return replace(plain, step="TLS", found=f"{_NO_TLS}, and {plain.found}")


def look(url: str, port: int, timeout: float, server_name: str | None = None) -> Shown | None:
    """Look at what a server shows to anybody; None where it speaks no TLS, or is not reached."""
    sock = reach(url, port, timeout, [])
    if sock is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only looked at: nothing is sent, and nothing that is received is believed
    context.set_alpn_protocols(["h2"])
    with sock, contextlib.suppress(OSError), context.wrap_socket(sock, server_hostname=server_name) as secure:
        return Shown(secure.getpeercert(binary_form=True) or b"", _requires_certificate(secure))
    return None


def _requires_certificate(secure: ssl.SSLSocket) -> bool:
    """Whether it objects to a client that has shown none, which it does after the client's half of the handshake."""
    try:
        return not secure.recv(1)
    except TimeoutError:
        return False
    except OSError:
        return True


def reach(url: str, port: int, timeout: float, checks: list[Check]) -> socket.socket | None:
    """Open a socket to a server, noting each step in `checks`.

    Returns:
        Connected, with `timeout` set; None if a step failed.
    """
    return _check_unix(url, timeout, checks) if is_unix(url) else _check_tcp(url, port, timeout, checks)


def reason_of(checks: list[Check]) -> ConnectReason:
    """The failed step's; unknown if every step works."""
    return next((check.reason for check in checks if not check.works), ConnectReason.UNKNOWN)


def summarise(checks: list[Check]) -> str:
    """The failed step and its mend; or that every step works."""
    failed = next((check for check in checks if not check.works), None)
    if failed is None:
        return "each step by itself works, so the server may be starting, or too busy"
    text = f"{failed.step}: {failed.found}; {failed.mend}"
    if failed.step == "plaintext" and (folder := os.environ.get(CERTS_VARIABLE)):
        text += f". Python does not read {CERTS_VARIABLE}: use tls=TlsFiles.from_folder({folder!r}, 'client')"
    return text


def _check_unix(url: str, timeout: float, checks: list[Check]) -> socket.socket | None:
    path = unix_path(url)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(timeout)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        checks.append(_unreachable("Unix socket", f"{path}: {error}", "start the server, or correct the path"))
        return None
    checks.append(Check("Unix socket", True, f"connected to {path}"))
    return sock


def _check_tcp(url: str, port: int, timeout: float, checks: list[Check]) -> socket.socket | None:
    try:
        found = socket.getaddrinfo(url.strip("[]"), port, type=socket.SOCK_STREAM)
    except OSError as error:
        checks.append(_unreachable("name resolution", f"{url!r} has no address ({error})", "correct the url"))
        return None
    addresses = sorted({str(entry[4][0]) for entry in found})
    checks.append(Check("name resolution", True, f"{url} is {', '.join(addresses)}"))
    reason: OSError | None = None
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        sock.settimeout(timeout)
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            reason = error
        else:
            checks.append(Check("TCP", True, f"connected to {address[0]} port {port}"))
            return sock
    mend = "check url and port, that the server runs, and that no firewall is in between"
    if isinstance(reason, ConnectionRefusedError):
        mend = "nobody listens there: start the server, or correct the port"
    checks.append(_unreachable("TCP", f"{url} port {port}: {reason}", mend))
    return None


def _check_plaintext(sock: socket.socket) -> Check:
    """Whether the other end speaks HTTP/2 without TLS."""
    try:
        sock.sendall(_HTTP2_PREFACE)
        answer = _receive(sock, _FRAME_HEADER_SIZE)
    except TimeoutError:
        return _no_answer("plaintext")
    except ConnectionError:  # it has closed before it has read what was sent
        answer = b""
    except OSError as error:
        return _wants_tls(f"the server broke off ({error.strerror})")
    if len(answer) == _FRAME_HEADER_SIZE and answer[3] == _SETTINGS:
        return Check("plaintext", True, "the server speaks HTTP/2 without TLS")
    if answer and answer[0] not in (_TLS_ALERT, _TLS_HANDSHAKE):
        return _foreign("plaintext", f"what listens there does not speak HTTP/2; it answers {answer!r}")
    if not answer:
        return replace(_wants_tls(f"{_CLOSED}; {_SECOND_PORT}; or, {_TUNNEL}"), cause=Cause.CLOSED)
    return _wants_tls("the server does not accept plaintext")


def _receive(sock: socket.socket, size: int) -> bytes:
    """Up to `size` bytes; fewer where the other end closes before."""
    received = b""
    while len(received) < size and (more := sock.recv(size - len(received))):
        received += more
    return received


def _wants_tls(found: str) -> Check:
    mend = "it likely wants TLS: give certificates (tls)"
    return Check("plaintext", False, found, mend, hopeless=True, reason=ConnectReason.TLS)


def _unreachable(step: str, found: str, mend: str) -> Check:
    return Check(step, False, found, mend, reason=ConnectReason.UNREACHABLE)


def _no_answer(step: str) -> Check:
    mend = "check that a remote_gym server listens there, rather than something else, and that it is not stuck"
    return Check(step, False, "what listens there does not answer", mend, reason=ConnectReason.UNANSWERED)


def _closed(step: str) -> Check:
    mend = f"{_FULL}; else check the port: {_TUNNEL}; or {_SECOND_PORT}"
    return Check(step, False, _CLOSED, mend, reason=ConnectReason.UNANSWERED, cause=Cause.CLOSED)


def _foreign(step: str, found: str) -> Check:
    mend = "correct the port: this is no remote_gym server"
    return Check(step, False, found, mend, hopeless=True, reason=ConnectReason.NO_SERVER)


def _check_tls(sock: socket.socket, url: str, files: TlsFiles, server_name: str | None) -> Check:
    try:
        context = client_context(files)
    except ConfigError as error:
        # Not hopeless: they fitted when the connection was begun, so somebody may be replacing one after the other.
        return Check("TLS", False, str(error), "correct the file", reason=ConnectReason.TLS)
    context.set_alpn_protocols(["h2"])
    name = server_name or ("localhost" if is_unix(url) else url.strip("[]"))
    try:
        with context.wrap_socket(sock, server_hostname=name) as secure:
            return _check_accepted(secure, files)
    except ssl.SSLCertVerificationError as error:
        return _explain_server_certificate(error, server_name or url)
    except ssl.SSLError as error:
        return _explain_alert(error, name, is_chosen=server_name is not None)
    except TimeoutError:
        return _no_answer("TLS")
    except ConnectionError:
        return _closed("TLS")
    except OSError as error:
        found = f"the server broke off the handshake ({error})"
        return Check("TLS", False, found, f"{_FULL}; check that it serves TLS; {_TUNNEL}", reason=ConnectReason.TLS)


def _check_accepted(secure: ssl.SSLSocket, files: TlsFiles) -> Check:
    # In TLS 1.3 the client's end of the handshake is over before the server has looked at the client's certificate;
    # whether it accepts it shows with the first thing that it sends. gRPC's servers close without a word.
    try:
        secure.sendall(_HTTP2_PREFACE)
        answer = _receive(secure, _FRAME_HEADER_SIZE)
    except TimeoutError:
        return _no_answer("TLS")
    except ConnectionError:
        answer = b""
    if not answer and files.certificate is None:
        return _refused("the server closed the connection: it likely requires a client certificate, and none is given")
    if not answer:
        return _refused(f"the server closed the connection: it likely refuses {files.certificate}{_fault(files)}")
    if secure.selected_alpn_protocol() != "h2":
        return _foreign("TLS", "what listens there speaks TLS, but not HTTP/2")
    return Check("TLS", True, f"{secure.version()}, both ends accept each other")


def _fault(files: TlsFiles) -> str:
    try:
        check_files(files, "client")
    except ConfigError as error:
        return f": {error}"
    return ""


def _refused(found: str) -> Check:
    mend = (
        "give ca, certificate and private key (tls), the certificate from the authority that the server "
        "trusts, made for client authentication and not expired"
    )
    return Check("TLS", False, found, mend, hopeless=True, reason=ConnectReason.TLS)


def _explain(check: Check, shown: Shown | None, files: TlsFiles | None) -> Check:
    """The same failure, with the cause that shows once one knows what the server shows to anybody."""
    if shown is None:
        # What closes connections with TLS as well as without may be a server that takes none just now.
        return _closed(check.step) if check.cause is Cause.CLOSED else check
    if check.step == "plaintext":
        found = "the server does not accept plaintext: it speaks TLS"
        if shown.requires_certificate:
            mend = "it wants a client certificate, too: give ca, certificate and private key (tls)"
        else:
            mend = "give the authority that its certificate comes from (tls=TlsFiles(ca=...))"
        return replace(check, found=found, mend=mend)
    # Here, since without TLS there is no need to load cryptography.
    from remote_gym.client.connect.authorities import two_authorities, whose

    try:
        if check.cause is Cause.UNTRUSTED:
            return replace(check, found=f"{check.found}; {two_authorities(shown.certificate, files)}")
        if check.cause is Cause.OTHER_NAME:
            from remote_gym.tls.facts import decode_certificate

            hosts = ", ".join(map(repr, decode_certificate(shown.certificate).hosts)) or "no name"
            return replace(check, found=f"{check.found}; it is good for: {hosts}")
        if check.cause is Cause.NOT_ACCEPTED:
            return check  # it is not about this client's
        if files is not None and files.certificate is not None and shown.requires_certificate:
            return replace(check, found=f"{check.found}{whose(files)}")
    except ConfigError:  # one of the certificates cannot be read, and so adds nothing
        pass
    return check


def _explain_server_certificate(error: ssl.SSLCertVerificationError, url: str) -> Check:
    reason = error.verify_message.rstrip(".")
    cause = Cause.NOT_ACCEPTED
    if "expired" in reason:
        mend = "make the server a new certificate; 'remote-gym certs server' does"
    elif "not yet valid" in reason:
        mend = "check both machines' clocks"
    elif "ostname" in reason or "IP address" in reason:
        mend = f"connect by a name that the certificate holds, or make one with {url!r} among its hosts"
        cause = Cause.OTHER_NAME
    else:
        mend = "give the certificate authority that the server's comes from (tls=TlsFiles(ca=...))"
        cause = Cause.UNTRUSTED
    found = f"the server's certificate is not accepted: {reason}"
    return Check("TLS", False, found, mend, hopeless=True, reason=ConnectReason.TLS, cause=cause)


def _explain_alert(error: ssl.SSLError, name: str, *, is_chosen: bool) -> Check:
    reason = (error.reason or str(error)).lower().replace("_", " ")
    if "wrong version" in reason or "packet length" in reason or "record layer" in reason:
        mend = "connect without certificates, or have the server serve TLS; check the port too"
        return Check("TLS", False, _NO_TLS, mend, hopeless=True, reason=ConnectReason.TLS, cause=Cause.NO_TLS)
    if "unrecognized name" in reason:
        # Not hopeless: the server may be on its way back to the hub.
        found = f"this is a hub, and no server of the name {name!r}{'' if is_chosen else _URLS_NAME} is there now"
        mend = f"{'check' if is_chosen else 'give'} {_NAME_SERVER}"
        return Check("TLS", False, found, mend, reason=ConnectReason.UNREACHABLE)
    if "eof" in reason:
        return _closed("TLS")
    if "certificate required" in reason:
        return _refused("the server requires a client certificate, and none is given")
    if "expired" in reason:
        return _refused("the server refuses the client's certificate: it has expired, or is not yet valid")
    if "unknown ca" in reason or "certificate" in reason or "decrypt" in reason:
        return _refused(f"the server refuses the client's certificate: {reason}")
    found, mend = f"the handshake failed: {reason}", "check what the server's log says"
    return Check("TLS", False, found, mend, hopeless=True, reason=ConnectReason.TLS)
