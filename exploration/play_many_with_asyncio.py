"""Play episodes in many environments at once, at random, in one event loop and one thread.

The server is the one that start_remote_environment.py starts, or any other. For mutual TLS give ``--certificates``, the
folder that ``remote-gym certs init`` makes.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from remote_gym import AsyncRemoteEnvironment, SessionLost, TlsFiles


async def play(number: int, arguments: argparse.Namespace) -> tuple[int, float]:
    """Play one episode in an environment of its own; how many steps it took, and the sum of the rewards."""
    files = TlsFiles.from_folder(arguments.certificates, "client") if arguments.certificates else None
    async with AsyncRemoteEnvironment(arguments.url, arguments.port, tls=files) as environment:
        await environment.reset(seed=number)  # opens the session, too
        steps, total, over = 0, 0.0, False
        while not over:
            action = environment.action_space.sample()  # where an agent would await its language model
            _, reward, terminated, truncated, _ = await environment.step(action)
            steps, total, over = steps + 1, total + reward, terminated or truncated
        return steps, total


async def main(arguments: argparse.Namespace) -> None:
    """Play them all, and say how it went."""
    begun = time.perf_counter()
    playing = (play(number, arguments) for number in range(arguments.environments))
    episodes = await asyncio.gather(*playing, return_exceptions=True)
    played = [each for each in episodes if isinstance(each, tuple)]
    lost = sum(isinstance(each, SessionLost) for each in episodes)
    others = [each for each in episodes if isinstance(each, BaseException) and not isinstance(each, SessionLost)]
    if others:
        raise others[0]
    steps = sum(each for each, _ in played)
    mean = sum(total for _, total in played) / max(1, len(played))
    seconds = time.perf_counter() - begun
    print(f"{len(played)} episodes, {lost} lost, {steps} steps in {seconds:.1f} s, mean return {mean:g}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-u", "--url", default="localhost", help="name or address of the server")
    parser.add_argument("-p", "--port", type=int, default=56789)
    parser.add_argument("--certificates", help="folder with ca.pem, client.pem and client-key.pem")
    parser.add_argument("--environments", type=int, default=16, help="that are played at once")
    asyncio.run(main(parser.parse_args()))
