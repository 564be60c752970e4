"""For tests, yours and ours: a server on this machine, and checks of a server and of what it serves."""

from remote_gym.testing.conformance import Outcome, Verdict, check_server, examine_server
from remote_gym.testing.lockstep import find_difference, play_in_lockstep
from remote_gym.testing.loopback import LoopbackServer, loopback_server

__all__ = [
    "LoopbackServer",
    "Outcome",
    "Verdict",
    "check_server",
    "examine_server",
    "find_difference",
    "loopback_server",
    "play_in_lockstep",
]
