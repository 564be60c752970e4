"""What a fork finds of gRPC, and what other threads notice of it."""

from __future__ import annotations

import os
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remote_gym.client.connect import forking
from remote_gym.client.connect.channel import Channel
from remote_gym.client.connect.connection import GrpcConnection
from remote_gym.client.connect.credentials import Credentials
from remote_gym.client.connect.registry import CHANNELS, SESSIONS, Registry
from remote_gym.config import ClientOptions, Limits
from remote_gym.errors import ConnectionLost
from remote_gym.v1 import remote_gym_pb2 as pb
from scripts import run_script
from served import served
from waiting import scaled

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
needs_tasks = pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows what its threads are called")

ENVIRONMENTS = Path(__file__).resolve().parents[2] / "environments.py"

# In a process of its own: pytest's has channels and servers of other tests.
PREAMBLE = """
import _thread, gc, os, signal, sys, threading, time
sys.path.insert(0, {tests!r})
from environments import ACTION
from remote_gym import ConnectError, RemoteEnvironment
from remote_gym.client import dropped
from remote_gym.client.connect import forking, grpc_threads

def make():
    return RemoteEnvironment(port={port}, connection="grpc")

def fork():
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return time.monotonic() - start

waits = []
real_wait = forking._wait_for_grpcs_end
def wait():
    seen = real_wait()
    waits.append(seen.name)
    return seen
forking._wait_for_grpcs_end = wait
"""


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[[str], str]]:
    """What a script prints that has a server, and no errors."""
    with served("--entrypoint", ENVIRONMENTS, "--port", 0) as server:
        preamble = PREAMBLE.format(tests=str(ENVIRONMENTS.parent), port=server.port)

        def run(code: str) -> str:
            finished = run_script(preamble + textwrap.dedent(code), environment={"GRPC_VERBOSITY": "NONE"})
            assert finished.returncode == 0, finished.stderr
            # gRPC's own children of a moment with open channels may say more.
            assert not [line for line in finished.stderr.splitlines() if not line.startswith("[")], finished.stderr
            return finished.stdout

        yield run


@needs_fork
@needs_tasks
def test_a_fork_waits_for_grpcs_end_where_the_channel_is_gone_already(run):
    code = """
    environment = make()
    assert grpc_threads.look() is not grpc_threads.Seen.NONE
    environment.close()
    del environment
    gc.collect()
    fork()
    fork()
    print(waits)
    """
    assert run(code) == "['NONE']\n"  # once, until none was left; the second fork has nothing to wait for


@needs_fork
@needs_tasks
def test_a_fork_does_not_wait_where_a_channel_of_ours_stays_open(run):
    code = """
    environment = make()
    environment.reset()
    make().close()
    def step():
        environment.step(ACTION["slow"])
    thread = threading.Thread(target=step)
    thread.start()
    while not environment._session.is_behind:
        time.sleep(0.001)
    fork()
    print(waits, thread.is_alive())
    thread.join()
    fork()
    print(waits)
    environment.close()
    """
    assert run(code) == "[] True\n['NONE']\n"


@needs_fork
@needs_tasks
def test_a_fork_waits_for_long_only_once_for_threads_of_channels_that_are_not_ours(run):
    code = """
    import grpc
    environment = make()
    other = grpc.insecure_channel(f"localhost:{environment._session.place[1]}")
    grpc.channel_ready_future(other).result(30)
    took = []
    for _ in range(3):
        environment.reset()
        took.append(fork())
    print(waits, took[0] >= forking.LONGEST_WAIT, max(took[1:]) < forking.LONGEST_WAIT)
    environment.reset()
    environment.close()
    """
    assert run(code) == "['ASLEEP', 'ASLEEP', 'ASLEEP'] True True\n"


@needs_fork
@needs_tasks
def test_forks_in_a_row_find_no_thread_of_grpcs_that_has_no_name_yet(run):
    """The first makes a channel again, whose threads may not have run once when the second looks for them.

    Here as all are on one core, and they run there when it is idle, elsewhere since the machine is busy. Of forks in a
    row that did not wait for them one in seven took gRPC for ended that was not, and of the children of those one in
    three waited for a lock without end.
    """
    code = """
    from remote_gym.client.connect.channel import Channel
    left, ours = [], set(map(int, os.listdir("/proc/self/task")))
    real_after, real_tell = Channel.after_fork, forking._tell
    def make_slowly(channel):
        ours.add(threading.get_native_id())
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        real_after(channel)
    def after_fork(channel):
        thread = threading.Thread(target=make_slowly, args=(channel,))
        thread.start()
        thread.join()
    def tell(*what):  # which is the last before the fork
        running = set(map(int, os.listdir("/proc/self/task")))
        if not forking._forks.childs:
            left.append(running - ours - {each.native_id for each in threading.enumerate()})
        real_tell(*what)
    environment = make()
    environment.reset()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    Channel.after_fork, forking._tell = after_fork, tell
    for _ in range(30):
        children = []
        for _ in range(3):
            children.append(os.fork())
            if children[-1] == 0:
                os._exit(0)
        for child in children:
            os.waitpid(child, 0)
    print([each for each in left if each], environment.step(ACTION["step"])[0]["count"])
    environment.close()
    """
    assert run(code) == "[] 1\n"


USES_GRPC_IN_A_CHILD = """
def ask_in_child():
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            make().close()
            answer = "usable"
        except ConnectError as error:
            answer = str(error)
        os.write(sender, answer.replace(str(os.getpid()), "PID").encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    return os.read(receiver, 1000).decode()
"""
REFUSED = (
    "gRPC cannot be used in this process, PID, which was forked while {}; fork while no other thread uses gRPC, or "
    "start processes by 'forkserver' or 'spawn'\n"
)


@needs_fork
@pytest.mark.parametrize("connection", ["grpc", "direct"])
def test_a_child_of_a_moment_in_which_a_request_was_not_answered_refuses_to_use_grpc(run, connection):
    """One in three of those that tried aborted, or waited without end."""
    code = f"""
    environment = make()
    environment.reset()
    thread = threading.Thread(target=environment.step, args=(ACTION["slow"],))
    thread.start()
    while not environment._session.is_behind:
        time.sleep(0.001)
    def make():
        return RemoteEnvironment(port=environment._session.place[1], connection={connection!r})
    print(ask_in_child())
    thread.join()
    print(ask_in_child())
    environment.close()
    """
    expected = REFUSED.format("a request of another thread had not been answered") + "usable\n"
    assert run(USES_GRPC_IN_A_CHILD + textwrap.dedent(code)) == expected


@needs_fork
def test_a_child_of_a_moment_in_which_grpc_was_busy_refuses_to_use_it_and_so_does_its_child(run):
    code = """
    real_wait_for_end = grpc_threads.wait_for_end
    def find_busy(*longest):  # though it has ended, as else a fork of the child's may wait for it in gRPC
        real_wait_for_end(*longest)
        return grpc_threads.Seen.BUSY
    grpc_threads.wait_for_end = find_busy
    make().close()
    print(ask_in_child())
    make().close()
    child = os.fork()
    if child == 0:
        print(ask_in_child(), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    grpc_threads.wait_for_end = real_wait_for_end
    print(ask_in_child())
    """
    refused = REFUSED.format("gRPC was busy, for others or with its own end")
    assert run(USES_GRPC_IN_A_CHILD + textwrap.dedent(code)) == 2 * refused + "usable\n"


@needs_fork
def test_a_child_that_does_without_grpc_ends_as_ever_whatever_its_parent_was_doing(run):
    code = """
    environment = make()
    environment.reset()
    thread = threading.Thread(target=environment.step, args=(ACTION["slow"],))
    thread.start()
    while not environment._session.is_behind:
        time.sleep(0.001)
    child = os.fork()
    if child == 0:
        environment.close()
        del environment
        gc.collect()
        worker = threading.Thread(target=os.getpid)
        worker.start()
        worker.join()
        grandchild = os.fork()
        assert grandchild == 0 or os.waitpid(grandchild, 0)[1] == 0
        sys.exit()
    print(os.waitpid(child, 0)[1])
    thread.join()
    environment.close()
    """
    assert run(code) == "0\n"


@needs_fork
def test_other_threads_notice_nothing_of_forks(run):
    code = """
    environments = [make() for _ in range(3)]
    failures, going = [], True
    def step(environment):
        environment.reset()
        count = 0
        try:
            while going:
                assert environment.step(ACTION["step"])[0]["count"] == count + 1
                count += 1
                time.sleep(0.002)
            environment.close()
        except BaseException as error:
            failures.append(error)
    def open_and_close():
        try:
            while going:
                make().close()
        except BaseException as error:
            failures.append(error)
    threads = [threading.Thread(target=step, args=(each,)) for each in environments]
    threads.append(threading.Thread(target=open_and_close))
    for thread in threads:
        thread.start()
    for _ in range(40):
        fork()
        time.sleep(0.02)
    going = False
    for thread in threads:
        thread.join()
    print(failures)
    """
    assert run(code) == "[]\n"


@needs_fork
def test_forks_that_follow_one_another_at_once_find_no_thread_amid_attaching(run):
    """Its call would arrive twice, and the session would be lost to the second: after 18 to 84 such forks."""
    code = """
    environment = make()
    environment.reset()
    failures, going = [], True
    def step():
        count = 0
        try:
            while going:
                assert environment.step(ACTION["step"])[0]["count"] == count + 1
                count += 1
                time.sleep(0.0005)
        except BaseException as error:
            failures.append(error)
    thread = threading.Thread(target=step)
    thread.start()
    for _ in range(150):
        fork()
    going = False
    thread.join()
    print(failures)
    environment.close()
    """
    assert run(code) == "[]\n"


@needs_fork
def test_what_begins_amid_a_fork_waits_for_its_end(run):
    """Deterministically: each begins while `before_fork` has closed the channels, and the fork has not been done."""
    code = """
    def begin_amid_a_fork(what):
        environment = make()
        environment.reset()
        environment.step(ACTION["step"])
        box, failures = [environment], []
        dropped.logger.debug = lambda *what, **_: failures.append(what)  # that it cannot be closed
        del environment
        def act():
            try:
                if what == "step":
                    assert box[0].step(ACTION["step"])[0]["count"] == 2
                elif what == "reset":
                    box[0].reset()
                elif what == "close":
                    box[0].close()
                elif what == "drop":
                    box.clear()
                    gc.collect()
                else:
                    make().close()
            except BaseException as error:
                failures.append(error)
        thread = threading.Thread(target=act)
        def wait():
            thread.start()
            thread.join(0.3)
        forking._wait_for_grpcs_end = wait
        fork()
        forking._wait_for_grpcs_end = real_wait
        thread.join()
        for each in box:
            each.close()
        deadline = time.monotonic() + 30
        while dropped._closing._servers:
            assert time.monotonic() < deadline, "what was dropped is not closed"
            time.sleep(0.01)
        print(what, failures)
    for what in ("step", "reset", "close", "drop", "open"):
        begin_amid_a_fork(what)
    """
    assert run(code).splitlines() == ["step []", "reset []", "close []", "drop []", "open []"]


@needs_fork
def test_a_signals_handler_amid_a_fork_can_use_the_session_that_it_suspends(run):
    """It is the forking thread itself: if it waited for the end of the fork, that would never come."""
    code = """
    environment = make()
    environment.reset()
    counts = []
    def step(*_):
        counts.append(int(environment.step(ACTION["step"])[0]["count"]))
    signal.signal(signal.SIGUSR1, step)
    def wait():
        signal.raise_signal(signal.SIGUSR1)
    forking._wait_for_grpcs_end = wait
    fork()
    print(counts, environment.step(ACTION["step"])[0]["count"])
    environment.close()
    """
    assert run(code) == "[1] 2\n"


@needs_fork
def test_ctrl_c_amid_a_fork_is_raised_after_it(run):
    code = """
    environment = make()
    for amid in ("_wait_for_grpcs_end", "_end"):
        environment.reset()
        real = getattr(forking, amid)
        def interrupted():
            if getattr(forking, amid) is not real:
                setattr(forking, amid, real)
                signal.raise_signal(signal.SIGINT)
            return real()
        setattr(forking, amid, interrupted)
        try:
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
            time.sleep(30)
            print("swallowed")
        except KeyboardInterrupt:
            print("raised", environment.step(ACTION["step"])[0]["count"])
    environment.close()
    """
    assert run(code) == "raised 1\nraised 1\n"


@needs_fork
def test_two_threads_that_fork_at_once_find_no_channel_open(run):
    code = """
    import grpc
    environment = make()
    environment.reset()
    states = []
    def forks():
        for _ in range(10):
            child = os.fork()
            if child == 0:
                grpc.insecure_channel("localhost:1")  # waits without end where a lock of gRPC's was inherited
                os._exit(0)
            states.append(os.waitpid(child, 0)[1])
    threads = [threading.Thread(target=forks) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(set(states), environment.step(ACTION["step"])[0]["count"])
    environment.close()
    """
    assert run(code) == "{0} 1\n"


class Noting:
    """A channel that notes what is done to it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.done: list[str] = []
        self._error = error

    def before_fork(self, deadline: float) -> bool:
        self.done.append("before")
        if self._error is not None:
            raise self._error
        return True

    def after_fork(self) -> None:
        self.done.append("after")
        if self._error is not None:
            raise self._error

    def in_child(self) -> None:
        self.done.append("child")

    def close_at_exit(self, timeout: float) -> None:
        self.done.append("exit")

    place = ("localhost", 1)


@needs_fork
def test_one_that_fails_amid_a_fork_keeps_no_other_from_its_part():
    channels = [Noting(OSError("no")), Noting()]
    for each in channels:
        CHANNELS.add(each)
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert [each.done for each in channels] == [["before", "after"]] * 2


@needs_fork
def test_a_child_waits_for_no_fork_and_knows_nothing_of_its_parents():
    channel = Noting()
    CHANNELS.add(channel)
    child = os.fork()
    if child == 0:
        knows = bool(CHANNELS.items() or SESSIONS.items()) or forking.is_going_on()
        os._exit(int(knows or channel.done != ["before", "child"]))
    assert os.waitpid(child, 0)[1] == 0


def test_a_registry_is_read_while_other_threads_add_to_it():
    registry: Registry[Noting] = Registry()
    kept = [Noting() for _ in range(64)]
    for each in kept:
        registry.add(each)
    stop = threading.Event()

    def add() -> None:
        while not stop.is_set():
            for each in [Noting() for _ in range(50)]:
                registry.add(each)

    thread = threading.Thread(target=add)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        for _ in range(2_000):
            assert registry.items()[:64] == kept
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()
    del each, add
    assert registry.items() == kept


CALLS: dict[str, Callable[[GrpcConnection], object]] = {
    "reach": lambda connection: connection.reach("id", "token", 1.0),
    "close_session": lambda connection: connection.close_session("id", "token", 1.0),
    "open": lambda connection: connection.open(pb.OpenRequest(), connect_timeout=1.0, open_timeout=1.0),
    "call": lambda connection: connection.call("Step", "id", "token", b"", 1.0),
    "attach": lambda connection: connection.attach("id", "token"),
    "check_known": lambda connection: connection.check_known(1.0),
    "ask_load": lambda connection: connection.ask_load(1.0)(),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_on_a_closed_connection_says_that_it_is_closed(name):
    connection = GrpcConnection("localhost", 1, None, ClientOptions())
    connection.close()
    with pytest.raises(ConnectionLost, match="the channel to localhost:1 is closed"):
        CALLS[name](connection)


@pytest.mark.parametrize("name", ["renew", "before_fork"])
def test_nothing_opens_a_closed_channel_again(name):
    channel = Channel("localhost:1", Credentials(None), Limits())
    channel.close()
    if name == "renew":
        channel.renew()
    else:
        channel.before_fork(0.0)
        channel.after_fork()
    with pytest.raises(ConnectionLost, match="is closed"):
        channel.ask("Load", b"", 1.0, "asking")


def test_a_channel_that_a_fork_closed_is_made_again_by_nobody_but_its_end():
    channel = Channel("localhost:1", Credentials(None), Limits())
    assert channel.before_fork(0.0)
    thread = threading.Thread(target=channel.renew)
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    channel.after_fork()
    thread.join(scaled(10.0))
    assert not thread.is_alive()
    channel.close()
