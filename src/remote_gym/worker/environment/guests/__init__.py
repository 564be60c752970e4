"""Environments in another Python: its process, the messages to it and back, and what the host has in their place."""
