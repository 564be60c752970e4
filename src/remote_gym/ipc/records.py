"""Records of one size on a Unix socket, each with the descriptors that come along: a stream that needs no framing."""

from __future__ import annotations

import os
import socket
import struct

_DESCRIPTOR = struct.Struct("i")


def receive_record(sock: socket.socket, form: struct.Struct, most: int) -> tuple[tuple[int, ...], list[int]] | None:
    """Receive one record.

    Args:
        sock: Blocking.
        form: The record's.
        most: Descriptors that a record may bring. Those beyond it are closed: whatever runs at the other end could
            have this one hold more than it may.

    Returns:
        The record's numbers, and the descriptors, which are the caller's to close; None where the other end is gone.

    Raises:
        OSError: If the socket fails.
    """
    data, descriptors = b"", list[int]()
    taken = False
    try:
        while len(data) < form.size:
            part, received = receive_descriptors(sock, form.size - len(data), most)
            descriptors += received
            if not part:
                return None
            data += part
        taken = True
        return form.unpack(data), descriptors[:most]
    finally:
        for descriptor in descriptors[most if taken else 0 :]:
            os.close(descriptor)


def receive_descriptors(sock: socket.socket, size: int, count: int) -> tuple[bytes, list[int]]:
    """Receive some bytes, at most `size`, and the descriptors that come along, which no program inherits.

    Received descriptors are inheritable by themselves. What an environment starts would hold on to its clients'
    connections, and keep their ends from being noticed.

    Raises:
        OSError: If the socket fails.
    """
    # At once where the system can, since another thread may be starting a program just now. `socket.recv_fds` takes
    # flags, and ignores them: https://github.com/python/cpython/issues/107898
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    data, messages, _, _ = sock.recvmsg(size, socket.CMSG_LEN(count * _DESCRIPTOR.size), flags)
    descriptors = [
        descriptor
        for level, kind, content in messages
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (descriptor,) in _DESCRIPTOR.iter_unpack(content[: len(content) - len(content) % _DESCRIPTOR.size])
    ]
    if not flags:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
    return data, descriptors
