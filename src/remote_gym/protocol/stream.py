"""The seam between a session and the connections that carry its messages."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Stream(ABC):
    """One way to carry a session's requests and their answers: send, and receive the answer, again and again.

    It is attached to its session when it exists. It is used for one request at a time, but any thread may close it.
    After any error, one that came from elsewhere included, it is out of step, and all that is left is to close it.

    Attributes:
        is_direct: Whether it leads to the worker itself, the faster way.
        is_settled: Whether its connection is known to stand; one that is not may still be connecting.
    """

    is_direct = False
    is_settled = True

    @abstractmethod
    def send(self, data: bytes, deadline: float) -> None:
        """Send one message.

        Args:
            data: The message.
            deadline: On `time.monotonic`, for the message to be taken.

        Raises:
            DeadlineExceeded: If the other end does not read it in time.
            ConnectionLost: If the connection ended.
        """

    @abstractmethod
    def receive(self, deadline: float) -> bytes | memoryview:
        """Wait for the message that answers the one sent.

        Args:
            deadline: On `time.monotonic`. It may be another than when the message was sent.

        Raises:
            DeadlineExceeded: If it did not come in time.
            ConnectionLost: If the connection ended.
            EncodingError: If it is over the limit.
        """

    @abstractmethod
    def shut_down(self) -> None:
        """End the connection as a network would: whoever uses it gets `ConnectionLost`. It still has to be closed."""

    @abstractmethod
    def close(self) -> None:
        """Detach; the session lives on for its lease. Waits for nothing. Who is receiving gets `ConnectionLost`."""

    def fileno(self) -> int | None:
        """Descriptor that becomes readable when an answer arrives; None where there is none."""
        return None


def within(seconds: float) -> str:
    """How long something was waited for, to go on in an error; nothing where that is too short to be worth a word."""
    return f" within {seconds:.3g} s" if seconds >= 0.1 else ""
