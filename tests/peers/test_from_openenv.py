"""`from_openenv`, over servers of ours, and over one that is as strange as a test has it."""

from __future__ import annotations

import base64
import contextlib
import io
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import ResetNeeded

pytest.importorskip("uvicorn", reason="the extra http is not installed")

from environments import ACTION
from peers.strange_openenv import observed, saying, strange
from remote_gym import (
    ConfigError,
    ConnectError,
    ConnectionLost,
    ConnectReason,
    DeadlineExceeded,
    EncodingError,
    InvalidAction,
    NotPermitted,
    ProtocolMismatch,
    RemoteEnvironment,
    RemoteEnvironmentError,
    RemoteGymError,
    ServerFull,
    SessionLost,
    TlsFiles,
    create_remote_environment_server,
    from_openenv,
)
from remote_gym.auth.tokens import add_token
from remote_gym.testing import loopback_server
from waiting import scaled, wait_until

pytestmark = pytest.mark.usefixtures("_nothing_left")


@pytest.fixture
def _nothing_left():
    """Each environment's thread ends with it."""
    yield
    wait_until(lambda: not [each for each in threading.enumerate() if each.name.startswith("remote_gym.openenv")])


@pytest.fixture
def served(servers):
    """URL of CartPole, served by our own frontend."""
    with servers.lend("CartPole-v1", secure=False, use_thread=True, http=True) as lent:
        yield f"http://localhost:{lent.server.port}/openenv"


@contextlib.contextmanager
def playing(url: str, **arguments: Any):
    with contextlib.closing(from_openenv(url, **arguments)) as environment:
        yield environment


def test_episodes_are_those_of_the_environment_itself(served):
    local = gym.make("CartPole-v1")
    with playing(served) as environment:
        assert environment.action_space == local.action_space
        assert environment.observation_space == local.observation_space
        for seed in (1, 2):
            (observation, info), (expected, expected_info) = environment.reset(seed=seed), local.reset(seed=seed)
            ended = False
            while not ended:
                assert np.array_equal(observation, expected)
                assert observation.dtype == expected.dtype
                assert info == expected_info
                observation, *others, info = environment.step(1)
                expected, *expected_others, expected_info = local.step(1)
                assert others == expected_others
                ended = others[1] or others[2]


DRAWN = '''
import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Drawn(gym.Env):
    """Observes all kinds of things, and repeats what it takes."""

    def __init__(self):
        self.action_space = spaces.Dict({
            "move": spaces.Box(-1, 1, (2,), np.float32), "keys": spaces.MultiBinary(3), "say": spaces.Text(20),
            "pair": spaces.Tuple([spaces.Discrete(3, start=-1), spaces.MultiDiscrete([2, 5])]),
        })
        self.observation_space = spaces.Dict({
            "screen": spaces.Box(0, 255, (6, 5, 3), np.uint8), "gray": spaces.Box(0, 255, (4, 4), np.uint8),
            "taken": self.action_space, "wide": spaces.Box(-np.inf, np.inf, (2,), np.float64),
            "bounds": spaces.Box(np.array([0, -5]), np.array([1, 5]), dtype=np.int16),
            "bag": spaces.Sequence(spaces.Discrete(9)), "on": spaces.Box(0, 1, (2,), bool),
        })

    def observe(self, taken):
        random = self.np_random
        return {
            "screen": random.integers(0, 256, (6, 5, 3), np.uint8), "gray": random.integers(0, 256, (4, 4), np.uint8),
            "taken": taken, "wide": np.array([np.inf, np.nan]), "bounds": np.array([1, -5], np.int16),
            "bag": (np.int64(3), np.int64(4)), "on": np.array([True, False]),
        }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.action_space.seed(seed)
        return self.observe(self.action_space.sample()), {"options": options}

    def step(self, action):
        return self.observe(action), 0.5, False, action["say"] == "truncate", {"terminated here": 1}


def create_environment():
    return Drawn()
'''


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, str):
        return one == other
    return np.array_equal(one, other, equal_nan=True) and one.dtype == np.asarray(other).dtype


@pytest.fixture
def drawn(tmp_path):
    path = tmp_path / "drawn.py"
    path.write_text(DRAWN)
    return str(path)


@pytest.mark.parametrize("images", ["list", "png", "both"])
def test_observations_and_actions_of_all_kinds_keep_their_values_and_dtypes(drawn, images):
    if images != "list":
        pytest.importorskip("PIL", reason="the extra jpeg is not installed")
    namespace: dict[str, Any] = {}
    exec(DRAWN, namespace)
    local = namespace["create_environment"]()
    with (
        loopback_server({"entrypoint": drawn}, secure=False, use_thread=True, http=True, http_images=images) as server,
        playing(f"http://localhost:{server.server.port}/openenv") as environment,
    ):
        assert environment.action_space == local.action_space
        assert environment.observation_space == local.observation_space
        observation, info = environment.reset(seed=3, options={"level": "maze"})
        expected, expected_info = local.reset(seed=3, options={"level": "maze"})
        assert same(observation, expected)
        assert info == expected_info
        for say in ("go on", "truncate"):
            action = {**environment.action_space.sample(), "say": say}
            observation, *others = environment.step(action)
            expected, *expected_others = local.step(action)
            assert same(observation, expected)
            assert others == expected_others
        with pytest.raises(ResetNeeded):
            environment.step(action)


@pytest.mark.parametrize(
    ("action", "text"),
    [
        ({"move": [0, 0], "keys": [0, 0, 1], "say": ""}, "expected the keys"),
        ({"move": [0, 0, 0], "keys": [0, 0, 1], "say": "", "pair": (0, [0, 0])}, r"action\['move'\].*\(2,\)"),
        ({"move": [0, 0], "keys": [0, 0, 1], "say": 3, "pair": (0, [0, 0])}, r"\['say'\]: expected a str"),
        ({"move": [0, 0], "keys": [0, 0, 1], "say": "", "pair": (0, ["x", 0])}, r"\['pair'\]\[1\]"),
        (3, "expected a dict"),
    ],
)
def test_an_action_that_does_not_fit_is_not_sent(drawn, action, text):
    with (
        loopback_server({"entrypoint": drawn}, secure=False, use_thread=True, http=True) as server,
        playing(f"http://localhost:{server.server.port}/openenv") as environment,
    ):
        environment.reset()
        with pytest.raises(InvalidAction, match=text):
            environment.step(action)


def test_what_the_environment_raises_is_raised_with_its_words_and_it_goes_on(servers):
    obedient = {"entrypoint": str(Path(__file__).parents[1] / "environments.py")}
    with (
        servers.lend(obedient, secure=False, use_thread=True, http=True) as lent,
        playing(f"http://localhost:{lent.server.port}/openenv") as environment,
    ):
        environment.reset()
        with pytest.raises(RemoteEnvironmentError, match="EXECUTION_ERROR"):
            environment.step(ACTION["raise"])
        assert environment.step(ACTION["step"])[0]["count"] == 2  # the one that raised counts


def test_a_token_is_shown_over_tls(certificates, tmp_path):
    token_file = tmp_path / "tokens"
    token = add_token(token_file, "agent")
    tls = TlsFiles(ca=certificates.ca)
    paths = (certificates.server, certificates.server_key, None)
    options = {"use_thread": True, "check": False, "http": True, "token_file": token_file}
    with create_remote_environment_server("CartPole-v1", "localhost", 0, paths, **options) as server:
        url = f"https://localhost:{server.port}/openenv"
        with playing(url, tls=tls, token=token) as environment:
            assert environment.reset(seed=1)[0].shape == (4,)
        with playing(url, tls=tls, headers={"X-API-Key": token}) as environment:
            assert environment.reset(seed=1)[0].shape == (4,)
        with pytest.raises(NotPermitted, match="401"):
            from_openenv(url, tls=tls)
        with pytest.raises(NotPermitted, match="401"):
            from_openenv(url, tls=tls, observation_space=spaces.Dict(), action_space=spaces.Dict())
        with pytest.raises(ConnectError, match="TLS") as caught:
            from_openenv(url, token=token)  # the system's authorities do not know it
        assert caught.value.reason is ConnectReason.TLS


@pytest.mark.parametrize(
    ("url", "arguments", "text"),
    [
        ("localhost:8000", {}, "base URL"),
        ("ftp://localhost", {}, "base URL"),
        ("http://", {}, "base URL"),
        (7, {}, "base URL"),
        ("http://localhost:99999", {}, "base URL"),
        ("http://me:secret@localhost", {}, "holds more than a place"),
        ("http://localhost/?token=secret", {}, "holds more than a place"),
        ("http://192.0.2.1:8000", {}, "another machine"),
        ("http://localhost:1", {"token": "abc"}, "needs TLS"),
        ("http://localhost:1", {"tls": TlsFiles()}, "https"),
        ("http://localhost:1", {"headers": {"X": "a\r\nY: b"}}, "control characters"),
        ("http://localhost:1", {"headers": 3}, "control characters"),
        ("http://localhost:1", {"action_space": 3}, "a space of Gymnasium's"),
        ("http://localhost:1", {"step_timeot": 3}, "step_timeot"),
    ],
)
def test_arguments_that_cannot_work_are_refused_before_anything_is_sent(url, arguments, text):
    with pytest.raises(ConfigError, match=text) as caught:
        from_openenv(url, **arguments)
    assert "secret" not in str(caught.value)


def test_nobody_there_is_told_within_the_time():
    with pytest.raises(ConnectError, match="refused") as caught:
        from_openenv("http://127.0.0.1:1")
    assert caught.value.reason is ConnectReason.UNREACHABLE


@pytest.mark.parametrize("given", [None, spaces.Dict()])
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no OpenEnv server|does not answer"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", "404"),
    ],
)
def test_another_kind_of_server_is_named(data, text, given):
    with saying(data) as port, pytest.raises(ConnectError, match=text):
        from_openenv(
            f"http://127.0.0.1:{port}",
            observation_space=given,
            action_space=given,
            connect_timeout=1.0,
            open_timeout=1.0,
        )


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
def test_a_server_that_does_not_answer_is_not_waited_for(data):
    with saying(data) as port, pytest.raises(DeadlineExceeded):
        from_openenv(f"http://127.0.0.1:{port}", open_timeout=0.3)


def test_a_late_answer_is_nobody_elses():
    released = threading.Event()
    seen = []

    def answer(message, send):
        seen.append(message["type"])
        if message.get("data", {}).get("action") == 3:
            released.wait(scaled(20.0))
            return observed(333)
        return observed(len(seen))

    with strange(answer) as url, playing(url, step_timeout=0.3) as environment:
        environment.reset()
        environment.step(1)
        with pytest.raises(DeadlineExceeded, match=r"0\.3 s"):
            environment.step(3)
        with pytest.raises(ResetNeeded):
            environment.step(1)
        released.set()
        assert environment.reset()[0] == 4
        assert environment.step(1)[0] == 5


def test_a_message_that_nobody_asked_for_ends_the_episode():
    """It could be taken for the next question's answer, and that one's for the one after it."""

    def answer(message, send):
        send(observed(1))
        return observed(2) if message["type"] == "step" else None

    with strange(answer) as url, playing(url) as environment:
        environment.reset()
        assert environment.step(0)[0] == 1
        wait_until(lambda: not environment._conversation.is_open)
        with pytest.raises(ConnectionLost, match="nobody asked for"):
            environment.step(0)
        environment.reset()


def test_a_server_that_goes_away_is_told_and_the_next_reset_connects_anew():
    def answer(message, send):
        if message.get("data", {}).get("action") == 4:
            raise ValueError("this connection ends")
        return observed(7)

    with strange(answer) as url, playing(url) as environment:
        environment.reset()
        with pytest.raises(ConnectionLost, match="broke the connection"):
            environment.step(4)
        with pytest.raises(ResetNeeded):
            environment.step(1)
        assert environment.reset()[0] == 7


def test_an_idle_connection_that_was_ended_is_made_again_by_a_reset():
    connections = []

    def answer(message, send):
        connections.append(send)
        return observed(len(connections))

    with strange(answer) as url, playing(url) as environment:
        environment.reset()
        environment._background.run(environment._conversation.cut())
        assert environment.reset()[0] == 2


def error(code: str, text: str = "why", **more: Any):
    return {"type": "error", "data": {"message": text, "code": code, **more}}


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (error("EXECUTION_ERROR"), RemoteEnvironmentError, "why .code EXECUTION_ERROR"),
        (error("VALIDATION_ERROR", "bad", errors=[{"loc": "x"}]), RemoteEnvironmentError, "loc"),
        (error("CAPACITY_REACHED"), ServerFull, "why"),
        (error("SESSION_ERROR"), SessionLost, "why"),
        (error("EXECUTION_ERROR", "x" * 100_000 + "\x1b[31m"), RemoteEnvironmentError, "characters more"),
        ({"type": "state", "data": {}}, ProtocolMismatch, "state"),
        ("no JSON", ProtocolMismatch, "no JSON"),
        ("[" * 100_000, ProtocolMismatch, "no JSON"),
        ("[1]", ProtocolMismatch, "1"),
        (b"\xff\xfe", ProtocolMismatch, "no JSON"),
        ({"type": "observation", "data": 3}, ProtocolMismatch, "observation"),
        (observed("x"), EncodingError, "observation: expected int64 array of shape .., found builtins.str 'x'"),
        (observed(2**70), EncodingError, "observation: expected"),
        (observed(None), EncodingError, "found builtins.NoneType None"),
        (observed([1]), EncodingError, "found list of length 1"),
        (observed(1.5), EncodingError, "float64"),
        ({"type": "observation", "data": {"observation": {"other": 3}}}, EncodingError, "sent no 'count', but"),
        ({"type": "observation", "data": {"observation": 3}}, EncodingError, "sent no 'count'"),
        (observed(1, reward="much"), EncodingError, "reward: expected a number"),
        (observed(1, reward=10**400), EncodingError, "reward: expected a number"),
        (observed(1, done="yes"), EncodingError, "done: expected true or false"),
    ],
)
def test_an_answer_that_is_an_error_or_does_not_fit_is_raised_as_what_it_is(answer, kind, text):
    answers = iter([observed(), answer])
    with strange(lambda message, send: next(answers)) as url, playing(url) as environment:
        environment.reset()
        with pytest.raises(kind, match=text) as caught:
            environment.step(0)
        assert len(str(caught.value)) < 10_000
        assert "\x1b" not in str(caught.value)


def test_a_message_larger_than_the_limit_ends_the_connection():
    from remote_gym import Limits

    answers = iter([observed(), '"' + "x" * 100_000 + '"'])
    limits = Limits(message_bytes=10_000)
    with strange(lambda message, send: next(answers)) as url, playing(url, message_limits=limits) as environment:
        environment.reset()
        with pytest.raises(ConnectionLost):
            environment.step(0)


def test_a_server_without_room_says_so_when_it_is_connected_to():
    with strange(lambda message, send: None) as url, playing(url) as environment:
        # As OpenEnv's own server does: unasked, and then it closes.
        environment._conversation.unasked = '{"type": "error", "data": {"code": "CAPACITY_REACHED", "message": "2/2"}}'
        environment._background.run(environment._conversation.cut())
        with pytest.raises(ServerFull, match="2/2"):
            environment._ask("reset", {}, 1.0)


def test_texts_that_stand_for_floats_are_floats():
    box = spaces.Dict({"count": spaces.Box(-np.inf, np.inf, (3,), np.float32)})
    with (
        strange(lambda m, s: observed(["NaN", 1, "-Infinity"])) as url,
        playing(url, observation_space=box) as environment,
    ):
        found = environment.reset()[0]["count"]
    assert np.array_equal(found, np.array([np.nan, 1, -np.inf], np.float32), equal_nan=True)


def test_members_that_the_space_does_not_name_are_in_the_info():
    answer = {"observation": {"count": 3, "more": [1], "metadata": {"a": 1}}, "reward": None, "done": True}
    with strange(lambda m, s: {"type": "observation", "data": answer}) as url:
        space = spaces.Dict({"count": spaces.Discrete(9)})
        with playing(url, observation_space=space) as environment:
            environment.reset()
            found = environment.step(0)
    assert found == ({"count": 3}, 0.0, True, False, {"more": [1], "a": 1})


def test_a_single_space_takes_the_name_that_the_schema_has():
    seen = []

    def answer(message, send):
        seen.append(message["data"])
        return observed(2)

    with strange(answer) as url:
        with playing(url, observation_space=spaces.Discrete(3), action_space=spaces.Discrete(2)) as environment:
            assert environment.reset(seed=4, options={"episode_id": "mine"})[0] == 2
            environment.step(1)
    assert seen[:2] == [{"seed": 4, "episode_id": "mine"}, {"action": 1}]


def test_options_that_json_does_not_know_are_refused():
    with strange(lambda m, s: observed()) as url, playing(url) as environment:
        with pytest.raises(ConfigError, match="JSON"):
            environment.reset(options={"set": {1}})
        with pytest.raises(ConfigError, match="seed"):
            environment.reset(options={"seed": 1})


def test_closing_again_does_nothing_and_a_reset_after_it_is_refused():
    with strange(lambda m, s: observed()) as url:
        environment = from_openenv(url)
        environment.close()
        environment.close()
        with pytest.raises(ResetNeeded, match="closed"):
            environment.reset()


def test_an_environment_that_nobody_holds_any_more_leaves_nothing():
    with strange(lambda m, s: observed()) as url:
        environment = from_openenv(url)
        environment.reset()
        name = environment._background._thread.name
        del environment
        wait_until(lambda: name not in [each.name for each in threading.enumerate()])


def test_one_that_is_collected_in_its_own_thread_leaves_nothing_either():
    with strange(lambda m, s: observed()) as url:
        held = [from_openenv(url)]
        background = held[0]._background
        background._loop.call_soon_threadsafe(held.clear)
        wait_until(lambda: not background._thread.is_alive())
        assert background._loop.is_closed()


def test_an_interrupted_step_leaves_no_answer_behind():
    release = threading.Event()

    def answer(message, send):
        if message.get("data", {}).get("action") == 3:
            interrupt()
            release.wait(scaled(20.0))
            return observed(333)
        return observed(1)

    def interrupt():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with strange(answer) as url, playing(url) as environment:
        environment.reset()
        with pytest.raises(KeyboardInterrupt):
            environment.step(3)
        release.set()
        environment.reset()
        assert environment.step(0)[0] == 1


def png(array: Any, **more: Any) -> str:
    image = pytest.importorskip("PIL.Image", reason="the extra jpeg is not installed")
    data = io.BytesIO()
    image.fromarray(array).save(data, "PNG", **more)
    return base64.b64encode(data.getvalue()).decode()


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (lambda: png(np.zeros((4, 6, 3), np.uint8)), "expected base64 of an image of 5 x 4 pixels, found one of 6 x 4"),
        (lambda: png(np.zeros((4, 5), np.uint8)), "in RGB, found one in L"),
        (lambda: png(np.zeros((4, 5, 3), np.uint8))[:60] + "====", "what is none"),
        (lambda: base64.b64encode(b"GIF89a" + bytes(100)).decode(), "what is none"),
        (lambda: "\x00", "what is none"),
        (lambda: png(np.zeros((3000, 3000), np.uint8)), "one of 3000 x 3000"),
    ],
)
def test_an_image_that_is_another_one_is_refused(made, text):
    space = spaces.Dict({"count": spaces.Box(0, 255, (4, 5, 3), np.uint8)})
    image = made()
    with strange(lambda m, s: observed(image)) as url, playing(url, observation_space=space) as environment:
        with pytest.raises(EncodingError, match=text):
            environment.reset()


def test_an_image_by_data_url_is_taken():
    picture = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    image = "data:image/png;base64," + png(picture)
    space = spaces.Dict({"count": spaces.Box(0, 255, (4, 5, 3), np.uint8)})
    with strange(lambda m, s: observed(image)) as url, playing(url, observation_space=space) as environment:
        assert np.array_equal(environment.reset()[0]["count"], picture)


def test_a_server_that_reads_nothing_is_not_waited_for():
    handshake = b"HTTP/1.1 101 Switching Protocols\r\n"

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        taken = []

        def accept():
            import base64 as b
            import hashlib

            connection = listener.accept()[0]
            taken.append(connection)
            request = connection.recv(65536).decode()
            key = next(x.split(": ")[1] for x in request.split("\r\n") if x.lower().startswith("sec-websocket-key"))
            accepted = b.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
            head = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accepted + b"\r\n\r\n"
            connection.sendall(handshake + head)

        thread = threading.Thread(target=accept)
        thread.start()
        space = spaces.Dict({"say": spaces.Text(10)})
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with playing(
            url, observation_space=space, action_space=space, step_timeout=0.5, reset_timeout=0.5, close_timeout=0.5
        ) as environment:
            thread.join()
            begin = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                environment.reset(options={"large": "x" * 12_000_000})
            assert time.monotonic() - begin < scaled(10.0)
        for each in taken:
            each.close()


def test_it_can_be_put_behind_a_server_of_ours(served, tmp_path):
    entrypoint = tmp_path / "entrypoint.py"
    entrypoint.write_text(
        f"import remote_gym\n\ndef create_environment():\n    return remote_gym.from_openenv({served!r})\n"
    )
    local = gym.make("CartPole-v1")
    with (
        create_remote_environment_server(str(entrypoint), port=0) as server,
        contextlib.closing(RemoteEnvironment(port=server.port)) as environment,
    ):
        assert np.array_equal(environment.reset(seed=5)[0], local.reset(seed=5)[0])
        assert np.array_equal(environment.step(1)[0], local.step(1)[0])


def test_without_websockets_it_says_what_to_install(monkeypatch):
    from remote_gym.peers import openenv

    monkeypatch.setattr(openenv, "_missing", ImportError("websockets"))
    with pytest.raises(ConfigError, match=r"remote-gym\[http\]"):
        from_openenv("http://localhost:1")


def test_errors_are_all_ours(served):
    with playing(served) as environment:
        with pytest.raises((RemoteGymError, ResetNeeded)):
            environment.step(0)
