"""Logging of this package: escaped where it is said, counted where it repeats, formatted for people or programs."""

from remote_gym.logs.escaping import printable
from remote_gym.logs.formatters import JsonFormatter, TextFormatter
from remote_gym.logs.logger import Logger, get_logger
from remote_gym.logs.repeats import flush, host_of

__all__ = ["JsonFormatter", "Logger", "TextFormatter", "flush", "get_logger", "host_of", "printable"]
