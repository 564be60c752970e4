"""``python -m remote_gym``, the same as ``remote-gym``."""

from remote_gym.cli import program

program()
