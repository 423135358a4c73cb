"""Where the service of an owner listens: a socket in a folder that only this user may enter."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from clients.core.errors import ServiceError
from clients.service.owner import Owner

_LONGEST = 100
"""Bytes of a unix socket's path; Linux allows 107."""


@dataclass(frozen=True)
class Place:
    """The files of a service.

    Attributes:
        folder: the folder, of mode 0700.
        name: what they begin with.
    """

    folder: Path
    name: str

    @property
    def socket(self) -> Path:
        """Where the service listens."""
        return self.folder / f"{self.name}.sock"

    @property
    def log(self) -> Path:
        """What the service prints."""
        return self.folder / f"{self.name}.log"

    def remove_socket(self) -> None:
        """Remove the socket of a service that has ended."""
        with suppress(FileNotFoundError):
            self.socket.unlink()

    def remove(self) -> None:
        """Remove all files of a service whose owner has ended."""
        for file in self.folder.glob(f"{self.name}.*"):
            with suppress(OSError):
                file.unlink()

    def remove_others(self) -> None:
        """Remove the files of services that were killed together with their owners.

        A container that shares the folder does not see the owners of others, but the locks of their services.
        """
        for file in self.folder.iterdir():
            with suppress(ValueError, OSError):
                owner, other = Owner.parse(file.stem.replace("-", ":")), Place(self.folder, file.stem)
                if not owner.runs and not other.is_served:
                    file.unlink()

    @property
    def is_served(self) -> bool:
        """Whether a service lives here: it holds the lock "life"."""
        try:
            with open(self.folder / f"{self.name}.life", "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @contextmanager
    def locked(self, what: str, seconds: float) -> Iterator[None]:
        """Hold a lock of the service, which ends with this process: "start" to start it, "life" while it runs.

        Raises:
            ServiceError: another process has held it for so many seconds.
        """
        path = self.folder / f"{self.name}.{what}"
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "r+") as file:
            until = time.monotonic() + seconds
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        problem = f"another process has held {path} for {seconds:g} s"
                        raise ServiceError(f"the local service: {problem}") from None
                    time.sleep(0.02)
            yield


def place_of(owner: Owner, folder: Path | None = None) -> Place:
    """Return the place of an owner's service, and make its folder.

    Args:
        owner: the SuperNode.
        folder: the folder; None takes one in XDG_RUNTIME_DIR, or in /tmp.

    Raises:
        ServiceError: the folder cannot be made, belongs to another user, or others may enter it; or its path is too
            long for a socket.
    """
    if folder is None:
        base = os.environ.get("XDG_RUNTIME_DIR")
        folder = Path(base) / "fedscape" if base and os.path.isdir(base) else Path(f"/tmp/fedscape-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        problem = f"the folder of its socket cannot be made ({error})"
        fix = 'Set XDG_RUNTIME_DIR to a folder that can be written, or start the SuperNode with service="off"'
        raise ServiceError(f"the local service: {problem}. {fix}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        problem = f"{folder} must be a folder of this user that no one else may enter (mode 0700)"
        raise ServiceError(f'the local service: {problem}. Remove it, or start the SuperNode with service="off"')
    place = Place(folder, f"{owner.pid}-{owner.started}")
    if len(os.fsencode(place.socket)) > _LONGEST:
        problem = f"the path {place.socket} is longer than the {_LONGEST} bytes of a socket's"
        raise ServiceError(f"the local service: {problem}. Set XDG_RUNTIME_DIR to a shorter one")
    return place


def peer_user(link: socket.socket) -> int:
    """Return the user id of the process at the other end, by SO_PEERCRED."""
    return peer(link)[1]


def peer(link: socket.socket) -> tuple[int, int]:
    """Return process id and user id of the process at the other end, by SO_PEERCRED."""
    pid, user, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return pid, user
