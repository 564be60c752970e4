"""Names by which a server may be asked for over HTTP."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn", reason="the extra http is not installed")

from certificates import sign
from remote_gym.config import ServerOptions, TlsFiles
from remote_gym.server.frontends.http.names import Names


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:5", "[::1]:5", "[::1]", "localhost."])
def test_this_machine_is_always_good(host):
    assert Names(None, ServerOptions(), "0.0.0.0").allow(host)


@pytest.mark.parametrize(
    "host", ["", "evil.example", "localhost.evil.example", "10.0.0.1", "localhost@evil", "evil:80"]
)
def test_other_names_are_not(host):
    assert not Names(None, ServerOptions(), "0.0.0.0").allow(host)


def test_where_it_listens_and_what_the_operator_adds_are_good():
    names = Names(None, ServerOptions(http_hosts=("Lab.example", "10.0.0.1")), "192.168.0.7")
    for host in ("lab.example:80", "10.0.0.1", "192.168.0.7:99"):
        assert names.allow(host)
    assert not names.allow("other.example")


def test_names_of_the_certificate_are_good_and_followed_as_it_is_renewed(certificates, tmp_path):
    made = sign(
        certificates.ca.parent, tmp_path, "web", ["lab.example", "*.wild.example", "192.0.2.1"], profile="server"
    )
    files = TlsFiles(certificate=made.certificate, private_key=made.private_key)
    names = Names(files, ServerOptions(), "0.0.0.0")
    for host in ("lab.example:443", "a.wild.example", "192.0.2.1", "localhost"):
        assert names.allow(host)
    for host in ("wild.example", "a.b.wild.example", "lab.example.evil"):
        assert not names.allow(host)
    sign(certificates.ca.parent, tmp_path, "web", ["new.example"], profile="server")
    assert names.allow("new.example")
    assert not names.allow("lab.example")
