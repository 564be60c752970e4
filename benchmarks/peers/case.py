"""What is measured, and what comes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
"""Names and numbers, with the unit at the end of the name; or ``{"skipped": reason}``, ``{"failed": reason}``."""


class NotHere(Exception):
    """What a case asks for does not exist in this peer, or on this machine."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to measure.

    Attributes:
        name: Unique among the peer's cases.
        workload: Which environment; see `workloads.create`.
        num_envs: 0 for a single environment, otherwise the number in a vector.
        seconds: How long to measure; as long as a few steps take, at least.
        placement: ``"free"``, or where to pin client and server: ``"same"`` core, or ``"across"`` cores.
        rtt_ms: Round trip of the proxy between client and server, in milliseconds; None for no proxy.
        options: What this peer understands.
        certificates: Folder of ``ca.pem``, ``server.pem``, ``server-key.pem``, ``client.pem``, ``client-key.pem``.
    """

    name: str
    workload: str = "cartpole"
    num_envs: int = 0
    seconds: float = 0.6
    placement: str = "free"
    rtt_ms: float | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    certificates: str = ""

    def pem(self, name: str) -> str:
        """Path of one of the certificate files."""
        return str(Path(self.certificates) / f"{name}.pem")
