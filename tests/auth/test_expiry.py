"""Certificates that are near their end are warned about, the server's, its authority's and a client's."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

import pytest

from certificates import DAY, sign
from remote_gym import RemoteEnvironment, create_remote_environment_server
from remote_gym.auth.expiry import INTERVAL, OwnCertificates, near_from
from remote_gym.certs import create_all
from remote_gym.config import TlsFiles
from waiting import wait_until

CARTPOLE = {"entrypoint_kwargs": {"id": "CartPole-v1"}}


@pytest.fixture
def authority(tmp_path):
    return create_all(tmp_path / "authority", ["localhost"])


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "remote_gym.auth.expiry"]


@pytest.mark.parametrize(
    ("days", "near"), [(365, 30), (3650, 30), (100, 20), (1, 0.2)], ids=["year", "ten years", "quarter", "day"]
)
def test_near_is_a_month_or_a_fifth_of_its_time(days, near):
    assert near_from(0.0, days * 86_400.0) == pytest.approx((days - near) * 86_400.0)


def test_own_certificates_are_warned_about_once_a_day_until_they_are_replaced(authority, tmp_path, caplog):
    folder = authority.ca.certificate.parent
    made = sign(folder, tmp_path, "server", ["localhost"], begin=-100 * DAY, end=10 * DAY)
    now = [time.time()]
    own = OwnCertificates(TlsFiles(ca=authority.ca.certificate, certificate=made.certificate), lambda: now[0])
    for _ in range(3):
        own.look()
    [text] = warnings(caplog)
    expected = datetime.now(timezone.utc) + timedelta(days=10)
    assert text.startswith(f"the server's certificate expires on {expected:%Y-%m-%d}")
    assert str(made.certificate) in text
    now[0] += INTERVAL
    own.look()
    assert len(warnings(caplog)) == 2
    sign(folder, tmp_path, "server", ["localhost"], end=365 * DAY)
    now[0] += INTERVAL
    own.look()
    assert len(warnings(caplog)) == 2
    now[0] += 20_000 * 86_400
    own.look()
    assert [text.split(" on ")[0] for text in warnings(caplog)[2:]] == [
        "the server's certificate has expired",
        "the authority has expired",
    ]


def test_without_tls_there_is_nothing_to_warn_about(caplog):
    OwnCertificates(None).look()
    assert warnings(caplog) == []


def test_a_real_server_warns_of_its_own_and_of_a_clients(authority, tmp_path, caplog):
    caplog.set_level("WARNING")
    folder = authority.ca.certificate.parent
    server = sign(folder, tmp_path, "server", ["localhost"], begin=-100 * DAY, end=10 * DAY)
    client = sign(folder, tmp_path, "client", ["alice"], begin=-100 * DAY, end=5 * DAY)
    ca = authority.ca.certificate
    paths = (server.certificate, server.private_key, ca)
    with create_remote_environment_server(
        CARTPOLE, port=0, server_credentials_paths=paths, use_thread=True, check=False
    ) as serving:
        wait_until(lambda: len(warnings(caplog)) == 1)
        for _ in range(3):
            RemoteEnvironment("localhost", serving.port, {}, (ca, client.certificate, client.private_key)).close()
        fresh = (ca, authority.client.certificate, authority.client.private_key)
        RemoteEnvironment("localhost", serving.port, {}, fresh).close()
        first, second = warnings(caplog)
    assert first.startswith("the server's certificate expires on ")
    assert second.startswith("the certificate of DNS:alice expires on ")
