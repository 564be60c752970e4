"""Whom a server knows its clients by, and what its workers have to know of that."""

from __future__ import annotations

import os
from pathlib import Path

from remote_gym.auth.identity import IdentityRule
from remote_gym.auth.tokens import TokenFile
from remote_gym.config import ServerOptions, TlsFiles
from remote_gym.v1 import worker_pb2


def identity_rule(files: TlsFiles | None, options: ServerOptions) -> IdentityRule:
    """The rule by which certificates and tokens name clients.

    Raises:
        ConfigError: If the token file cannot be read.
    """
    tokens = None
    if options.token_file is not None:
        path = Path(options.token_file).absolute()
        tokens = TokenFile(path).get
        tokens()  # says so, if they cannot be read
    return IdentityRule(
        certificates=files is not None and files.ca is not None, common_names=options.common_names, tokens=tokens
    )


def worker_tls(files: TlsFiles, options: ServerOptions, rule: IdentityRule, owner: str) -> worker_pb2.Tls:
    """What a worker needs to know its session's owner, who comes to it directly."""

    # Absolute, since a worker changes its working directory.
    def absolute(path: Path | str | os.PathLike[str] | None) -> str:
        return "" if path is None else str(Path(path).absolute())

    return worker_pb2.Tls(
        certificate=absolute(files.certificate),
        private_key=absolute(files.private_key),
        ca=absolute(files.ca),
        common_names=options.common_names,
        token_file=absolute(options.token_file),
        token_digests=rule.digests_of(owner),
        certificate_lifetime=options.certificate_lifetime or 0.0,
    )
