"""`from_agentgpt`, with hosts that speak as AgentGPT's do, and such that do not."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import threading
import time
from typing import Any

import gymnasium as gym
import msgpack
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("websockets", reason="the extra http is not installed")

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from peers.agentgpt_host import hosting
from remote_gym import (
    ConfigError,
    ConnectionLost,
    DeadlineExceeded,
    EncodingError,
    InvalidAction,
    Limits,
    ProtocolMismatch,
    RemoteEnvironment,
    RemoteEnvironmentError,
    TlsFiles,
    create_remote_environment_server,
    from_agentgpt,
)
from remote_gym.peers import agentgpt_hub
from remote_gym.peers.agentgpt_hub import Hub, Settings
from remote_gym.peers.agentgpt_wire import space_of, unpack
from waiting import scaled, wait_until

KEY = "a training key"
POLE = {"action_space": spaces.Discrete(2), "env_id": "CartPole-v1"}

pytestmark = pytest.mark.usefixtures("_nothing_left")


@pytest.fixture
def _nothing_left():
    yield
    assert Hub._all == {}
    wait_until(lambda: not [each for each in threading.enumerate() if each.name.startswith("remote_gym.agentgpt")])


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    return path


@pytest.fixture
def port(key_file):
    """One that is listened on as long as the test runs, so that hosts can dial in before an environment is made."""
    hub = Hub.join(Settings("127.0.0.1", 0, KEY.encode(), None, Limits().message_bytes))
    yield hub.port
    hub.leave()


@contextlib.contextmanager
def playing(port: int, key_file: Any, **arguments: Any):
    with contextlib.closing(from_agentgpt(port, training_key_file=key_file, **{**POLE, **arguments})) as environment:
        yield environment


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_episodes_are_those_of_the_environment_itself(port, key_file, env_id):
    local = gym.make(env_id)
    arguments = {"env_id": env_id, "action_space": local.action_space if env_id == "CartPole-v1" else None}
    with hosting(port, KEY), playing(port, key_file, **arguments) as environment:
        assert environment.action_space == local.action_space
        assert environment.observation_space == local.observation_space
        for seed in (1, 2):
            (observation, info), (expected, expected_info) = environment.reset(seed=seed), local.reset(seed=seed)
            local.action_space.seed(seed)
            for _ in range(30):
                assert np.array_equal(observation, expected)
                assert observation.dtype == expected.dtype
                assert info == expected_info
                action = local.action_space.sample()
                observation, *others, info = environment.step(action)
                expected, *expected_others, expected_info = local.step(action)
                assert others == expected_others
                if others[1]:
                    break


def test_each_environment_has_a_host_of_its_own_and_gives_it_back(port, key_file):
    with hosting(port, KEY, 0) as first, hosting(port, KEY, 1) as second:
        with playing(port, key_file, env_idx=1) as one, playing(port, key_file) as other:
            one.reset(), other.reset(), other.reset()
            assert (first.asked.count("reset"), second.asked.count("reset")) == (2, 1)
            with pytest.raises(DeadlineExceeded, match="2 are there, and 2 in use"):
                from_agentgpt(port, training_key_file=key_file, open_timeout=0.2, **POLE)
        assert first.environments == second.environments == {}
        with playing(port, key_file, env_idx=1) as one:
            one.reset()
        with pytest.raises(DeadlineExceeded, match="env_idx 7"):
            from_agentgpt(port, training_key_file=key_file, env_idx=7, open_timeout=0.2, **POLE)


def test_a_host_may_come_later(port, key_file):
    started: list[Any] = []
    timer = threading.Timer(0.3, lambda: started.append(stack.enter_context(hosting(port, KEY))))
    with contextlib.ExitStack() as stack:
        timer.start()
        with playing(port, key_file) as environment:
            environment.reset()
        timer.join()


def test_a_stranger_is_let_in_by_the_key_alone(port, key_file, monkeypatch):
    monkeypatch.setattr(agentgpt_hub, "INIT_TIMEOUT", 0.3)
    key = json.dumps({"action": "init", "training_key": "another key", "data": {"env_idx": 0}})
    firsts = [key, "{}", "[]", "no JSON", b"\x00", json.dumps({"action": "init", "training_key": [1]}), None]
    firsts += [
        json.dumps({"action": "init", "training_key": KEY, "data": {"env_idx": "x"}}),
        "{" * 16_000,
        "x" * 20_000,
    ]
    for first in firsts:
        with connect(f"ws://127.0.0.1:{port}", compression=None) as connection:
            if first is not None:
                connection.send(first)
            with pytest.raises(ConnectionClosed):
                connection.recv(scaled(10.0))
    with pytest.raises(DeadlineExceeded, match="0 are there"):
        from_agentgpt(port, training_key_file=key_file, open_timeout=0.1, **POLE)


def test_a_page_of_another_site_is_refused(port):
    with pytest.raises(InvalidStatus, match="403"):
        connect(f"ws://127.0.0.1:{port}", origin="http://evil.example").__enter__()


def test_no_more_strangers_are_taken_than_there_may_be(port, key_file, monkeypatch):
    monkeypatch.setattr(agentgpt_hub, "MOST_STRANGERS", 3)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(f"ws://127.0.0.1:{port}"))
        hub = Hub._all["127.0.0.1", port]
        wait_until(lambda: hub._strangers == 3)
        with pytest.raises(InvalidStatus, match="503"):
            connect(f"ws://127.0.0.1:{port}").__enter__()
    wait_until(lambda: hub._strangers == 0)


def test_heartbeats_are_no_answers(port, key_file):
    with hosting(port, KEY) as host, playing(port, key_file) as environment:

        def change(method: str, text: str) -> str:
            host.event("event", message="alive", type="heartbeat")
            return text

        host.change = change
        environment.reset()
        host.event("event", message="alive", type="heartbeat")
        environment.step(0)


def test_a_late_answer_is_dropped_and_the_host_goes_on(port, key_file):
    release = threading.Event()

    def change(method: str, text: str) -> str:
        if method == "step" and not release.is_set():
            release.wait(scaled(20.0))
        return text

    with hosting(port, KEY, change=change) as host, playing(port, key_file, step_timeout=0.3) as environment:
        environment.reset(seed=1)
        with pytest.raises(DeadlineExceeded):
            environment.step(0)
        with pytest.raises(ResetNeeded):
            environment.step(0)
        release.set()
        local = gym.make("CartPole-v1")
        assert np.array_equal(environment.reset(seed=5)[0], local.reset(seed=5)[0])
        assert np.array_equal(environment.step(1)[0], local.step(1)[0])
        assert host.asked.count("make") == 1


def test_a_host_that_never_answers_is_let_go(port, key_file):
    def change(method: str, text: str) -> str | None:
        return None if method == "step" else text

    timeouts = {"step_timeout": 0.2, "reset_timeout": 0.3, "close_timeout": 0.3}
    with hosting(port, KEY, change=change), playing(port, key_file, open_timeout=1.0, **timeouts) as environment:
        environment.reset()
        with pytest.raises(DeadlineExceeded):
            environment.step(0)
        with pytest.raises(DeadlineExceeded):
            environment.reset()
        with pytest.raises(DeadlineExceeded, match="0 are there"):
            environment.reset()
        with hosting(port, KEY):
            environment.reset()


def test_a_host_that_goes_away_is_told_and_another_one_takes_its_place(port, key_file):
    with hosting(port, KEY) as host, playing(port, key_file) as environment:
        environment.reset()
        host.close()
        with pytest.raises(ConnectionLost, match="environment host 0"):
            environment.step(0)
        with pytest.raises(ResetNeeded):
            environment.step(0)
        with hosting(port, KEY, 3) as other:
            environment.reset()
            environment.step(0)
            assert other.asked == ["make", "observation_space", "reset", "step"]
            other.close()
            wait_until(lambda: not environment._host.conversation.is_open)
            with hosting(port, KEY, 4):  # noticed before anything is asked
                environment.reset()


def packed(value: Any) -> str:
    return base64.b64encode(msgpack.packb(value)).decode()


GOOD = {"observation": [0.0] * 4, "reward": 1.0, "terminated": False, "truncated": False, "info": {}}


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        ("\x00", ProtocolMismatch, "cannot be read"),
        ("{", ProtocolMismatch, "cannot be read"),
        (b"\xff", ProtocolMismatch, "cannot be read"),
        (base64.b64encode(b"\xdd\xff\xff\xff\xff").decode(), ProtocolMismatch, "cannot be read"),
        (base64.b64encode(b"\x81\x90\x01").decode(), ProtocolMismatch, "cannot be read"),
        (base64.b64encode(b"\x91" * 5000).decode(), ProtocolMismatch, "cannot be read"),
        (base64.b64encode(msgpack.packb(msgpack.ExtType(5, b"x"))).decode(), ProtocolMismatch, "extension"),
        (packed(None), EncodingError, "no 'reward'"),
        (packed({**GOOD, "reward": None}), EncodingError, "several agents"),
        (packed({**GOOD, "terminated": [False, None]}), EncodingError, "several agents"),
        (packed({**GOOD, "reward": "x"}), EncodingError, "expected a number"),
        (packed({**GOOD, "truncated": 3}), EncodingError, "true or false"),
        (packed({**GOOD, "observation": None}), EncodingError, "observation: expected float32 array"),
        (packed({**GOOD, "observation": [0, 1, 2, None]}), EncodingError, r"observation\[3\]: expected"),
        (packed({**GOOD, "observation": [0.0] * 5}), EncodingError, "list of length 5"),
        (packed({**GOOD, "info": [1]}), EncodingError, "expected a dict"),
        (
            json.dumps({"action": "event", "type": "error", "message": "no\x1b[31m" + "x" * 9000}),
            RemoteEnvironmentError,
            "no",
        ),
    ],
)
def test_an_answer_that_is_an_error_or_does_not_fit_is_raised_as_what_it_is(port, key_file, answer, kind, text):
    def change(method: str, right: str) -> Any:
        return answer if method == "step" else right

    with hosting(port, KEY, change=change), playing(port, key_file) as environment:
        environment.reset()
        with pytest.raises(kind, match=text) as caught:
            environment.step(0)
        assert len(str(caught.value)) < 10_000
        assert "\x1b" not in str(caught.value)
        if kind is ProtocolMismatch:
            with pytest.raises(ResetNeeded):
                environment.step(0)


def test_texts_that_stand_for_floats_are_floats(port, key_file):
    answer = packed({**GOOD, "observation": ["NaN", "Infinity", "-Infinity", 1], "reward": "NaN"})
    with (
        hosting(port, KEY, change=lambda method, right: answer if method == "step" else right),
        playing(port, key_file) as environment,
    ):
        environment.reset()
        observation, reward, *_ = environment.step(0)
        assert np.array_equal(observation, np.array([np.nan, np.inf, -np.inf, 1], np.float32), equal_nan=True)
        assert np.isnan(reward)


def test_a_message_larger_than_the_limit_ends_the_connection(key_file):
    limits = Limits(message_bytes=30_000)
    hub = Hub.join(Settings("127.0.0.1", 0, KEY.encode(), None, limits.message_bytes))
    with contextlib.ExitStack() as stack:
        stack.callback(hub.leave)
        stack.enter_context(
            hosting(hub.port, KEY, change=lambda method, right: "x" * 40_000 if method == "step" else right + " " * 0)
        )
        environment = stack.enter_context(playing(hub.port, key_file, message_limits=limits))
        environment.reset()
        with pytest.raises(ConnectionLost):
            environment.step(0)


def test_an_action_that_does_not_fit_is_not_sent(port, key_file):
    with hosting(port, KEY) as host, playing(port, key_file) as environment:
        environment.reset()
        with pytest.raises(InvalidAction, match="expected an integer"):
            environment.step("x")
        assert "step" not in host.asked


def test_what_the_environment_raises_is_told_and_it_goes_on(port, key_file):
    with hosting(port, KEY), playing(port, key_file) as environment:
        environment.reset()
        with pytest.raises(RemoteEnvironmentError, match="Internal server error"):
            environment.step(7)
        environment.step(1)
    with hosting(port, KEY), pytest.raises(RemoteEnvironmentError, match="Nothing"):
        from_agentgpt(port, training_key_file=key_file, **{**POLE, "env_id": "Nothing-v0"})


def test_a_space_that_a_host_cannot_describe_is_asked_for(port, key_file):
    with hosting(port, KEY), pytest.raises(EncodingError, match="give action_space"):
        from_agentgpt(port, training_key_file=key_file, env_id="CartPole-v1")


def test_hosts_dial_in_by_tls(certificates, key_file):
    tls = TlsFiles(certificate=certificates.server, private_key=certificates.server_key)
    hub = Hub.join(Settings("localhost", 0, KEY.encode(), tls, Limits().message_bytes))
    context = ssl.create_default_context(cafile=certificates.ca)
    try:
        with (
            hosting(hub.port, KEY, scheme="wss", ssl=context, origin=None),
            playing(hub.port, key_file, host="localhost", tls=tls) as environment,
        ):
            environment.reset()
            environment.step(0)
        with socket.create_connection(("localhost", hub.port), scaled(10.0)) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert b"101" not in plain.recv(100)
    finally:
        hub.leave()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"host": "0.0.0.0"}, "other machines"),
        ({"port": -1}, "from 0 to 65535"),
        ({"port": "1"}, "from 0 to 65535"),
        ({"env_id": ""}, "env_id"),
        ({"training_key_file": "nowhere"}, "cannot be read"),
        ({"action_space": 3}, "a space of Gymnasium's"),
        ({"tls": TlsFiles()}, "certificate"),
        ({"step_timeot": 3}, "step_timeot"),
    ],
)
def test_arguments_that_cannot_work_are_refused(key_file, arguments, text):
    with pytest.raises(ConfigError, match=text):
        from_agentgpt(**{"port": 0, "training_key_file": key_file, **POLE, **arguments})


def test_a_file_without_a_key_is_refused(tmp_path):
    for content in ("", "short", "two\nlines of text"):
        (tmp_path / "key").write_text(content)
        with pytest.raises(ConfigError, match="holds no key"):
            from_agentgpt(0, training_key_file=tmp_path / "key", **POLE)


def test_a_port_that_is_taken_is_told(port, key_file, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(ConfigError, match="nobody can listen"):
        from_agentgpt(listener.getsockname()[1], training_key_file=key_file, **POLE)
    (tmp_path / "other").write_text("another training key")
    with pytest.raises(ConfigError, match="another key"):
        from_agentgpt(port, training_key_file=tmp_path / "other", **POLE)


def test_closing_again_does_nothing_and_a_reset_after_it_is_refused(port, key_file):
    with hosting(port, KEY), playing(port, key_file) as environment:
        environment.close()
        environment.close()
        with pytest.raises(ResetNeeded, match="closed"):
            environment.reset()


def test_it_can_be_put_behind_a_server_of_ours(port, key_file, tmp_path):
    entrypoint = tmp_path / "entrypoint.py"
    entrypoint.write_text(
        "import remote_gym\nfrom gymnasium import spaces\n\ndef create_environment():\n"
        f"    return remote_gym.from_agentgpt({port}, env_id='CartPole-v1', training_key_file={str(key_file)!r}, "
        "action_space=spaces.Discrete(2))\n"
    )
    local = gym.make("CartPole-v1")
    with (
        hosting(port, KEY),
        create_remote_environment_server(str(entrypoint), port=0, use_thread=True, check=False) as server,
        contextlib.closing(RemoteEnvironment(port=server.port)) as environment,
    ):
        assert np.array_equal(environment.reset(seed=5)[0], local.reset(seed=5)[0])
        assert np.array_equal(environment.step(1)[0], local.step(1)[0])


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.integers(0, 9), inner, max_size=4)
    ),
)
SMALL = Limits(items=1000, array_bytes=1000, depth=6)


@given(data=st.binary(max_size=60) | st.builds(lambda value: msgpack.packb(value), VALUES))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_an_answer_or_are_refused(data):
    for message in (data, base64.b64encode(data).decode()):
        with contextlib.suppress(ProtocolMismatch, RemoteEnvironmentError):
            unpack("step", message, SMALL)


KINDS = st.sampled_from(
    ["Box", "Discrete", "MultiDiscrete", "MultiBinary", "Text", "Dict", "Tuple", "float32", "int64"]
)
NAMES = st.sampled_from(["type", "n", "nvec", "start", "shape", "dtype", "low", "high", "spaces", "max_length"])


@given(
    description=st.recursive(
        VALUES | KINDS | st.integers(-1, 3),
        lambda inner: st.dictionaries(NAMES, inner, max_size=6) | st.lists(inner, max_size=3),
        max_leaves=20,
    )
)
@settings(max_examples=100, deadline=None)
def test_any_description_is_a_space_or_is_refused(description):
    with contextlib.suppress(EncodingError):
        assert isinstance(space_of(description, "action", SMALL), gym.Space)


def test_lengths_that_are_not_there_take_no_memory_and_no_time():
    claims = base64.b64encode(b"\xdd\x00\x0f\x00\x00" * 500 + bytes(2**20)).decode()
    begin = time.monotonic()
    with pytest.raises(ProtocolMismatch):
        unpack("step", claims, Limits())
    assert time.monotonic() - begin < scaled(10.0)


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ({"type": "Discrete", "n": 3}, spaces.Discrete(3)),
        ({"type": "Discrete", "n": 3, "start": -1}, spaces.Discrete(3, start=-1)),
        ({"type": "MultiDiscrete", "nvec": [2, 3], "start": [0, 0]}, spaces.MultiDiscrete([2, 3])),
        ({"type": "MultiBinary", "n": 3}, spaces.MultiBinary(3)),
        ({"type": "MultiBinary", "n": [2, 2]}, spaces.MultiBinary([2, 2])),
        (
            {"type": "Box", "low": ["-Infinity", 0], "high": ["Infinity", 1], "shape": [2], "dtype": "float32"},
            spaces.Box(np.array([-np.inf, 0], np.float32), np.array([np.inf, 1], np.float32)),
        ),
        (
            {"type": "Tuple", "spaces": [{"type": "Text", "max_length": 3}, {"type": "Discrete", "n": 2}]},
            spaces.Tuple([spaces.Text(3), spaces.Discrete(2)]),
        ),
        ({"type": "Dict", "spaces": {"a": {"type": "Discrete", "n": 2}}}, spaces.Dict({"a": spaces.Discrete(2)})),
    ],
)
def test_spaces_are_those_that_are_described(description, expected):
    assert space_of(description, "action", Limits()) == expected
