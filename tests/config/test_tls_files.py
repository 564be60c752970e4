"""`TlsFiles`: PEM files by name, and from a folder."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from remote_gym import ConfigError, RemoteEnvironment, TlsFiles, create_remote_environment_server
from remote_gym.certs import create_all
from remote_gym.tls import client_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("certificates")
    create_all(made, ["localhost"])
    return made


def test_a_folder_of_certs_init_is_all_that_both_ends_need(folder):
    with create_remote_environment_server(
        "CartPole-v1", port=0, tls=TlsFiles.from_folder(folder, "server"), use_thread=True
    ) as server:
        assert server.secure
        files = TlsFiles.from_folder(str(folder), "client")
        with contextlib.closing(RemoteEnvironment(port=server.port, tls=files)) as environment:
            environment.reset()
            assert environment.connection_info.identity.startswith(("DNS:", "CN:"))
            assert environment.spec.kwargs["tls"] == files
            assert str(folder) not in environment.spec.to_json()


def test_a_client_needs_the_authority_alone_and_a_server_all(folder, tmp_path):
    shutil.copy(folder / "ca.pem", tmp_path)
    assert TlsFiles.from_folder(tmp_path, "client") == TlsFiles(ca=tmp_path / "ca.pem")
    with pytest.raises(ConfigError, match=r"has no server\.pem and no server-key\.pem, as 'remote-gym certs init'"):
        TlsFiles.from_folder(tmp_path, "server")
    shutil.copy(folder / "client.pem", tmp_path)
    with pytest.raises(ConfigError, match=r"has no client-key\.pem"):
        TlsFiles.from_folder(tmp_path, "client")


def test_what_is_no_folder_role_or_path():
    for call, message in [
        (lambda: TlsFiles.from_folder("/no/such/folder", "client"), "there is no folder '/no/such/folder'"),
        (lambda: TlsFiles.from_folder(3, "client"), "there is no folder 3"),
        (lambda: TlsFiles.from_folder(".", "alice"), "role is 'alice'; use 'client', 'server' or 'hub'"),
        (lambda: TlsFiles(ca=3), "TlsFiles.ca is 3; use the path of a PEM file"),
        (lambda: TlsFiles(private_key=""), "TlsFiles.private_key is ''"),
    ]:
        with pytest.raises(ConfigError) as caught:
            call()
        assert message in str(caught.value)


def test_texts_become_paths():
    assert TlsFiles(ca="a/ca.pem").ca == Path("a/ca.pem")


def test_tuples_and_files_are_not_given_together(folder):
    files = TlsFiles.from_folder(folder, "server")
    paths = (files.certificate, files.private_key, files.ca)
    with pytest.raises(ConfigError, match="tls and server_credentials_paths are both given"):
        create_remote_environment_server("CartPole-v1", port=0, server_credentials_paths=paths, tls=files)
    with create_remote_environment_server(
        "CartPole-v1", port=0, server_credentials_paths=paths, use_thread=True
    ) as server:
        assert server.secure


@pytest.mark.parametrize(
    "given",
    [{"paths": ("ca.pem", None, None)}, {"paths": None, "tls": TlsFiles(ca="ca.pem")}],
    ids=["tuple", "TlsFiles"],
)
def test_a_clients_files_stay_where_they_were_when_the_working_directory_changes(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = client_files(**given)
    assert found is not None
    assert found.ca == tmp_path / "ca.pem"
