"""``python -m remote_gym``, the same as ``remote-gym``."""

from remote_gym.cli import main

main(prog_name="remote-gym")
