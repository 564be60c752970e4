"""Options of hubs."""

from __future__ import annotations

from dataclasses import dataclass

from remote_gym.config.names import check_fields, names_checked
from remote_gym.validation import check_integer, check_seconds


@names_checked
@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """How a hub behaves. In parentheses: the default and its unit.

    Attributes:
        max_servers (256): Servers that may be registered at once.
        max_connections (4096): Connections of clients that one server may have through the hub at once, half of them
            from one address.
        max_rate (None, or bytes/s): Bytes that all connections of one server may carry in a second, both directions
            together. They are slowed down to it, not ended. None: any number.
        max_pending (256): Connections that have not yet said what they are; one more takes the place of the oldest of
            the address that has most. And as many clients at once may wait for one server to dial back.
        dial_timeout (5.0 s): How long a server may take to dial back for a client.
    """

    max_servers: int = 256
    max_connections: int = 4096
    max_rate: int | None = None
    max_pending: int = 256
    dial_timeout: float = 5.0

    def __post_init__(self) -> None:
        check_fields(check_integer, self, "max_servers", "max_pending", lowest=1, highest=1_000_000)
        check_fields(check_integer, self, "max_connections", lowest=2, highest=1_000_000)
        if self.max_rate is not None:
            check_fields(check_integer, self, "max_rate", lowest=2**14, highest=2**40, unit="bytes")
        check_fields(check_seconds, self, "dial_timeout", lowest=0.1)
