"""A folder of this user's alone in the temporary folder, for records and sockets that no other user is to replace.

The temporary folder is everybody's: where a name of it is free again, another user can take it, and a client that
knows the name goes there. So what has an address lies below this folder, which stays when it is empty. Others may
have put one of its name there before; then it is not believed.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from remote_gym.errors import ConfigError


def user_folder() -> Path:
    """Where it is, or would be. Its path is absolute."""
    return Path(tempfile.gettempdir()).absolute() / f"remote_gym-{os.getuid()}"


def fault_of(folder: Path) -> str | None:
    """Why a folder is not this user's alone; empty if it is, None if it is not there."""
    try:
        found = folder.lstat()
    except OSError:
        return None
    if found.st_uid != os.getuid():
        return f"is another user's, of number {found.st_uid}"
    if not stat.S_ISDIR(found.st_mode):
        return "is a link" if stat.S_ISLNK(found.st_mode) else "is no folder"
    mode = stat.S_IMODE(found.st_mode)
    return f"is open to others, of mode {mode:04o}" if mode & 0o077 else ""


def make_folder(prefix: str = "") -> Path:
    """Make a folder of a name of its own below this user's.

    Args:
        prefix: Of its name.

    Raises:
        ConfigError: If the user's folder cannot be made, or is not this user's alone.
    """
    folder = user_folder()
    advice = "let TMPDIR name a folder in which one can be made that is yours alone"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror}; {advice}") from error
    if fault := fault_of(folder):
        raise ConfigError(f"{folder} {fault}, so sockets in it would not be safe; {advice}")
    return Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
