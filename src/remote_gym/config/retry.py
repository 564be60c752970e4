"""How a client makes a broken connection again."""

from __future__ import annotations

from dataclasses import dataclass

from remote_gym.config.names import check_fields, names_checked
from remote_gym.errors import ConfigError
from remote_gym.validation import check_integer, check_seconds


@names_checked
@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How a client makes a broken connection again. In parentheses: the default and its unit.

    The first attempt follows a break at once. A pause precedes each further one: a random part of a time that doubles,
    so that the clients of a server that was away do not return all at once. It ends with `reconnect_timeout` if the
    server is not reached, with `attempts` if it is but what is made breaks again, and with the request's deadline.

    Attributes:
        first_pause (0.02 s): The longest that the second attempt waits.
        longest_pause (1.0 s): The longest that any attempt waits.
        attempts (10): How many connections in a row may break before they have answered, until the session is given up.
            One that stood for 5 s is not at fault: when it breaks, attempts and pauses begin anew.
    """

    first_pause: float = 0.02
    longest_pause: float = 1.0
    attempts: int = 10

    def __post_init__(self) -> None:
        check_fields(check_seconds, self, "first_pause", "longest_pause")
        if self.longest_pause < self.first_pause:
            raise ConfigError(
                f"is {self.longest_pause!r}; use at least first_pause, {self.first_pause!r}",
                field="longest_pause",
                where="RetryPolicy.longest_pause",
            )
        check_fields(check_integer, self, "attempts", lowest=1, highest=1_000_000)
