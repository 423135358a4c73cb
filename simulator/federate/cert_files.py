"""The names of the files in a folder of certificates, and how they are written and read."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from clients.core.errors import UserError

MOST_BYTES = 65_536
"""No file of a certificate or a key is larger."""
MAKE_NEW = "Make new ones: fedscape certs FOLDER."


@dataclass(frozen=True)
class CertFolder:
    """A folder of certificates and keys.

    Attributes:
        path: the folder.
        ca: certificate of the authority that issued the others; each process trusts it alone.
        superlink_cert: the SuperLink's certificate, and `superlink_key` its key.
    """

    path: Path

    @property
    def ca(self) -> Path:
        """The authority's certificate."""
        return self.path / "ca.crt"

    @property
    def superlink_cert(self) -> Path:
        """The SuperLink's certificate."""
        return self.path / "superlink.crt"

    @property
    def superlink_key(self) -> Path:
        """The key of the SuperLink's certificate."""
        return self.path / "superlink.key"

    def node_key(self, node: int) -> Path:
        """Return the key with which a SuperNode proves who it is; its public half is registered at the SuperLink."""
        return self.path / f"node-{node}.key"

    def node_public(self, node: int) -> Path:
        """Return the public half of a SuperNode's key."""
        return self.path / f"node-{node}.pub"

    def node_cert(self, node: int) -> Path:
        """Return the certificate that a SuperNode shows to the processes that it starts on its own machine."""
        return self.path / f"node-{node}-tls.crt"

    def node_cert_key(self, node: int) -> Path:
        """Return the key of `node_cert`."""
        return self.path / f"node-{node}-tls.key"

    def nodes(self) -> int:
        """Return for how many SuperNodes there are keys: those of `node-0.key`, `node-1.key`, ... without a gap."""
        count = 0
        while self.node_key(count).exists():
            count += 1
        return count


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that its owner alone may read.

    Raises:
        UserError: it exists, or the system refuses.
    """
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(number, "wb") as file:
            os.fchmod(number, 0o600)
            file.write(content)
    except OSError as error:
        raise UserError(str(path), f"cannot be written: {error.strerror}") from error


def read_public(path: Path) -> bytes:
    """Return the content of a file that others may read, such as a certificate.

    Raises:
        UserError: it is missing, too large or no regular file.
    """
    return _read(path)[0]


def read_private(path: Path) -> bytes:
    """Return the content of a key's file.

    Raises:
        UserError: others may read or change it; or as `read_public`.
    """
    content, mode = _read(path)
    if mode & 0o077:
        problem = f"may be used by others than its owner (mode {mode:04o})"
        raise UserError(str(path), problem, fix=f"chmod 600 {path}, or make a new key if others had access.")
    return content


def _read(path: Path) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise UserError(str(path), "must be a regular file")
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(str(path), f"cannot be read: {error.strerror}", fix=MAKE_NEW) from error
    if len(content) > MOST_BYTES:
        raise UserError(str(path), f"must have at most {MOST_BYTES} bytes")
    return content, stat.S_IMODE(found.st_mode)
