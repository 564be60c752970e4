"""The client of remote-gym 0.7.3, unchanged, with the versions of its dependencies that still work."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("dm_env_rpc", reason="needs dm-env-rpc: pip install 'remote-gym[dm-env-rpc]'")

import installations
from catalogue import PREDECESSOR
from remote_gym import TlsFiles, create_remote_environment_server
from remote_gym.certs import create_all
from waiting import scaled

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

ENTRYPOINT = """
import gymnasium as gym

class Seeded(gym.Wrapper):
    def reset(self, *, seed=None, options=None):
        return self.env.reset(seed=5, options=options)  # which that client cannot send

def create_environment(limit=500, render_mode=None):
    return Seeded(gym.make("CartPole-v1", max_episode_steps=limit, render_mode=render_mode))
"""
PLAY = """
import json, pickle, sys
from remote_gym import RemoteEnvironment

address, paths, file = json.loads(sys.argv[1])
url, port = address.rsplit(":", 1)
arguments = {"entrypoint_kwargs": {"limit": 30, "render_mode": "rgb_array"}}
environment = RemoteEnvironment(url, int(port), arguments, tuple(paths) if paths else None, "rgb_array")
lines = [str(environment.action_space), list(environment.observation_space.shape)]
for _ in range(3):
    observation, info = environment.reset()
    lines.append([observation.tolist(), list(environment.render().shape)])
    ended = False
    while not ended:
        observation, reward, terminated, truncated, info = environment.step(len(lines) % 2)
        lines.append([observation.tolist(), reward, terminated, truncated])
        ended = terminated or truncated
environment = pickle.loads(pickle.dumps(environment))
environment.reset()
environment.close()
json.dump(lines, open(file, "w"))
"""


@pytest.mark.parametrize("is_secure", [False, True], ids=["local", "mTLS"])
def test_it_plays_and_gets_what_a_local_environment_gives(tmp_path: Path, is_secure: bool):
    if reasons := installations.install([PREDECESSOR]):
        pytest.skip(f"remote-gym 0.7.3 cannot be installed: {reasons}")
    (tmp_path / "entrypoint.py").write_text(ENTRYPOINT)
    (tmp_path / "play.py").write_text(PLAY)
    files = create_all(tmp_path / "c", ["localhost"])
    paths = [files.ca.certificate, files.client.certificate, files.client.private_key] if is_secure else []
    options = {"tls": TlsFiles.from_folder(tmp_path / "c", "server")} if is_secure else {}
    with create_remote_environment_server(
        str(tmp_path / "entrypoint.py"), port=0, dm_env_rpc=True, **options
    ) as server:
        told = json.dumps([server.address, list(map(str, paths)), str(tmp_path / "played.json")])
        command = [str(PREDECESSOR.python), "play.py", told]
        subprocess.run(command, check=True, timeout=scaled(300), cwd=tmp_path)
    space, shape, *lines = json.loads((tmp_path / "played.json").read_text())
    assert (space, shape) == ("Discrete(2)", [4])
    local = gym.make("CartPole-v1", max_episode_steps=30)
    count = 2
    for line in lines:
        if isinstance(line[1], list):
            observation, _ = local.reset(seed=5)
            assert line[1] == [400, 600, 3]
        else:
            observation, *others, _ = local.step(count % 2)
            assert line[1:] == others
        assert np.array_equal(np.array(line[0], np.float32), observation)
        count += 1
    assert count > 50
