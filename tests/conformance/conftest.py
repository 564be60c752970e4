from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def tests_folder() -> Path:
    """Where `environments.py` is; an entrypoint has to be below the server's working directory."""
    return Path(__file__).parents[1]
