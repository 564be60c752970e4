"""What servers leave in a temporary folder."""

from __future__ import annotations

import os
from pathlib import Path

USER_FOLDER = f"remote_gym-{os.getuid()}" if hasattr(os, "getuid") else ""
"""Name of the folder that is to stay, since a name that is free is anybody's."""


def left_in(folder: Path) -> list[Path]:
    """Everything in a temporary folder, other than the user's folder itself."""
    return [path for path in [*folder.glob("*"), *folder.glob(f"{USER_FOLDER}/*")] if path.name != USER_FOLDER]
