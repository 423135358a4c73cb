"""The side of a message's process: it finds or starts the service, asks, and waits for the answer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clients
from clients.core.errors import ServiceError
from clients.service.frames import Frame, FrameError, Kind, receive, send
from clients.service.owner import Owner
from clients.service.place import Place, peer_user

START_SECONDS = 60.0
"""A service that does not listen after so many seconds does not come; it imports nothing heavy before."""
SILENT_SECONDS = 60.0
"""A service that gives no sign for so many seconds hangs; it beats every few seconds while it works."""
IDLE_SECONDS = 1800.0
"""A service without a message ends after so many seconds."""
_ATTEMPTS = 3
_LOG_TAIL = 500


@dataclass(frozen=True)
class Service:
    """The service of one node.

    Attributes:
        place: where it listens.
        owner: the process that it ends with.
        answer: "module:function" of what answers, (kind, node, content) -> content.
        idle_seconds: after which it ends without a message.
        silent_seconds: after which a service without a sign counts as hanging.
    """

    place: Place
    owner: Owner
    answer: str
    idle_seconds: float = IDLE_SECONDS
    silent_seconds: float = SILENT_SECONDS

    def ask(self, kind: str, node: Mapping[str, Any], content: bytes, seconds: float) -> bytes:
        """Return the service's answer to a message; the first message starts the service.

        Args:
            kind: of the message.
            node: what JSON can express of the node.
            content: of the message, in protobuf.
            seconds: within which the answer must come.

        Raises:
            ServiceError: the service failed, hangs, or ended; the next message starts a new one where it ended.
        """
        for _ in range(_ATTEMPTS):
            with self._reach() as link:
                try:
                    hello = receive(link, self.silent_seconds)
                    if hello is None:  # it was about to end
                        continue
                    send(link, Frame(Kind.ASK, {"kind": kind, "node": dict(node)}, content), self.silent_seconds)
                except ConnectionError:
                    continue
                except (FrameError, OSError) as error:
                    raise ServiceError(f"the local service cannot be reached: {error}") from error
                return self._answer(link, time.monotonic() + seconds)
        raise ServiceError(f"the local service ended {_ATTEMPTS} times before it took the message{self._log()}")

    def _answer(self, link: socket.socket, until: float) -> bytes:
        while True:
            try:
                found = receive(link, self.silent_seconds)
            except TimeoutError as error:
                problem = f"has given no sign for {self.silent_seconds:g} s"
                raise ServiceError(f"the local service {problem}; end it with its SuperNode") from error
            except (FrameError, OSError) as error:
                raise ServiceError(f"the local service ended while it worked ({error}){self._log()}") from error
            if found is None:
                raise ServiceError(f"the local service ended while it worked (out of memory?){self._log()}")
            if found.kind == Kind.ANSWER:
                return bytes(found.body)
            if found.kind == Kind.FAILED:
                raise ServiceError(str(found.head.get("reason", "it failed")))
            if time.monotonic() > until:
                raise ServiceError("the local service did not answer before the message expired")

    def _reach(self) -> socket.socket:
        """Return a connection, to a new service where none listens."""
        if (link := self._connect()) is not None:
            return link
        with self.place.locked("start", START_SECONDS):
            if (link := self._connect()) is not None:  # another message has started it meanwhile
                return link
            self.place.remove_socket()
            self._start()
            if (link := self._connect()) is not None:
                return link
        raise ServiceError(f"the local service has started and does not listen{self._log()}")

    def _connect(self) -> socket.socket | None:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(self.silent_seconds)
        try:
            link.connect(str(self.place.socket))
        except (FileNotFoundError, ConnectionRefusedError):
            link.close()
            return None
        except OSError as error:
            link.close()
            raise ServiceError(f"the local service at {self.place.socket} cannot be reached: {error}") from error
        if peer_user(link) != os.getuid():
            link.close()
            raise ServiceError(f"the local service at {self.place.socket} belongs to another user")
        return link

    def _start(self) -> None:
        """Start the service; its first process ends when it listens.

        Raises:
            ServiceError: it did not start.
        """
        root = str(Path(clients.__file__).parents[1])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        command = [sys.executable, "-m", "clients.service", str(self.place.folder), self.place.name, str(self.owner),
                   self.answer, str(self.idle_seconds)]  # fmt: skip
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(self.place.log, flags, 0o600), "w") as log:
            try:
                code = subprocess.run(
                    command, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, start_new_session=True, timeout=START_SECONDS, check=False,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired as error:
                raise ServiceError(f"the local service did not start within {START_SECONDS:g} s") from error
        if code:
            raise ServiceError(f"the local service did not start (exit code {code}){self._log()}")

    def _log(self) -> str:
        """Return the end of what the service printed, as the end of a sentence."""
        with suppress(OSError):
            text = self.place.log.read_text(errors="replace").strip()[-_LOG_TAIL:]
            return f"; {self.place.log} ends: {text}" if text else ""
        return ""
