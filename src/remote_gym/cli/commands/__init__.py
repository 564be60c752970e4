"""The commands, a module for each: named as the function that `remote_gym.cli` imports when it is asked for."""
