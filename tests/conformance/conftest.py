from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def tests_folder() -> Path:
    """Where `environments.py` is, which a server looks for in its working directory."""
    return Path(__file__).parents[1]
