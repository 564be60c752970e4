"""Starts AgentGPT's own environment hosts: runs where that is installed, and they serve until the trainer hangs up."""

from __future__ import annotations

import sys

from agent_gpt.env_host.server import EnvServer

if __name__ == "__main__":
    url, key, env_id, count = sys.argv[1:]
    hosts = [EnvServer.launch(key, url, "gym", env_id, index, 1) for index in range(int(count))]
    print("there", flush=True)
    for host in hosts:
        host.server_thread.join()
