"""A provider for OpenEnv's clients that starts a server of ours in place of a container; needs none of our packages."""

from __future__ import annotations

import subprocess
import time
import urllib.request


class Started:
    """What their ``from_docker_image`` starts and stops.

    Args:
        python: Of the environment that remote_gym is installed in.
    """

    def __init__(self, python: str) -> None:
        self._python = python

    def start_container(self, image: str, port: int | None = None, env_vars: object = None, **kwargs: object) -> str:
        """Serve an environment, which the image names.

        Returns:
            Its address.
        """
        command = [self._python, "-m", "remote_gym", "serve", image, "--port", str(port or 0)]
        command += ["--http", "--http-root", "openenv", "--thread"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in self._process.stdout:
            if line.startswith("Listens on: "):
                return f"http://{line.split()[-1]}"
        raise RuntimeError("the server did not start")

    def wait_for_ready(self, base_url: str, timeout_s: float = 30.0) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                with urllib.request.urlopen(f"{base_url}/health", timeout=2.0) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def stop_container(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.stdout.close()
        self._process.wait(20.0)
