"""One `Interact` call: the session's requests and their answers over gRPC."""

from __future__ import annotations

import math
import queue
import threading
import time
import weakref
from typing import Any

import grpc

from remote_gym.client.connect.rpc_errors import from_rpc_error
from remote_gym.errors import ConnectionLost, DeadlineExceeded
from remote_gym.protocol.stream import Stream, within
from remote_gym.wire.parts import cut


class GrpcStream(Stream):
    """One `Interact` call: send, and receive the answer, again and again.

    Args:
        call: gRPC's.
        requests: What the call sends.
        address: The server's, for errors.
        message_bytes: Size of the largest message that the server takes; larger requests go in parts. 0 for any size.
    """

    def __init__(
        self, call: Any, requests: queue.SimpleQueue[bytes | None], address: str, message_bytes: int = 0
    ) -> None:
        self._call = call
        self._requests = requests
        self._address = address
        self._message_bytes = message_bytes
        self._watchdog = _Watchdog(call, requests)
        self._sent = time.monotonic()
        self.closed = False
        self.is_settled = False  # until the first answer: gRPC connects in its own time, and does not say when it has

    def send(self, data: bytes, deadline: float) -> None:
        """Send one message.

        Args:
            data: The message.
            deadline: Without meaning: it goes into a queue.
        """
        self._sent = time.monotonic()
        if len(data) <= self._message_bytes:
            self._requests.put(data)
            return
        for message in cut(data, self._message_bytes):
            self._requests.put(message)

    def receive(self, deadline: float) -> bytes:
        """Wait for the message that answers the one sent. After an error the interaction is of no more use.

        Args:
            deadline: On `time.monotonic`.

        Raises:
            DeadlineExceeded: If it did not come in time.
            ConnectionLost: If the call ended.
            EncodingError: If the answer is over the limit.
        """
        try:
            self._watchdog.watch(deadline)
            answer: bytes = next(self._call)
        except StopIteration:
            raise ConnectionLost(f"{self._address} ended the call") from None
        except grpc.RpcError as error:
            if self._watchdog.expired:
                waited = deadline - self._sent
                raise DeadlineExceeded(f"no answer from {self._address}{within(waited)}") from error
            raise from_rpc_error(error, f"the connection to {self._address}") from error
        finally:
            self._watchdog.rest()
        self.is_settled = True
        return answer

    def shut_down(self) -> None:
        """Cancel the call."""
        self._call.cancel()

    def close(self) -> None:
        """Detach. The session lives on for its lease. Returns at once: the call is cancelled by a thread of its own."""
        self.closed = True
        self._watchdog.stop()
        self._requests.put(None)


class _Watchdog:
    """Cancels a call whose deadline has passed: a stream has no deadlines for its single messages.

    A thread of its own looks every `INTERVAL` seconds. That costs a step no more than setting an attribute, where a
    timer, or a queue to wait on, would cost it a hand-over between threads.

    It is also who cancels a call that is to end. After Ctrl-C in the middle of gRPC's code that may take for ever, as
    a lock of the call's may still be held; and so may its ``__del__``, from which the thread's reference keeps it.
    """

    INTERVAL = 0.25

    def __init__(self, call: Any, requests: queue.SimpleQueue[bytes | None]) -> None:
        self.expired = False
        self._deadline = math.inf
        self._call = call
        # Held to change the deadline and to judge it, or it could strike a request that has just been answered.
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._to_cancel: list[Any] = []
        # Weakly, so that an environment that is dropped without being closed can be collected, and its call with it.
        arguments = (weakref.ref(self), self._stopped, requests, self._to_cancel)
        threading.Thread(target=_look_after, args=arguments, name="remote_gym-deadlines", daemon=True).start()

    def watch(self, deadline: float) -> None:
        with self._lock:
            self._deadline = deadline
            self.expired = False

    def rest(self) -> None:
        with self._lock:
            self._deadline = math.inf

    def stop(self) -> None:
        self._to_cancel.append(self._call)
        self._stopped.set()

    def look(self) -> None:
        with self._lock:
            if time.monotonic() > self._deadline:
                self.expired = True
                self.stop()


def _look_after(
    reference: weakref.ref[_Watchdog],
    stopped: threading.Event,
    requests: queue.SimpleQueue[bytes | None],
    to_cancel: list[Any],
) -> None:
    while not stopped.wait(_Watchdog.INTERVAL):
        watchdog = reference()
        if watchdog is None:
            break
        watchdog.look()
        del watchdog
    requests.put(None)  # gRPC's thread that reads them ends with it
    for call in to_cancel:
        call.cancel()
