"""From the same JSON, the same certificates as the real cfssl makes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from remote_gym.certs import create_authority, create_certificate
from waiting import scaled

pytestmark = pytest.mark.skipif(
    not (shutil.which("cfssl") and shutil.which("cfssljson")),
    reason="needs cfssl and cfssljson on the PATH (Debian: golang-cfssl)",
)

SSL = Path(__file__).parents[2] / "ssl"
BASE: dict[str, Any] = {"CN": "one", "key": {"algo": "ecdsa", "size": 256}}

AUTHORITIES: dict[str, dict[str, Any]] = {
    "plain": BASE,
    "default-key": {"CN": "one"},
    "empty-key": {"CN": "one", "key": {}},
    "p384": {"CN": "one", "key": {"algo": "ecdsa", "size": 384}},
    "rsa-2048": {"CN": "one", "key": {"algo": "rsa", "size": 2048}},
    "rsa-3072": {"CN": "one", "key": {"algo": "rsa", "size": 3072}},
    "rsa-4096": {"CN": "one", "key": {"algo": "rsa", "size": 4096}},
    "any-case": {"cn": "one", "KEY": {"Algo": "ecdsa", "SIZE": 256}, "Names": [{"ou": "b"}]},
    "expiry": {**BASE, "ca": {"expiry": "24h30m"}},
    "pathlen": {**BASE, "ca": {"pathlen": 2}},
    "pathlen-zero": {**BASE, "ca": {"pathlenzero": True}},
    "pathlen-zero-unsaid": {**BASE, "ca": {"pathlen": 0}},
    "pathlen-both": {**BASE, "ca": {"pathlen": 1, "pathlenzero": True}},
    "names": {**BASE, "names": [{"C": "DE", "ST": "Berlin", "L": "Mitte", "O": "Lab, Inc.", "OU": "RL"}]},
    "several-names": {**BASE, "names": [{"C": "DE", "O": "Zebra"}, {"O": "Ant"}, {"O": "A longer one", "OU": "x"}]},
    "not-printable": {"CN": "a_b@c*d&e", "names": [{"O": "Übung", "OU": "日本", "L": "it's (ok)"}]},
    "serial-number": {**BASE, "serialnumber": "4711", "names": [{"O": "x", "SerialNumber": "ignored"}]},
    "no-common-name": {"names": [{"O": "Only this"}]},
    "hosts": {**BASE, "hosts": ["dropped.example.com", "192.0.2.1"]},
}

SAN_ORDER = ["::1", "b.example.com", "10.0.0.1", "q@example.com", "a.example.com", "*.w.example.com", "::ffff:10.0.0.2"]
LEAVES: dict[str, dict[str, Any]] = {
    "plain": BASE,
    "hosts-in-odd-order": {**BASE, "hosts": SAN_ORDER},
    "rsa": {"CN": "one", "key": {"algo": "rsa", "size": 2048}, "hosts": ["localhost"]},
    "no-name": {"hosts": ["localhost"]},
    "names": {**AUTHORITIES["several-names"], "hosts": ["localhost"], "serialnumber": "12"},
}

PROFILES: dict[str, dict[str, Any]] = {
    "expiry": {"usages": ["signing", "server auth"], "expiry": "1h0m30.5s"},
    "backdate": {"usages": ["signing", "server auth"], "expiry": "48h", "backdate": "90m"},
    "zero-backdate": {"usages": ["signing"], "expiry": "48h", "backdate": "0s"},
    "key-usages-only": {"usages": ["digital signature", "key encipherment", "data encipherment"], "expiry": "1h"},
    "agreement": {"usages": ["key agreement", "encipher only", "decipher only"], "expiry": "1h"},
    "extended-only": {"usages": ["client auth", "server auth"], "expiry": "1h"},
    "signer": {"usages": ["cert sign", "crl sign"], "expiry": "1h"},
    "everything": {
        "usages": [
            *("any", "code signing", "email protection", "ipsec end system", "ipsec tunnel", "ipsec user"),
            *("timestamping", "ocsp signing", "microsoft sgc", "netscape sgc"),
        ],
        "expiry": "1h",
    },
    "s/mime": {"usages": ["s/mime"], "expiry": "1h"},
}


@dataclass(frozen=True)
class Made:
    """A certificate and its key as PEM files."""

    certificate: Path
    private_key: Path


def run_cfssl(directory: Path, name: str, *arguments: str | Path) -> Made:
    made = subprocess.run(
        ["cfssl", "gencert", *map(str, arguments)], check=True, capture_output=True, timeout=scaled(60)
    )
    subprocess.run(["cfssljson", "-bare", name], input=made.stdout, cwd=directory, check=True, timeout=scaled(60))
    return Made(directory / f"{name}.pem", directory / f"{name}-key.pem")


def written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def key_bits(key: object) -> tuple[str, int]:
    """Kind and size of a public key, which is all that two new keys have in common."""
    return type(key).__name__, key.key_size  # type: ignore[attr-defined]


def facts(made: Made) -> dict[str, object]:
    """Everything about a certificate and its key file that does not depend on when and with which key it was made."""
    certificate = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    key = certificate.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(key).digest  # type: ignore[arg-type]
    extensions = [
        (e.oid.dotted_string, e.critical, e.value.public_bytes().replace(identifier, b"<own key>").hex())
        for e in certificate.extensions
        if e.oid != x509.AuthorityKeyIdentifier.oid
    ]
    return {
        "version": certificate.version,
        "subject": certificate.subject.public_bytes().hex(),
        "extensions": extensions,
        "order": [e.oid.dotted_string for e in certificate.extensions],
        "signature": certificate.signature_algorithm_oid,
        "algorithm parameters": certificate.signature_algorithm_parameters.__class__,
        "validity": certificate.not_valid_after_utc - certificate.not_valid_before_utc,
        "serial number bytes": (certificate.serial_number.bit_length() + 7) // 8 in (18, 19, 20),
        "key": key_bits(key),
        "key form": key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)[:20].hex(),
        "key file": re.findall("-----.*-----", made.private_key.read_text()),
        "key file mode": oct(made.private_key.stat().st_mode & 0o777),
    }


def assert_same_start(one: Made, other: Made) -> None:
    """Both count from the same minute, unless a minute has begun between them."""
    starts = [
        x509.load_pem_x509_certificate(made.certificate.read_bytes()).not_valid_before_utc for made in (one, other)
    ]
    assert all(start.second == 0 for start in starts)
    assert abs((starts[0] - starts[1]).total_seconds()) <= 60


def both_authorities(directory: Path, csr: Path) -> tuple[Made, Made]:
    theirs = run_cfssl(directory, "theirs", "-initca", csr)
    ours = create_authority(csr, directory, name="ours")
    return Made(ours.certificate, ours.private_key), theirs


@pytest.mark.parametrize("name", AUTHORITIES)
def test_authority_is_as_cfssl_makes_it(name, tmp_path):
    csr = written(tmp_path / "csr.json", AUTHORITIES[name])
    ours, theirs = both_authorities(tmp_path, csr)
    assert facts(ours) == facts(theirs)
    assert_same_start(ours, theirs)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    directory = tmp_path_factory.mktemp("authority")
    csr = written(directory / "ca-csr.json", {"CN": "ca_of_all", "names": [{"C": "DE", "O": "Zebra"}, {"O": "Ant"}]})
    return run_cfssl(directory, "ca", "-initca", csr)


def assert_same_leaf(directory: Path, authority: Made, csr: Path, *, config: Path | None, profile: str | None) -> None:
    theirs = run_cfssl(
        directory,
        "theirs",
        *("-ca", authority.certificate, "-ca-key", authority.private_key),
        *(("-config", config) if config else ()),
        *(("-profile", profile) if profile else ()),
        csr,
    )
    files = create_certificate(
        csr,
        directory,
        ca=authority.certificate,
        ca_key=authority.private_key,
        config=config,
        profile=profile,
        name="ours",
    )
    ours = Made(files.certificate, files.private_key)
    assert facts(ours) == facts(theirs)
    assert_same_start(ours, theirs)
    issued = [x509.load_pem_x509_certificate(made.certificate.read_bytes()) for made in (ours, theirs)]
    identifiers = [c.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier) for c in issued]
    assert identifiers[0].value.public_bytes() == identifiers[1].value.public_bytes()
    assert identifiers[0].critical == identifiers[1].critical
    assert issued[0].issuer.public_bytes() == issued[1].issuer.public_bytes()
    issued[0].verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate.read_bytes()))


@pytest.mark.parametrize("name", LEAVES)
def test_certificate_is_as_cfssl_makes_it(name, tmp_path, authority):
    csr = written(tmp_path / "csr.json", LEAVES[name])
    assert_same_leaf(tmp_path, authority, csr, config=None, profile=None)


@pytest.mark.parametrize("name", PROFILES)
def test_profile_means_what_it_means_to_cfssl(name, tmp_path, authority):
    csr = written(tmp_path / "csr.json", {**BASE, "hosts": ["localhost"]})
    other = {"usages": ["code signing"], "expiry": "7h"}
    config = written(tmp_path / "config.json", {"signing": {"default": other, "profiles": {"it": PROFILES[name]}}})
    assert_same_leaf(tmp_path, authority, csr, config=config, profile="it")


def test_default_profile_is_used_where_none_is_named(tmp_path, authority):
    csr = written(tmp_path / "csr.json", {**BASE, "hosts": ["localhost"]})
    profiles = {"default": {"usages": ["code signing"], "expiry": "7h"}}
    default = {"usages": ["client auth"], "expiry": "9h"}
    config = written(tmp_path / "config.json", {"signing": {"default": default, "profiles": profiles}})
    assert_same_leaf(tmp_path, authority, csr, config=config, profile=None)


@pytest.mark.parametrize("size", [2048, 3072, 4096])
def test_signature_follows_the_authority_key_not_the_own(size, tmp_path):
    csr = written(tmp_path / "ca.json", {"CN": "rsa", "key": {"algo": "rsa", "size": size}})
    authority = run_cfssl(tmp_path, "ca", "-initca", csr)
    leaf = written(tmp_path / "csr.json", {**BASE, "hosts": ["localhost"]})
    assert_same_leaf(tmp_path, authority, leaf, config=None, profile=None)


def test_shipped_authority_is_as_cfssl_makes_it(tmp_path):
    ours, theirs = both_authorities(tmp_path, SSL / "ca-csr.json")
    assert facts(ours) == facts(theirs)


@pytest.mark.parametrize("role", ["server", "client"])
def test_shipped_certificate_is_as_cfssl_makes_it(role, tmp_path):
    authority = run_cfssl(tmp_path, "ca", "-initca", SSL / "ca-csr.json")
    assert_same_leaf(tmp_path, authority, SSL / f"{role}-csr.json", config=SSL / "ca-config.json", profile=role)


def test_hosts_argument_replaces_those_of_the_request_like_cfssls_hostname(tmp_path, authority):
    csr = written(tmp_path / "csr.json", {**BASE, "hosts": ["localhost"]})
    its_key = ("-ca", authority.certificate, "-ca-key", authority.private_key)
    theirs = run_cfssl(tmp_path, "theirs", *its_key, "-hostname", "b.example.com,192.0.2.1", csr)
    files = create_certificate(
        csr,
        tmp_path,
        ca=authority.certificate,
        ca_key=authority.private_key,
        name="ours",
        hosts=["b.example.com", "192.0.2.1"],
    )
    assert facts(Made(files.certificate, files.private_key)) == facts(theirs)


def test_authority_with_a_country_that_only_cfssl_accepts_still_signs(tmp_path):
    csr = written(tmp_path / "ca.json", {"CN": "old", "names": [{"C": "Example Country"}]})
    authority = run_cfssl(tmp_path, "ca", "-initca", csr)
    leaf = written(tmp_path / "csr.json", {**BASE, "hosts": ["localhost"]})
    files = create_certificate(leaf, tmp_path, ca=authority.certificate, ca_key=authority.private_key, name="ours")
    made, by = (
        x509.load_pem_x509_certificate(path.read_bytes()) for path in (files.certificate, authority.certificate)
    )
    made.verify_directly_issued_by(by)
