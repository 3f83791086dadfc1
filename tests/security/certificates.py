"""Certificates for the tests: right ones, and each sort of wrong one. Made again for every session, by trustme."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

LONG_AGO = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
EXPIRED = dt.datetime(2002, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its chain, and its key: PEM files, and one file of both as Kafka reads it."""

    certificate: Path
    key: Path
    both: Path


@dataclass(frozen=True, slots=True)
class Certificates:
    """Two authorities, and what they signed: servers are known as `localhost` and 127.0.0.1 unless set otherwise."""

    ca: Path
    other_ca: Path
    no_pem: Path
    server: Pair
    elsewhere: Pair
    expired: Pair
    client: Pair
    stranger: Pair
    expired_client: Pair

    def find(self, name: str) -> str:
        """The path of `@server.key`; any other text as it is."""
        if not name.startswith("@"):
            return name
        found: object = self
        for part in name[1:].split("."):
            found = getattr(found, part)
        return str(found)


def make(directory: Path) -> Certificates:
    """All of them, in files of `directory`."""
    ours, other = trustme.CA(), trustme.CA()
    for name, authority in (("ca", ours), ("other-ca", other)):
        authority.cert_pem.write_to_path(directory / f"{name}.pem")
    no_pem = directory / "no.pem"
    no_pem.write_text("this is no certificate\n")
    local = ("localhost", "127.0.0.1")
    issued = {
        "server": ours.issue_cert(*local),
        "elsewhere": ours.issue_cert("elsewhere.example"),
        "expired": ours.issue_cert(*local, not_before=LONG_AGO, not_after=EXPIRED),
        "client": ours.issue_cert("client", common_name="client"),
        "stranger": other.issue_cert("client", common_name="client"),
        "expired_client": ours.issue_cert("client", common_name="client", not_before=LONG_AGO, not_after=EXPIRED),
    }
    pairs = {name: _write(directory, name, leaf) for name, leaf in issued.items()}
    return Certificates(ca=directory / "ca.pem", other_ca=directory / "other-ca.pem", no_pem=no_pem, **pairs)


def _write(directory: Path, name: str, leaf: trustme.LeafCert) -> Pair:
    key = load_pem_private_key(leaf.private_key_pem.bytes(), password=None)
    # Kafka reads PKCS 8 alone, trustme writes the older form.
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = b"".join(part.bytes() for part in leaf.cert_chain_pems)
    pair = Pair(directory / f"{name}.pem", directory / f"{name}.key", directory / f"{name}.both.pem")
    pair.key.touch(mode=0o600)
    for path, content in ((pair.certificate, chain), (pair.key, key_pem), (pair.both, key_pem + chain)):
        path.write_bytes(content)
    return pair
