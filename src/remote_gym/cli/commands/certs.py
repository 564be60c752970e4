"""``remote-gym certs``: certificates for mutual TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from remote_gym.certs import CertificateFiles, create_all, create_authority, create_certificate
from remote_gym.cli.command import Decorated, Group, flag
from remote_gym.cli.options import FILE, FOLDER
from remote_gym.errors import ConfigError

FILES = "Files"
CERTIFICATE = "Certificate"


@click.group(cls=Group, short_help="Make certificates for mutual TLS.")
def certs() -> None:
    """Make certificates for mutual TLS: an authority's, servers' and clients'."""


def _output_options(command: Decorated) -> Decorated:
    for option in (
        flag(FILES, "--force", is_flag=True, help="Replace files that are there."),
        flag(FILES, "--directory", type=FOLDER, default=".", help="Folder that the files are written to."),
    ):
        command = option(command)
    return command


@certs.command(short_help="Make all that a server and a client need.")
@click.argument("directory", type=FOLDER)
@flag(
    CERTIFICATE,
    "--host",
    "hosts",
    multiple=True,
    default=("localhost", "127.0.0.1", "::1"),
    help="Name or address by which clients reach the server. Repeatable.",
)
@flag(
    CERTIFICATE,
    "--hub",
    "hub_hosts",
    metavar="HOST",
    multiple=True,
    help="Name or address by which the server reaches a hub, which gets a certificate, too. Repeatable.",
)
@flag(FILES, "--force", is_flag=True, help="Replace files that are there.")
def init(directory: Path, hosts: tuple[str, ...], hub_hosts: tuple[str, ...], force: bool) -> None:
    """Make an authority's, a server's and a client's certificate in DIRECTORY, all at once."""
    files = create_all(directory, hosts, hub_hosts=hub_hosts, force=force)
    for role, made in (("authority", files.ca), ("server", files.server), ("client", files.client)):
        _tell(role, made)
    if files.hub is not None:
        _tell("hub", files.hub)
    click.echo(f"The server's is good for {', '.join(hosts)}. Keep {files.ca.private_key} to yourself.")


@certs.command(short_help="Make an authority.")
@click.argument("csr", type=FILE)
@flag(FILES, "--name", default="ca", help="Name of the files, NAME.pem and NAME-key.pem.")
@_output_options
def ca(csr: Path, name: str, directory: Path, force: bool) -> None:
    """Make an authority from CSR, a request in cfssl's JSON such as ssl/ca-csr.json."""
    _tell("authority", create_authority(csr, directory, name=name, force=force))


def _leaf_options(command: Decorated) -> Decorated:
    for option in (
        flag(
            CERTIFICATE,
            "--host",
            "hosts",
            multiple=True,
            help="Name or address of a server, or name of a client, in place of those that CSR holds. Repeatable.",
        ),
        flag(
            FILES,
            "--name",
            help="Name of the files, NAME.pem and NAME-key.pem.  [default: that of CSR, without -csr.json or .json]",
        ),
        flag(CERTIFICATE, "--profile", help="Profile of --config; without this flag its default one."),
        flag(CERTIFICATE, "--config", type=FILE, help="Signing profiles in cfssl's JSON, such as ssl/ca-config.json."),
        flag(
            CERTIFICATE,
            "--ca-key",
            type=FILE,
            help="Private key of the authority.  [default: ca-key.pem beside --ca]",
        ),
        flag(
            CERTIFICATE,
            "--ca",
            "ca_file",
            type=FILE,
            help="Authority that signs the certificate.  [default: ca.pem in --directory]",
        ),
        click.argument("csr", type=FILE),
    ):
        command = option(command)
    return _output_options(command)


def _create(role: str, csr: Path, directory: Path, ca_file: Path | None, ca_key: Path | None, **arguments: Any) -> None:
    if ca_file is None:
        ca_file = directory / "ca.pem"
        if not ca_file.exists():
            raise ConfigError(
                f"there is no authority {ca_file}; give the folder that has it, such as --directory certificates after "
                "'remote-gym certs init certificates', or the authority itself by --ca"
            )
    # Without a config the built-in profile for this role says what the certificate may be used for.
    profile = arguments.pop("profile") or (role if arguments["config"] is None else None)
    hosts = arguments.pop("hosts") or None
    arguments["name"] = arguments["name"] or csr.stem.removesuffix("-csr")
    key = ca_key or ca_file.with_name(f"{ca_file.stem}-key.pem")
    _tell(role, create_certificate(csr, directory, ca=ca_file, ca_key=key, profile=profile, hosts=hosts, **arguments))


@certs.command(short_help="Make a server's certificate.")
@_leaf_options
def server(**arguments: Any) -> None:
    """Make a server's certificate from CSR, a request in cfssl's JSON such as ssl/server-csr.json."""
    _create("server", **arguments)


@certs.command(short_help="Make a client's certificate.")
@_leaf_options
def client(**arguments: Any) -> None:
    """Make a client's certificate from CSR, a request in cfssl's JSON such as ssl/client-csr.json."""
    _create("client", **arguments)


def _tell(role: str, files: CertificateFiles) -> None:
    click.echo(f"{role + ':':<11}{files.certificate}, {files.private_key}")
