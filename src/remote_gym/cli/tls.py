"""The PEM files that a command was given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import click
from click.core import ParameterSource

from remote_gym.config import TlsFiles

Role: TypeAlias = Literal["client", "server", "hub"]

_RANKS = (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP, ParameterSource.ENVIRONMENT, None)


def tls_files(ctx: click.Context, files: Mapping[str, Any], role: Role) -> TlsFiles | None:
    """PEM files of a command, of ``--certs`` or of the flags for each; None for none.

    Args:
        ctx: Of the command.
        files: Values of ``certs``, ``certificate``, ``key`` and ``ca``.
        role: Which end's.

    Raises:
        click.UsageError: If both are given, or a file lacks another that it needs.
        ConfigError: If the folder lacks a file.
    """
    chosen = files_in_use(ctx, files)
    if "certs" in chosen:
        return TlsFiles.from_folder(chosen["certs"], role)
    if not chosen:
        return None
    _check_pairs(chosen, role)
    return TlsFiles(ca=chosen.get("ca"), certificate=chosen.get("certificate"), private_key=chosen.get("key"))


def _check_pairs(chosen: Mapping[str, Any], role: Role) -> None:
    certificate, key, ca = (chosen.get(name) for name in ("certificate", "key", "ca"))
    if certificate and not key:
        raise click.UsageError(f"--certificate {certificate} needs --key, the private key that belongs to it.")
    if key and not certificate:
        raise click.UsageError(f"--key {key} needs --certificate, the certificate that it belongs to.")
    if ca and not certificate and role != "client":
        raise click.UsageError(f"--ca {ca} needs --certificate and --key, this {role}'s own.")


def files_in_use(ctx: click.Context, files: Mapping[str, Any]) -> dict[str, Any]:
    """Files in use: the command line's before a configuration file's, and these before the environment variable's.

    Raises:
        click.UsageError: If ``--certs`` stands beside one of the others.
    """
    given = {name: path for name, path in files.items() if path}
    if "certs" not in given or len(given) == 1:
        return given
    rank = {name: _RANKS.index(ctx.get_parameter_source(name)) for name in given}
    folder, single = rank.pop("certs"), min(rank.values())
    if folder == single:
        raise click.UsageError("Give either --certs, or --ca, --certificate and --key.")
    return {name: path for name, path in given.items() if (name == "certs") == (folder < single)}
