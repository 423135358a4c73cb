"""Checks certificates and keys before a run: present, private, in date, matching, issued by the authority."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_key,
)

from clients.core.errors import UserError
from simulator.federate.cert_files import MAKE_NEW, CertFolder, read_private, read_public

T = TypeVar("T")


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        nodes: number of SuperNodes with keys.
        expires: when the first certificate expires.
        file: the file of that certificate.
    """

    nodes: int
    expires: datetime
    file: Path

    def days_left(self, now: datetime | None = None) -> int:
        """Return the whole days until the first certificate expires."""
        return (self.expires - (now or datetime.now(UTC))).days


def check_certs(
    path: Path, *, nodes: int | None = None, host: str = "127.0.0.1", now: datetime | None = None
) -> Checked:
    """Check a folder of certificates.

    Args:
        path: the folder.
        nodes: number of SuperNodes that need keys; None for all that the folder has, at least one.
        host: the SuperLink's name or address, which its certificate must have.
        now: the time; by default the clock's.

    Raises:
        UserError: a file is missing, expired, readable by others, or does not belong to the others; it names the file.
    """
    now = now or datetime.now(UTC)
    if not path.is_dir():
        raise UserError(str(path), "must be a folder of certificates", fix=MAKE_NEW)
    folder = CertFolder(path)
    held = folder.nodes()
    if held < (nodes or 1):
        raise UserError(str(folder.node_key(held)), f"is missing, and {nodes or 1} SuperNodes need keys",
                        fix=f"Make new ones: fedscape certs FOLDER --nodes {nodes or 1}.")  # fmt: skip
    ca = _certificate(folder.ca, now)
    _check_authority(folder.ca, ca)
    found = [(ca.not_valid_after_utc, folder.ca)]
    found.append(_check_tls(ca, folder.superlink_cert, folder.superlink_key, host, now))
    for node in range(held if nodes is None else nodes):
        _check_identity(folder.node_key(node), folder.node_public(node))
        found.append(_check_tls(ca, folder.node_cert(node), folder.node_cert_key(node), "127.0.0.1", now))
    expires, file = min(found)
    return Checked(held, expires, file)


def _certificate(path: Path, now: datetime) -> x509.Certificate:
    """Return a certificate that is valid now."""
    cert = _parsed(path, read_public(path), x509.load_pem_x509_certificate, "a certificate in PEM")
    if now > cert.not_valid_after_utc:
        raise UserError(str(path), f"expired on {_date(cert.not_valid_after_utc)}, and it is {_date(now)}",
                        fix=f"{MAKE_NEW} Or set this machine's clock.")  # fmt: skip
    if now < cert.not_valid_before_utc:
        raise UserError(str(path), f"is not valid before {_date(cert.not_valid_before_utc)}, and it is {_date(now)}",
                        fix="Set this machine's clock.")  # fmt: skip
    return cert


def _check_authority(path: Path, cert: x509.Certificate) -> None:
    with suppress(x509.ExtensionNotFound):
        if cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return
    raise UserError(str(path), "must be the certificate of an authority (CA:TRUE)")


def _check_tls(
    ca: x509.Certificate, cert_file: Path, key_file: Path, host: str, now: datetime
) -> tuple[datetime, Path]:
    """Check a server's certificate and key; return when it expires, and its file."""
    cert = _certificate(cert_file, now)
    try:
        cert.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise UserError(str(cert_file), "was not issued by the authority in ca.crt",
                        fix="Use the ca.crt that was made with it, or make new ones.") from error  # fmt: skip
    key = _parsed(key_file, read_private(key_file), lambda data: load_pem_private_key(data, None),
                  "a private key in PEM without a passphrase")  # fmt: skip
    if _public(key.public_key()) != _public(cert.public_key()):
        raise UserError(str(key_file), f"is not the key of {cert_file.name}", fix=MAKE_NEW)
    if host not in (names := _hosts(cert)):
        raise UserError(str(cert_file), f"must name {host}, and names {', '.join(names) or 'no host'}",
                        fix=f"Make new ones with --host {host}.")  # fmt: skip
    return cert.not_valid_after_utc, cert_file


def _check_identity(key_file: Path, public_file: Path) -> None:
    """Check the key of a SuperNode, and its public half."""
    key = _parsed(key_file, read_private(key_file), lambda data: load_ssh_private_key(data, None),
                  "a private key in OpenSSH's format without a passphrase")  # fmt: skip
    public = _parsed(public_file, read_public(public_file), load_ssh_public_key, "a public key in OpenSSH's format")
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UserError(str(key_file), "must be a key on a NIST curve, such as P-384", fix=MAKE_NEW)
    if _public(key.public_key()) != _public(public):
        raise UserError(str(public_file), f"is not the public half of {key_file.name}", fix=MAKE_NEW)


def _parsed(path: Path, content: bytes, parse: Callable[[bytes], T], what: str) -> T:
    try:
        return parse(content)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError(str(path), f"must be {what}", fix=MAKE_NEW) from error


def _public(key: object) -> bytes:
    """Return a public key as bytes that are equal for equal keys."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined, no-any-return]


def _hosts(cert: x509.Certificate) -> list[str]:
    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = names.get_values_for_type(x509.IPAddress)  # type: ignore[assignment]
    return [*names.get_values_for_type(x509.DNSName), *map(str, addresses)]


def _date(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
