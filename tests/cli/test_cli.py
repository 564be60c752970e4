"""The command line: in this process where it parses and prints, as a process where it serves."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import psutil
import pytest
from click.testing import CliRunner
from cryptography import x509

from environments import ACTION
from leftovers import left_in
from remote_gym import RemoteEnvironment
from remote_gym.cli import main
from remote_gym.cli.options import parse_size
from remote_gym.errors import RemoteGymError, ServerFull, SessionLost
from remote_gym.play import play_episodes
from remote_gym.server.create import create_remote_environment_server
from waiting import scaled, wait_until

ROOT = Path(__file__).resolve().parents[2]
CARTPOLE = {"entrypoint_kwargs": {"id": "CartPole-v1"}}
STOP_TIMEOUT = 20.0


def run(*arguments, status=0):
    """What a command prints, once it has ended with that exit status."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.output


@pytest.fixture(scope="module")
def plain_port():
    with create_remote_environment_server(CARTPOLE, port=0) as server:
        yield server.port


@pytest.fixture(scope="module")
def server_options(certificates):
    return ("--certificate", certificates.server, "--key", certificates.server_key, "--ca", certificates.ca)


@pytest.fixture(scope="module")
def client_options(certificates):
    return ("--certificate", certificates.client, "--key", certificates.client_key, "--ca", certificates.ca)


@contextlib.contextmanager
def serving(*arguments, cwd=None, env=None):
    """Run ``remote-gym serve`` as a process; gives the process and what it printed when it was ready.

    Where no test looks at workers it is told ``--thread``, since a process for them takes longer than most of a test.
    """
    command = [sys.executable, "-m", "remote_gym", "serve", *map(str, arguments)]
    environment = {**os.environ, **(env or {})}
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        printed = ""
        while "RemoteEnvironment(" not in printed:
            line = process.stdout.readline()
            assert line, f"{printed}{process.stderr.read()}"
            printed += line
        yield process, printed
    finally:
        process.kill()
        process.communicate(timeout=scaled(STOP_TIMEOUT))


def port_of(printed):
    return int(re.search(r"^Listens on: .*:(\d+)$", printed, re.MULTILINE)[1])


# ------------------------------------------------------------------------------------------------------------


def test_help_names_the_commands():
    printed = run("--help")
    for command in ("demo", "serve", "play", "certs", "doctor", "conformance"):
        assert re.search(rf"^  {command} ", printed, re.MULTILINE)
        assert "Usage" in run(command, "--help")


def test_unknown_command_is_refused():
    assert "No such command 'sevre'" in run("sevre", status=2)


def test_module_is_the_command():
    command = [sys.executable, "-m", "remote_gym", "--version"]
    printed = subprocess.run(command, check=True, timeout=scaled(60), stdout=subprocess.PIPE, text=True).stdout
    assert re.fullmatch(r"remote-gym, version \d+\.\d+\.\d+(\.dev\d+)?\n", printed)


# ------------------------------------------------------------------------------------------------------- certs


def hosts_of(path):
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def test_certs_init_makes_all(tmp_path):
    printed = run("certs", "init", tmp_path / "new", "--host", "server.example.com", "--host", "10.0.0.7")
    names = {"ca.pem", "ca-key.pem", "server.pem", "server-key.pem", "client.pem", "client-key.pem"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names
    assert all(str(tmp_path / "new" / name) in printed for name in names)
    assert hosts_of(tmp_path / "new" / "server.pem") == ["server.example.com", "10.0.0.7"]


def test_certs_init_keeps_what_is_there_unless_forced(tmp_path):
    run("certs", "init", tmp_path)
    before = (tmp_path / "ca.pem").read_bytes()
    assert "--force" in run("certs", "init", tmp_path, status=1)
    assert (tmp_path / "ca.pem").read_bytes() == before
    run("certs", "init", tmp_path, "--force")
    assert (tmp_path / "ca.pem").read_bytes() != before


def test_a_request_makes_files_of_its_own_name_from_the_authority_that_init_has_made(tmp_path, monkeypatch):
    run("certs", "init", tmp_path / "certificates")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "certificates" / "bob.json").write_text('{"hosts": ["bob"], "key": {"algo": "ecdsa", "size": 256}}')
    told = run("certs", "client", "certificates/bob.json", status=1)
    assert "there is no authority ca.pem; give the folder that has it, such as --directory certificates" in told
    monkeypatch.chdir(tmp_path / "certificates")
    printed = run("certs", "client", "bob.json")
    assert "bob.pem, bob-key.pem" in printed
    assert hosts_of(Path("bob.pem")) == ["bob"]
    csr = ROOT / "ssl" / "client-csr.json"
    assert "another directory or name" in run("certs", "client", csr, status=1)  # `init` has made client.pem
    run("certs", "client", csr, "--host", "carol", "--name", "carol")
    assert hosts_of(Path("carol.pem")) == ["carol"]


def test_three_commands_make_certificates_that_work(tmp_path, monkeypatch):
    requests = ROOT / "ssl"
    monkeypatch.chdir(tmp_path)
    config = ("--config", requests / "ca-config.json")
    run("certs", "ca", requests / "ca-csr.json")
    run("certs", "server", requests / "server-csr.json", *config, "--profile", "server", "--host", "localhost")
    run("certs", "client", requests / "client-csr.json", *config, "--profile", "client", "--name", "alice")
    assert hosts_of(tmp_path / "server.pem") == ["localhost"]
    with create_remote_environment_server(
        CARTPOLE, port=0, server_credentials_paths=("server.pem", "server-key.pem", "ca.pem")
    ) as server:
        files = ("--ca", "ca.pem", "--certificate", "alice.pem", "--key", "alice-key.pem")
        run("doctor", f"localhost:{server.port}", *files)


@pytest.mark.parametrize("role", ["server", "client"])
def test_certificate_is_good_for_its_role_without_a_config(role, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("certs", "ca", ROOT / "ssl" / "ca-csr.json", "--name", "root", "--directory", "keys")
    run("certs", role, ROOT / "ssl" / f"{role}-csr.json", "--ca", "keys/root.pem")
    certificate = x509.load_pem_x509_certificate(Path(f"{role}.pem").read_bytes())
    [usage] = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert usage._name == f"{role}Auth"


# ------------------------------------------------------------------------------------------------------- serve


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Say what to serve"),
        (("CartPole-v1", "--entrypoint", "env.py"), "either an ID or --entrypoint"),
        (("CartPole-v1", "--repo", "somewhere"), "need --entrypoint"),
        (("--kwargs", "{}", "--environment", "easy"), "use NAME=ID or NAME=FILE.py"),
        (("--kwargs", '{"a": 1}', "--environment", "easy=CartPole-v1"), "--kwargs needs"),
        (("CartPole-v1", "--kwargs", "{a}"), "is not JSON"),
        (("CartPole-v1", "--kwargs", "[1]"), "is not a JSON object"),
        (("CartPole-v1", "--ca", "missing.pem"), "does not exist"),
        (("CartPole-v1", "--url", "0.0.0.0", "--port", "0"), "accept it by --allow-insecure"),
        (("CartPol-v1",), "Did you mean: `CartPole`?"),
        (("CartPole-v9",), "doesn't exist"),
        (("--environment", "pong=NoSuch/Pong-v5"), "by --import"),
        (("--environment", "easy=nosuch-v0"), "Error: --environment 'easy' cannot be served: "),
        (("--environment", "easy=missing.py"), "Error: --environment 'easy' cannot be served: "),
        (("--environment", "easy"), "Error: --environment is 'easy'; use NAME=ID"),
        (("--entrypoint", "missing.py"), "does not exist below"),
        (("--entrypoint", "/nowhere/outside.py"), "'/nowhere/outside.py' does not exist"),
        (("--environment", "one=broken.py"), "is not Python"),
        (("CartPole-v1", "--lease", "0"), "--lease"),
        (("CartPole-v1", "--interpreter", "no-such-python"), "--interpreter is 'no-such-python'"),
        (("CartPole-v1", "--allow", "alice"), "--allow: 'alice' is no identity"),
        (("CartPole-v1", "--allow", "DNS:alice=hard"), "--allow: 'DNS:alice=hard': there is no environment 'hard'"),
        (("CartPole-v1", "--policy", "broken.py"), "broken.py is not TOML"),
    ],
)
def test_serve_refuses_what_cannot_work(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("def create_environment(:\n")
    result = CliRunner().invoke(main, ["serve", *arguments])
    assert result.exit_code in (1, 2)
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("id_", ["CartPole", "gymnasium.envs.classic_control:CartPole-v1"])
def test_serve_takes_every_id_that_gymnasium_takes(id_):
    with serving(id_, "--port", "0", "--thread") as (_, printed):
        assert "✗" not in run("doctor", f"localhost:{port_of(printed)}", "--connection", "grpc")


def test_options_of_the_server_have_flags():
    options = ("--lease", "90.5", "--no-direct", "--max-sessions", "1", "--thread")
    with serving("CartPole-v1", "--port", "0", *options) as (_, printed):
        assert "Direct" not in printed
        address = ("localhost", port_of(printed))
        first = RemoteEnvironment(*address)
        first.reset()
        with pytest.raises(ServerFull):
            RemoteEnvironment(*address)
        assert first._session._session.lease == 90.5
        assert not first._session._session.HasField("direct")
        first.close()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by Linux's /proc")
def test_what_workers_may_do_has_flags_and_what_they_did_is_told():
    step_timeout = f"{scaled(0.5):g}"
    limits = (
        "--step-timeout",
        step_timeout,
        "--memory-limit",
        "1.5GiB",
        "--rlimit",
        "nofile=128",
        "--rlimit",
        "as=64 GiB",
    )
    arguments = ("--entrypoint", "environments.py", "--port", "0", *limits)
    with serving(*arguments, cwd=ROOT / "tests") as (process, printed):
        with contextlib.closing(RemoteEnvironment("localhost", port_of(printed))) as environment:
            pid = environment.reset()[1]["pid"]
            for _ in range(3):
                environment.step(ACTION["step"])
            lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
            found = {line[:26].rstrip(): line[26:].split()[:2] for line in lines}
            assert found["Max open files"] == ["128"] * 2
            assert found["Max address space"] == [str(64 * 2**30)] * 2
            process.send_signal(signal.SIGUSR1)
            told = [process.stdout.readline() for _ in range(3)]  # after an empty line
            who = rf"  {environment._session.id} of an anonymous client \(direct\)"
            assert told[1] == "Sessions: 1\n"
            assert re.fullmatch(rf"{who}: 3 steps, 0 episodes, \S+ s of work; idle for \S+ s\n", told[2])
            with pytest.raises(SessionLost, match=f"its step took over {step_timeout} s"):
                environment.step(ACTION["hang"])


@pytest.mark.parametrize(
    ("text", "size"), [("1500", 1500), ("2GiB", 2**31), ("1.5 gib", 3 * 2**29), ("3 MB", 3 * 10**6), ("7kB", 7000)]
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "2GiBs", "-1", "1e9", "MiB"])
def test_what_is_no_size(text):
    for flag, value in (("--memory-limit", text), ("--rlimit", f"nofile={text}")):
        assert "is no size; use" in " ".join(run("serve", "CartPole-v1", flag, value, status=2).split())


def test_a_port_of_grpc_alone_is_told_and_used():
    with serving("CartPole-v1", "--port", "0", "--grpc-port", "0") as (_, printed):
        grpc_port = int(re.search(r"^gRPC alone: port (\d+)$", printed, re.MULTILINE)[1])
        for port, connection in itertools.product((grpc_port, port_of(printed)), ("grpc", "direct")):
            with contextlib.closing(RemoteEnvironment("localhost", port, connection=connection)) as environment:
                environment.reset()
                assert environment._session._session.direct.port == port_of(printed)


def test_serve_lets_in_whom_the_flags_and_the_file_name_and_nobody_else(server_options, client_options, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text('[allow."DNS:remote-gym-client"]\nenvironments = ["easy"]\n')
    offer = ("CartPole-v1", "--environment", "easy=CartPole-v1", "--port", "0", "--thread", *server_options)
    with serving(*offer, "--policy", policy, "--allow", "DNS:alice", "--allow", "URI:lab/*=easy") as (_, printed):
        assert "only whom --allow or --policy names" in printed
        address = f"localhost:{port_of(printed)}"
        said = run("doctor", address, *client_options, status=1)
        assert "does not let 'DNS:remote-gym-client' open environment 'default'; it may open: easy" in said
        assert "✗" not in run("doctor", address, *client_options, "--environment", "easy")


def test_clients_entrypoints_alone_can_be_served(tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "env.py").write_text(
        "import gymnasium\ndef create_environment():\n    return gymnasium.make('CartPole-v1')\n"
    )
    with serving("--client-entrypoints", "ours", "--port", "0", "--thread", cwd=tmp_path) as (_, printed):
        assert "Serves: any entrypoint below ours" in printed
        arguments = {"entrypoint": "env.py"}
        with contextlib.closing(RemoteEnvironment("localhost", port_of(printed), arguments)) as environment:
            environment.reset()


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_server_and_workers(signal_number):
    with serving("CartPole-v1", "--port", "0") as (process, printed):
        environment = gym.make("remote_gym/Remote-v0", port=port_of(printed), close_timeout=scaled(0.5))
        environment.reset()
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) >= 2  # the forkserver, and one worker
        process.send_signal(signal_number)
        output, log = process.communicate(timeout=scaled(STOP_TIMEOUT))
        assert process.returncode == 0, log
        assert output.endswith("Stopped.\n")
        assert "Traceback" not in log
        wait_until(lambda: not any(worker.is_running() for worker in workers))
        with contextlib.suppress(RemoteGymError):
            environment.close()


def test_printed_lines_connect(server_options, certificates, tmp_path):
    # Every address of the machine: whoever connects needs a name that the certificate holds.
    with serving("CartPole-v1", "--port", "0", "--url", "0.0.0.0", "--thread", *server_options) as (_, printed):
        assert f"Open to: clients with a certificate from {certificates.ca}" in printed
        lines = [line.strip() for line in printed.splitlines() if line.startswith("    ")]
        script = "\n".join([*lines, "environment.reset(seed=1)", "environment.close()"])
        subprocess.run([sys.executable, "-c", script], check=True, timeout=scaled(60), cwd=tmp_path)


def test_named_environments_are_told_and_served(tmp_path):
    (tmp_path / "env.py").write_text(
        "import gymnasium\ndef create_environment(length):\n    return gymnasium.make('CartPole-v1', "
        "max_episode_steps=length)\n"
    )
    arguments = ("--environment", "poles=CartPole-v1", "--environment", "short=env.py", "--port", "0", "--thread")
    with serving(*arguments, cwd=tmp_path) as (_, printed):
        assert "Serves: poles, short" in printed
        assert 'remote_args={"environment": "poles"}' in printed
        address = f"localhost:{port_of(printed)}"
        played = run("play", address, "--environment", "short", "--kwargs", '{"length": 3}', "--episodes", 2)
        assert re.findall(r"in (\d+) steps", played) == ["3", "3"]


def test_entrypoint_is_served_with_its_arguments(tmp_path):
    (tmp_path / "env.py").write_text(
        "import gymnasium\ndef create_environment(id):\n    return gymnasium.make(id, max_episode_steps=4)\n"
    )
    arguments = ("--entrypoint", "env.py", "--kwargs", '{"id": "MountainCar-v0"}', "--port", "0", "--thread")
    with serving(*arguments, cwd=tmp_path) as (_, printed):
        assert "return -4 in 4 steps" in run("play", f"localhost:{port_of(printed)}", "--episodes", 1)


def test_import_registers_environments(tmp_path):
    (tmp_path / "ours.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Ours-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=2)\n"
    )
    with serving("Ours-v0", "--import", "ours", "--port", "0", "--thread", cwd=tmp_path) as (_, printed):
        assert "in 2 steps" in run("play", f"localhost:{port_of(printed)}", "--episodes", 1)


# -------------------------------------------------------------------------------------------------------- play


def test_play_is_played_as_it_would_be_locally(plain_port):
    with contextlib.closing(gym.make("CartPole-v1")) as local:
        expected = [episode.total_reward for episode in play_episodes(local, 3, seed=5)]
    printed = run("play", f"localhost:{plain_port}", "--episodes", 3, "--seed", 5)
    assert [float(total) for total in re.findall(r"return (\S+) in", printed)] == expected


def test_play_follows_a_policy(plain_port, tmp_path, monkeypatch):
    (tmp_path / "steady_of_this_test.py").write_text("def act(observation):\n    return int(observation[2] > 0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    address, policy = f"localhost:{plain_port}", "steady_of_this_test:act"
    played = [run("play", address, "--episodes", 1, "--seed", 3, "--policy", policy) for _ in range(2)]
    with contextlib.closing(gym.make("CartPole-v1")) as local:
        [expected] = play_episodes(local, 1, seed=3, policy=lambda observation: int(observation[2] > 0))
    for printed in played:
        assert f"return {expected.total_reward:g} in" in printed


@pytest.mark.parametrize("ending", ["gif", "mp4"])
def test_play_records(ending, plain_port, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / f"episode.{ending}"
    assert str(path) in run("play", f"localhost:{plain_port}", "--episodes", 1, "--record", path)
    assert path.stat().st_size > 1000


def test_play_asks_for_the_encodings_it_was_told(plain_port, monkeypatch):
    made = []

    class Spied(RemoteEnvironment):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self._options)

    monkeypatch.setattr("remote_gym.cli.commands.play.RemoteEnvironment", Spied)
    flags = ["--frame-encoding", "jpeg", "--observation-encoding", "zstd"]
    run("play", f"localhost:{plain_port}", "--episodes", 1, *flags)
    assert [(options.frame_encoding, options.observation_encoding) for options in made] == [("jpeg", "zstd")]
    assert "'webp' is not one of" in run("play", f"localhost:{plain_port}", "--frame-encoding", "webp", status=2)


def test_play_prints_no_bar_where_nobody_looks(plain_port):
    assert run("play", f"localhost:{plain_port}", "--episodes", 1).startswith("Episode 1: return ")


def test_play_names_a_policy_that_raises(plain_port, tmp_path, monkeypatch):
    (tmp_path / "failing_of_this_test.py").write_text("def act(observation):\n    raise KeyError('gone')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    printed = run("play", f"localhost:{plain_port}", "--policy", "failing_of_this_test:act", status=1)
    assert "policy 'failing_of_this_test:act' raised KeyError: 'gone'" in printed
    assert "line 2" in printed


@pytest.mark.parametrize("ending", ["gif", "mp4"])
def test_interrupted_play_tells_what_was_played_and_finishes_its_recording(ending, plain_port, tmp_path, monkeypatch):
    imageio = pytest.importorskip("imageio.v2")
    # The policy says when it has come to the second episode, and then waits to be interrupted.
    (tmp_path / "agent.py").write_text(
        "import sys, time\n"
        "def act(observation):\n"
        "    calls = act.__dict__.setdefault('calls', [])\n"
        "    calls.append(observation)\n"
        "    if len(calls) == 40:\n"
        "        print('ready', file=sys.stderr, flush=True)\n"
        "        time.sleep(60)\n"
        "    return 0\n"
    )
    command = [sys.executable, "-m", "remote_gym", "play", f"localhost:{plain_port}", "--policy", "agent:act"]
    process = subprocess.Popen(
        [*command, "--record", f"a.{ending}"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while "ready" not in (line := process.stderr.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        printed, log = process.communicate(timeout=scaled(STOP_TIMEOUT))
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, log
    assert printed.startswith("Episode 1: return ")
    assert re.search(r"Interrupted after \d of 10 episodes\.\n$", printed)
    assert "Traceback" not in log
    # Else imageio runs Python code in a fork of this process, in which gRPC has threads.
    monkeypatch.setenv("IMAGEIO_FFMPEG_NO_PREVENT_SIGINT", "1")
    with imageio.get_reader(tmp_path / f"a.{ending}") as reader:
        assert reader.get_data(30).any()


def test_play_says_what_is_wrong(plain_port, tmp_path):
    assert "use HOST:PORT" in run("play", "localhost", status=1)
    assert "no environment 'hard'" in run("play", f"localhost:{plain_port}", "--environment", "hard", status=1)
    both = ("--record", tmp_path / "a.gif", "--render-mode", "human")
    assert "--record takes frames" in run("play", f"localhost:{plain_port}", *both, status=2)


# ------------------------------------------------------------------------------------------------------ doctor


def test_doctor_ticks_what_works(plain_port):
    printed = run("doctor", f"localhost:{plain_port}")
    assert "✗" not in printed
    steps = [line[2:].partition(":")[0] for line in printed.splitlines()]
    assert steps[-5:] == ["protocol", "session", "reset", "step", "direct connection"]


def test_doctor_crosses_what_does_not_and_names_the_mend(plain_port, client_options):
    printed = run("doctor", f"localhost:{plain_port}", *client_options, status=1)
    assert (
        "✗ TLS: the server does not speak TLS\n  → connect without certificates, or have the server serve TLS"
        in printed
    )
    assert "credentials_paths" not in printed


def test_doctor_is_content_where_only_the_fast_path_is_missing():
    with create_remote_environment_server(CARTPOLE, port=0, direct=False, use_thread=True) as server:
        address = f"localhost:{server.port}"
        printed = run("doctor", address)
        assert "! direct connection: " in printed
        assert "ServerOptions.direct" in printed
        assert "✗ direct connection: " in run("doctor", address, "--connection", "direct", status=1)


def test_remote_tracebacks_are_shown_when_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shy.py").write_text("def create_environment():\n    raise OSError('not today')\n")
    with create_remote_environment_server({"entrypoint": "shy.py"}, port=0, check=False, use_thread=True) as server:
        for command in ("play", "doctor"):
            short = run(command, f"localhost:{server.port}", status=1)
            assert "the environment raised builtins.OSError: not today" in short
            assert "shy.py" not in short
            assert "shy.py" in run(command, f"localhost:{server.port}", "--verbose", status=1)


# -------------------------------------------------------------------------------------------------------- demo


def demo(*arguments, cwd, **env):
    command = [sys.executable, "-m", "remote_gym", "demo", *arguments]
    result = subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, timeout=scaled(110), stdout=subprocess.PIPE, text=True, check=False
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def test_demo_plays_measures_and_records(tmp_path):
    imageio = pytest.importorskip("imageio.v2")
    printed = demo("--episodes", "2", "--seed", "0", cwd=tmp_path, TMPDIR=str(tmp_path))
    assert "mutual TLS" in printed
    steps = int(re.search(r"episodes +2 of (\d+) steps", printed)[1])
    assert 100 < steps < 400
    # Two episodes that end in success, so all steps but their last cost 1.
    assert float(re.search(r"mean return +(\S+)", printed)[1]) == -(steps - 2) / 2
    assert int(re.search(r"bytes per step +(\S+)", printed)[1].replace(",", "")) > 500 * 500 * 3
    assert "p50" in printed
    [recording] = left_in(tmp_path)  # and so nothing else is left behind
    assert str(recording) in printed
    with imageio.get_reader(recording) as reader:
        assert 50 < len(reader) < steps
        assert max(reader.get_data(0).shape) <= 320


def test_demo_plays_without_frames_what_does_not_render(tmp_path):
    (tmp_path / "blind.py").write_text(
        "import gymnasium as gym\n"
        "class Blind(gym.Env):\n"
        "    observation_space = action_space = gym.spaces.Discrete(2)\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        return 0, {}\n"
        "    def step(self, action):\n"
        "        return 0, 2.5, True, False, {}\n"
        "gym.register('Blind-v0', Blind)\n"
    )
    printed = demo("Blind-v0", "--import", "blind", "--episodes", "3", cwd=tmp_path)
    assert "mean return     2.5" in printed
    assert "No recording: Blind-v0 does not render" in printed
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".gif"] == []


def test_demo_says_what_the_server_said(tmp_path):
    command = [sys.executable, "-m", "remote_gym", "demo", "NoSuch-v3", "--episodes", "1"]
    result = subprocess.run(command, cwd=tmp_path, timeout=scaled(60), capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "NoSuch" in result.stderr
    assert "Traceback" not in result.stderr


def test_conformance_tells_of_each_check_and_compares_with_a_local_environment(plain_port, tmp_path):
    entrypoint = tmp_path / "here.py"
    entrypoint.write_text("import gymnasium as gym\n\ndef create_environment():\n    return gym.make('CartPole-v1')\n")
    chosen = ("--check", "lockstep", "--check", "fence", "--check", "lease-ends", "--steps", 20)
    for local in ("CartPole-v1", entrypoint):
        printed = run("conformance", f"localhost:{plain_port}", *chosen, "--local", local)
        assert "✓ lockstep: 20 steps" in printed
        assert "✓ fence: " in printed
        assert "- lease-ends: the lease is 60 s" in printed
        assert "2 passed, 1 not applicable" in printed


def test_conformance_fails_where_the_local_environment_is_another(plain_port):
    arguments = ("--check", "lockstep", "--local", "MountainCar-v0")
    printed = run("conformance", f"localhost:{plain_port}", *arguments, status=1)
    assert "✗ lockstep: observation_space is Box" in printed
    assert "1 failed" in printed
