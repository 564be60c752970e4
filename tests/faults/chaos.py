"""A run of many faults, chosen by a seed, and the verdict on it."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import json
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from faults.client_kinds import Clients
from faults.kinds import KINDS, Column, Connection, Hang, Lane, Unexpected
from faults.leaks import Possessions
from faults.oracle import Asked, Executed, Verdict, judge
from faults.player import AwaitingPlayer, Journal, Player
from faults.proxy import Network, Proxy
from faults.serving import CLIENTS, SERVER_NAME, Certificates, Server
from faults.vector_player import COUNT, SIZE, VectorPlayer

Entered = TypeVar("Entered")

CONNECTIONS: tuple[Connection, ...] = ("direct", "grpc")
COLUMNS: tuple[Column, ...] = (
    "direct",
    "grpc",
    "auto",
    "direct, vector",
    "grpc, vector",
    "direct, awaited",
    "grpc, awaited",
)
MODES: tuple[dict[str, Any], ...] = (
    {"on_session_lost": "raise"},
    {"on_session_lost": "truncate", "autoreset_mode": "NextStep"},
    {"on_session_lost": "truncate", "autoreset_mode": "Disabled"},
)
"""Of vector environments: what they do when some are lost."""
PADDINGS = (0, 2_000, 200_000)
"""Of observations, in numbers of eight bytes: one packet, some, and more than a socket holds."""
REOPEN_EVERY = 25


@dataclass
class Report:
    """What happened."""

    seed: int
    struck: Counter[tuple[str, Column]] = field(default_factory=Counter)
    survived: Counter[tuple[str, Column]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    seconds: float = 0.0
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def complaints(self) -> list[str]:
        """Everything that should not be; empty if all is well."""
        return [*self.failures, *self.hangs, *self.verdict.complaints, *self.leaks]

    def table(self) -> Iterator[str]:
        """The report, line by line."""
        yield f"{'survived, of struck':36}" + "".join(f"{column:>16}" for column in COLUMNS)
        for kind in sorted({kind for kind, _ in self.struck}):
            cells = (_of(self.survived[kind, one], self.struck[kind, one]) for one in COLUMNS)
            yield f"{kind:36}" + "".join(cells)
        totals = (_of(_total(self.survived, one), _total(self.struck, one)) for one in COLUMNS)
        yield f"{'in all':36}" + "".join(totals)
        verdict = self.verdict
        yield ""
        yield f"seed {self.seed}, {self.seconds:.0f} s: {self.struck.total()} faults, {self.survived.total()} survived"
        yield f"steps executed {verdict.executed:,}, acknowledged {verdict.acknowledged:,}"
        yield (
            f"duplicates {len(verdict.duplicates)}, gaps {len(verdict.gaps)}, other wrongs {len(verdict.others)}, "
            f"hangs {len(self.hangs)}, leaks {len(self.leaks)}"
        )
        yield from (f"skipped: {reason}" for reason in self.skipped)
        yield from (f"WRONG: {complaint}" for complaint in self.complaints)


def _of(part: int, whole: int) -> str:
    return f"{f'{part} of {whole}' if whole else '':>16}"


def _total(counts: Counter[tuple[str, Column]], column: Column) -> int:
    return sum(count for (_, one), count in counts.items() if one == column)


def plan(names: list[str], faults: int, lanes: int, seed: int) -> list[tuple[Connection, list[str]]]:
    """Which lane suffers what, in which order.

    Every kind comes as often as every other, but that kinds which take seconds come a few times only; each lane has
    one kind of connection, and about as much to suffer as the others of it.
    """
    chosen = random.Random(seed)
    quick = [name for name in names if KINDS[name].seconds < 2]
    slow = [name for name in names if KINDS[name].seconds >= 2]
    each = faults // 2
    slow = slow * max(1, min(each // 50, each // 2 // max(1, len(slow))))
    planned: list[tuple[Connection, list[str]]] = []
    for connection in CONNECTIONS:
        wanted = [*slow[:each]]
        while len(wanted) < each and quick:
            wanted += chosen.sample(quick, min(len(quick), each - len(wanted)))
        wanted.sort(key=lambda name: KINDS[name].seconds, reverse=True)
        shares: list[list[str]] = [[] for _ in range(max(1, lanes // 2))]
        for name in wanted:
            min(shares, key=lambda share: sum(KINDS[one].seconds for one in share)).append(name)
        for share in shares:
            chosen.shuffle(share)
            planned.append((connection, share))
    return planned


class Chaos:
    """One run: a server, a network, and lanes through it.

    Args:
        folder: For ledgers, journals, logs.
        seed: Makes every choice.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.report = Report(seed)
        self.ledger = folder / "ledger"
        self.certificates = Certificates.create(folder / "certificates")
        self.network = Network()
        self.journals: list[Journal] = []
        self._servers: list[Server] = []
        self._followed: dict[int, Journal] = {}  # second journals, by the numbers of the first
        self._addresses = iter(CLIENTS)
        self._entered = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._before: tuple[Possessions, Possessions]
        self._began = time.monotonic()

    def __enter__(self) -> Chaos:
        return self

    def __exit__(self, *_: object) -> None:
        """End what a run that failed has not ended."""
        for server in self._servers:
            server.kill()
            server.let_go()
        self.network.close()
        self._entered.close()

    def subfolder(self, name: str) -> Path:
        """A folder of the run's, made now."""
        folder = self.folder / name
        folder.mkdir()
        return folder

    def enter(self, context: AbstractContextManager[Entered]) -> Entered:
        """Enter a context that lasts until all servers have ended."""
        return self._entered.enter_context(context)

    def server(self, name: str, **arguments: object) -> Server:
        """Another server, not yet started."""
        folder = self.subfolder(name)
        certificates = self.certificates.copy(folder / "certificates")
        server = Server(folder, certificates, **arguments)  # type: ignore[arg-type]
        self._servers.append(server)
        return server

    def lane(
        self,
        connection: Connection,
        server: Server,
        padding: int = 0,
        mode: dict[str, Any] | None = None,
        *,
        awaits: bool = False,
        **more: Any,
    ) -> Lane:
        """A client of a server, behind a proxy of its own. The caller closes both.

        Args:
            connection: Which kind it has.
            server: Whose.
            padding: Of observations.
            mode: One of `MODES`, for a vector environment.
            awaits: Whether it is an asynchronous one.
            **more: Further arguments of its environment.
        """
        with self._lock:
            number = len(self.journals)
            journals = [Journal(self.folder / f"client-{number + more}") for more in range(COUNT if mode else 1)]
            self.journals += journals
            host = next(self._addresses)
        seed = self.report.seed * 1000 + number
        certificates = self.certificates.copy(self.folder / f"certificates-{number}")
        proxy = Proxy(self.network, host, *server.reached_at)
        environment = {
            "url": host,
            "port": server.reached_at[1],
            "remote_args": {"entrypoint_kwargs": {"ledger": str(self.ledger), "padding": padding}},
            "client_credentials_paths": certificates.of_client,
            "connection": connection,
            "connect_timeout": 30.0,
            "step_timeout": 60.0,
            "reset_timeout": 60.0,
            "close_timeout": 5.0,
            **({} if server.hub is None else {"server_name": SERVER_NAME}),
            **more,
        }
        player: Player | VectorPlayer
        if mode is None:
            player = (AwaitingPlayer if awaits else Player)(number, journals[0], seed, **environment)
        else:
            player = VectorPlayer(number, journals, seed, padding, **environment, **mode)
        size = 8 * (2 + padding) * (1 if mode is None else SIZE)
        return Lane(connection, player, proxy, server, certificates, random.Random(seed), size)

    def clients(self, server: Server) -> Clients:
        """Two client programs, of which the second takes over from the first."""
        with self._lock:
            number = len(self.journals)
            clients = Clients(self.folder, server, self.ledger, number, self.report.seed * 1000 + number)
            self.journals.append(clients.journal)
            self._followed[number] = clients.second
        return clients

    def strike(self, name: str, column: Column, strike: Callable[[], None]) -> bool:
        """Let one fault strike, and count it. Returns whether its client saw what it should."""
        return self._count(name, [column], strike)

    def strike_all(self, name: str, lanes: Sequence[Lane], strike: Callable[[Sequence[Lane]], None]) -> bool:
        """Let one fault strike several clients, and count it once for each."""
        return self._count(name, [lane.column for lane in lanes], lambda: strike(lanes))

    def _count(self, name: str, columns: list[Column], strike: Callable[[], None]) -> bool:
        keys = [(name, column) for column in columns]
        with self._lock:
            self.report.struck.update(keys)
        who = " and ".join(columns)
        try:
            strike()
        except Hang as error:
            self.complain(self.report.hangs, f"{name}, {who}: {error}")
            return False
        except Exception as error:  # noqa: BLE001 - whatever a client raises is a finding, not the end of the run
            self.complain(self.report.failures, f"{name}, {who}: {type(error).__name__}: {error}")
            return False
        with self._lock:
            self.report.survived.update(keys)
        return True

    def complain(self, where: list[str], what: str) -> None:
        with self._lock:
            where.append(what)

    def run_lane(
        self,
        connection: Connection,
        server: Server,
        names: list[str],
        number: int,
        mode: dict[str, Any] | None = None,
        awaits: bool = False,
    ) -> None:
        """Suffer some faults in turn, and play on in between."""
        lane = self.lane(connection, server, PADDINGS[number % len(PADDINGS)], mode, awaits=awaits)
        try:
            well = False
            for count, name in enumerate(names):
                if not well or count % REOPEN_EVERY == 0:
                    lane.player.close()
                    lane.check(lane.player.reset(), ("answered",))
                well = self.strike(name, lane.column, functools.partial(KINDS[name].strike, lane))
                for _ in range(lane.random.randrange(3) if well else 0):
                    lane.check(lane.player.step(), ("answered",))
                if well and lane.random.random() < 0.2:
                    lane.check(lane.player.reset(), ("answered",))
        except Unexpected as error:
            self.complain(self.report.failures, f"{lane.column}, between faults: {error}")
        finally:
            lane.player.close()
            lane.proxy.close()

    def in_parallel(self, jobs: list[Callable[[], None]], timeout: float) -> None:
        """Run all, and see that they end."""
        threads = [threading.Thread(target=self._guarded, args=(job,), daemon=True) for job in jobs]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        alive = sum(thread.is_alive() for thread in threads)
        if alive:
            self.complain(self.report.hangs, f"{alive} lanes had not ended after {timeout:.0f} s")

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:  # noqa: BLE001 - as in `strike`
            self.complain(self.report.failures, f"a lane ended: {type(error).__name__}: {error}")

    def settle(self, server: Server) -> None:
        """Use everything once, so that what is kept for good is there, and remember what there is."""
        for connection, awaits in itertools.product(CONNECTIONS, (False, True)):
            lane = self.lane(connection, server, awaits=awaits)
            lane.check(lane.player.reset(), ("answered",))
            lane.player.close()
            lane.proxy.close()
        gc.collect()
        self._before = (
            Possessions.least(lambda: Possessions.of_server(server)),
            Possessions.least(Possessions.of_clients),
        )

    def finish(self, steady: Server) -> Report:
        """Look for what is left, stop everything, and judge.

        Args:
            steady: The server that was settled, and ran all the time.
        """
        gc.collect()  # errors that players keep refer to what they passed, such as what asyncio's gRPC has
        leaks = self.report.leaks
        of_server, of_clients = self._before
        leaks += [f"server: {leak}" for leak in of_server.excess(lambda: Possessions.of_server(steady))]
        leaks += [f"clients: {leak}" for leak in of_clients.excess(Possessions.of_clients)]
        for server in self._servers:
            leaks += server.stop()
        self.report.verdict = judge(*self._records())
        self.report.seconds = time.monotonic() - self._began
        return self.report

    def _records(self) -> tuple[list[Executed], list[list[Asked]], dict[str, int]]:
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        executed, padding = [], defaultdict[str, int](int)
        for line in lines:
            record = json.loads(line)
            padding[record["instance"]] = record["padding"]
            executed.append(Executed(record["instance"], record["number"], record["action"]))
        return executed, list(self._asked()), padding

    def _asked(self) -> Iterator[list[Asked]]:
        """What each client asked; where one took over from another, what the first did after that apart."""
        for number, journal in enumerate(self.journals):
            asked = journal.asked()
            followed = self._followed.get(number)
            if followed is not None and followed.path.exists():
                taken_over = followed.asked()
                actions = {each.action for each in taken_over}
                yield taken_over
                yield [each for each in asked if each.action not in actions]
            else:
                yield asked
