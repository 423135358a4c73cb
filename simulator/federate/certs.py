"""Makes certificates and keys for a federation of one's own machines: a test authority, a SuperLink, SuperNodes.

The authority's own key is thrown away once it has signed, so nobody can issue a certificate that these machines trust.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from clients.core.errors import UserError
from simulator.federate.cert_files import CertFolder, write_private

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
BACKDATED = timedelta(days=1)
"""Certificates are valid from a day before, since the clocks of other machines may be slow."""
MOST_NODES, MOST_DAYS = 10_000, 825
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")


@dataclass(frozen=True)
class _Authority:
    """The test authority while it signs."""

    key: ec.EllipticCurvePrivateKey
    cert: x509.Certificate
    start: datetime
    end: datetime


def make_certs(
    path: Path,
    *,
    nodes: int = 3,
    days: int = 90,
    hosts: Sequence[str] = (),
    now: datetime | None = None,
) -> CertFolder:
    """Make a folder with a test authority, the SuperLink's certificate, and keys for SuperNodes.

    Args:
        path: the folder; new or empty. It gets mode 0700, its files 0600.
        nodes: number of SuperNodes.
        days: days until everything expires.
        hosts: names and addresses of the SuperLink, besides those of the loopback.
        now: the time; by default the clock's.

    Raises:
        UserError: the folder holds files, or an argument is not allowed.
    """
    if not 1 <= nodes <= MOST_NODES:
        raise UserError("--nodes", f"must be 1 to {MOST_NODES}, got {nodes}")
    if not 1 <= days <= MOST_DAYS:
        raise UserError("--days", f"must be 1 to {MOST_DAYS}, got {days}")
    names = _names([*LOOPBACK_HOSTS, *hosts])
    _make_folder(path)
    folder, authority = CertFolder(path), _make_authority(now or datetime.now(UTC), days)
    write_private(folder.ca, authority.cert.public_bytes(Encoding.PEM))
    _write_tls(authority, "SuperLink", names, folder.superlink_cert, folder.superlink_key)
    here = _names(LOOPBACK_HOSTS)
    for node in range(nodes):
        write_identity(folder.node_key(node), folder.node_public(node))
        _write_tls(authority, f"SuperNode {node}", here, folder.node_cert(node), folder.node_cert_key(node))
    return folder


def write_identity(key_file: Path, public_file: Path) -> None:
    """Make the key of a SuperNode, and write both halves to new files.

    Raises:
        UserError: a file exists, or the system refuses.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    write_private(key_file, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    write_private(public_file, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n")


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """Return hosts as names of a certificate, each once."""
    return [_name(host) for host in dict.fromkeys(hosts)]


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        labels = host.removeprefix("*.").split(".")
        if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
            problem = f"must be a name such as fl.example.org or an address such as 10.0.0.7, got {host!r}"
            raise UserError("--host", problem, fix="Leave out scheme and port.") from None
        return x509.DNSName(host)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = min((entry.name for entry in path.iterdir()), default=None)
        if held is None:
            path.chmod(0o700)
    except OSError as error:
        raise UserError(str(path), f"cannot be used as a folder: {error.strerror}") from error
    if held is not None:
        raise UserError(str(path), f"already holds files ({held}), and keys are never overwritten",
                        fix="Name a new folder.")  # fmt: skip


def _make_authority(now: datetime, days: int) -> _Authority:
    key = ec.generate_private_key(ec.SECP384R1())
    name = _subject("test authority")
    start, end = now - BACKDATED, now + timedelta(days=days)
    identity = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    built = (
        _builder(name, name, key, start, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certs=True), critical=True)
        .add_extension(identity, critical=False)
    )
    return _Authority(key, built.sign(key, hashes.SHA384()), start, end)


def _write_tls(
    authority: _Authority, name: str, hosts: Sequence[x509.GeneralName], cert_file: Path, key_file: Path
) -> None:
    """Write a server's certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    built = (
        _builder(_subject(name), authority.cert.subject, key, authority.start, authority.end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(issuer, critical=False)
    )
    write_private(key_file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    write_private(cert_file, built.sign(authority.key, hashes.SHA384()).public_bytes(Encoding.PEM))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "fedscape test"),
        x509.NameAttribute(NameOID.COMMON_NAME, name),
    ])  # fmt: skip


def _usage(*, signs_certs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certs,
        crl_sign=signs_certs,
        encipher_only=False,
        decipher_only=False,
    )
