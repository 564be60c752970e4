"""Host Gymnasium environments on one machine and use them from another as if they were local."""

from __future__ import annotations
