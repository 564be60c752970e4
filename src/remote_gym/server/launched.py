"""The process of `remote_gym.launch`: a server that belongs to the program that started it.

It is given a private folder, with a file that says what to serve, and a descriptor for its answer, a line of JSON with
"url" and "port" or with an "error". It ends when its standard input does, at whatever it is then; that of a program on
another machine, once it serves, when nobody has held it for a lease.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from remote_gym.errors import ConfigError
from remote_gym.ipc.running import recorded
from remote_gym.launched.answer import answer, refusal, take_order
from remote_gym.launched.order import HOLD, LOG, SOCKET, read_order
from remote_gym.logs import TextFormatter, get_logger
from remote_gym.transport.readable import readable

logger = get_logger(__name__)

LOG_BYTES = 16 * 2**20
"""Size from which on the log loses its beginning: environments may print for days, and the folder may be in memory."""

LOG_BYTES_KEPT = 2**20

LOG_INTERVAL = 5.0
"""Seconds between two looks at that."""


def main() -> None:
    """Serve until standard input ends, or, with a lease, nobody has held this server for so long."""
    folder, answers, *lease = Path(sys.argv[1]), int(sys.argv[2]), *map(float, sys.argv[3:])
    sys.argv = [""]
    signal.signal(signal.SIGTERM, _end)
    os.set_inheritable(answers, False)
    owner = _Holders(folder, *lease) if lease else _Owner(folder)
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    order = take_order(folder)
    _load_grpc()
    from remote_gym.server.create import create_remote_environment_server
    from remote_gym.server.offer import check_offer, names_offered

    try:
        environment, options = read_order(order, folder)
        check_offer(environment, imports=options.imports, own_interpreter=options.interpreter is None)
        if options.check:
            logger.info("creating the environment once, to see that it can be")
        server = create_remote_environment_server(environment, f"unix:{folder / SOCKET}", options=options)
    except ConfigError as error:
        answer(answers, refusal(error))
        sys.exit(1)
    served = environment.get("entrypoint") or environment["entrypoint_kwargs"].get("id")
    try:
        with server, recorded("launch", server.address, names_offered(served, server.options)):
            owner.has_something_to_close.set()
            answer(answers, {"url": server.url, "port": server.port})
            owner.is_gone.wait()
    finally:
        if owner.is_gone.is_set():  # else the program may yet look at the log, and removes it
            shutil.rmtree(folder, ignore_errors=True)


def _end(*_: object) -> None:
    """End in order, as ``remote-gym servers stop`` asks; again it hurries."""
    raise SystemExit(0)


class _Owner:
    """The program that this process belongs to, whose end is that of standard input.

    Attributes:
        has_something_to_close: Set once there is a server. Before, this process just ends: what it has started, such
            as a trial of an environment, ends with it.
        is_gone: Set when the program is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.has_something_to_close = threading.Event()
        self.is_gone = threading.Event()
        threading.Thread(target=self._watch_and_end, name="remote_gym-owner", daemon=True).start()

    def _watch_and_end(self) -> None:
        try:
            self._watch()
        except Exception:
            # Nothing else ends this process: without this thread it would outlive the program.
            logger.exception("this server cannot see any more whether its program is there, and ends")
        finally:
            self._end()

    def _watch(self) -> None:
        """Return once the program is gone."""
        while not readable([0], LOG_INTERVAL) or os.read(0, 1024):  # where nothing comes
            shorten(self._folder / LOG)

    def _end(self) -> None:
        self.is_gone.set()
        if not self.has_something_to_close.is_set():
            shutil.rmtree(self._folder, ignore_errors=True)
            os._exit(1)


class _Holders(_Owner):
    """Connections to a socket in the folder, which a program on another machine makes anew when they break.

    Until it serves, this process belongs to the one that started it.

    Args:
        folder: As for `_Owner`.
        lease: Seconds without a connection until this process ends.
    """

    def __init__(self, folder: Path, lease: float) -> None:
        self._lease = lease
        # Open until this process ends, by which those that asked it to know that it has.
        self._held: set[socket.socket] = set()
        self._accepts_from = 0.0  # on time.monotonic
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / HOLD))
        self._listener.listen()
        super().__init__(folder)

    def _watch(self) -> None:
        starter = [sys.stdin]
        last_held = time.monotonic()
        interval = min(LOG_INTERVAL, self._lease / 4)
        while time.monotonic() - last_held < self._lease:
            listeners = [self._listener] if time.monotonic() >= self._accepts_from else []
            for each in readable([*listeners, *self._held, *starter], interval):
                if each is self._listener:
                    self._accept(interval)
                elif isinstance(each, socket.socket):
                    if _said(each):
                        return
                    each.close()
                    self._held.discard(each)
                elif not os.read(0, 1024):
                    starter.clear()
                    if not self.has_something_to_close.is_set():
                        return
            if self._held or starter:  # who holds it by another connection before it lets go of standard input
                last_held = time.monotonic()
            shorten(self._folder / LOG)
        logger.warning("nobody has held this server for %g s, its lease", self._lease)

    def _accept(self, pause: float) -> None:
        try:
            self._held.add(self._listener.accept()[0])
        except OSError as error:  # such as no descriptor left, until a session ends; the connection waits meanwhile
            logger.warning("a connection that holds this server cannot be accepted yet: %s", error.strerror)
            self._accepts_from = time.monotonic() + pause


def _said(connection: socket.socket) -> bool:
    """Whether a holder says that the server is to end, rather than that it leaves."""
    try:
        return bool(connection.recv(16))
    except OSError:
        return False


def shorten(log: Path) -> None:
    """Cut the beginning off a log over `LOG_BYTES`. What is written to it meanwhile, by appending, may be lost.

    A log that cannot be cut is left until the next time: the program may have removed it, and ends this process next,
    or no descriptor is left.
    """
    with contextlib.suppress(OSError):
        if log.stat().st_size <= LOG_BYTES:
            return
        with log.open("r+b") as file, log.open("ab") as end:  # both before anything is cut
            file.seek(-LOG_BYTES_KEPT, os.SEEK_END)
            kept = file.read()
            file.truncate(0)
            end.write(kept)


def _load_grpc() -> None:
    """Load gRPC with what ``remote-gym serve`` sets for it, which environments need not have."""
    own = {"GRPC_VERBOSITY": "NONE", "GRPC_ENABLE_FORK_SUPPORT": "0"}
    added = {name: value for name, value in own.items() if name not in os.environ}
    os.environ.update(added)
    importlib.import_module("grpc")  # reads them
    for name in added:
        del os.environ[name]
