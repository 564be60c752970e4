"""Where the PEM files of one end lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from remote_gym.config.names import names_checked
from remote_gym.errors import ConfigError

PathLike = str | os.PathLike[str]

CERTS_VARIABLE = "REMOTE_GYM_CERTS"
"""Environment variable that the command line reads ``--certs`` from."""

HUB = "urn:remote-gym:hub"
"""URI in a hub's certificate, which opens nobody's sessions, though its usage is a client's."""

CERTS_FOLDER = "/run/remote-gym/certs"
"""Folder in a launched image's container with ``server.pem``, ``server-key.pem`` and ``ca.pem``, for
`TlsFiles.from_folder`. `CERTS_VARIABLE` names it there."""


@names_checked
@dataclass(frozen=True, kw_only=True, init=False)
class TlsFiles:
    """PEM files of one end of a TLS connection. Texts are paths, too.

    Attributes:
        ca: Certificate authority that the other end's certificate must come from. Of a client, None trusts those of the
            system; of a server, None lets any client connect.
        certificate: This end's certificate. A server needs one; a client that the server knows by a token needs none.
        private_key: Its key.
    """

    ca: Path | None
    certificate: Path | None
    private_key: Path | None

    def __init__(
        self, *, ca: PathLike | None = None, certificate: PathLike | None = None, private_key: PathLike | None = None
    ) -> None:
        for name, path in (("ca", ca), ("certificate", certificate), ("private_key", private_key)):
            if path == "" or not isinstance(path, str | os.PathLike | None):
                raise ConfigError(f"is {path!r}; use the path of a PEM file", field=name, where=f"TlsFiles.{name}")
            object.__setattr__(self, name, None if path is None else Path(path))

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str], role: Literal["client", "server", "hub"]) -> TlsFiles:
        """Take the files from a folder, under the names that ``remote-gym certs init`` gives them.

        Args:
            folder: Holds ``ca.pem`` and, for the role of client, ``client.pem`` and ``client-key.pem``: both, or
                neither where the server asks for none. A server needs all three, and so does a hub, of its own.
            role: Which end's.

        Raises:
            ConfigError: If there is no such folder, or it lacks one of them.
        """
        if role not in ("client", "server", "hub"):
            raise ConfigError(f"is {role!r}; use 'client', 'server' or 'hub'", field="role", where="role")
        if not isinstance(folder, (str, os.PathLike)) or not Path(folder).is_dir():
            raise ConfigError(
                f"there is no folder {folder!r}; name the one that 'remote-gym certs init' has made", field="certs"
            )
        ca, certificate, key = (Path(folder, name) for name in ("ca.pem", f"{role}.pem", f"{role}-key.pem"))
        needed = [ca, certificate, key] if role != "client" or certificate.exists() or key.exists() else [ca]
        missing = [path.name for path in needed if not path.exists()]
        if missing:
            raise ConfigError(
                f"{os.fspath(folder)} has no {' and no '.join(missing)}, as 'remote-gym certs init' names the files of "
                f"a {role}; copy them there, or name the files one by one",
                field="certs",
            )
        return cls(ca=ca) if needed == [ca] else cls(ca=ca, certificate=certificate, private_key=key)
