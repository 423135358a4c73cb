"""The service: it takes messages from processes of its own user, and answers them one after another.

Connections have threads, which greet, receive, and beat while the answer is made. Answers are made in the main thread,
whose end is the end of the ranks that it has forked.
"""

from __future__ import annotations

import importlib
import os
import queue
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from clients.core.errors import FedscapeError
from clients.service.frames import Frame, FrameError, Kind, receive, send
from clients.service.owner import Owner, wait_for_end
from clients.service.place import Place, peer_user

Answer = Callable[[str, Mapping[str, Any], bytes], bytes]
"""(kind, node, content) -> content."""
BEAT_SECONDS = 5.0
FIRST_SECONDS = 30.0
"""The message that started the service has so many seconds to come."""
FRAME_SECONDS = 60.0
"""A frame that takes longer ends its connection."""
_MOST_CONNECTIONS = 64


@dataclass
class _Job:
    """A message, and its answer once it is made."""

    ask: Frame
    answer: Frame | None = None
    done: threading.Event = field(default_factory=threading.Event)


def listen(place: Place) -> socket.socket:
    """Return the listening socket, of mode 0600; it is at its place only when it listens."""
    new = place.folder / f"{place.name}.new"
    with suppress(FileNotFoundError):
        new.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(new))
    new.chmod(0o600)
    listener.listen(_MOST_CONNECTIONS)
    new.rename(place.socket)
    return listener


class Server:
    """Answers messages until its owner ends, or none came for some time.

    Args:
        place: where it listens.
        listener: the listening socket.
        answer: "module:function", imported at the first message.
        user: link -> the user at its other end.
        most: the largest content that is accepted, in bytes; None for that of frames.
    """

    def __init__(
        self,
        place: Place,
        listener: socket.socket,
        answer: str,
        *,
        user: Callable[[socket.socket], int] = peer_user,
        most: int | None = None,
    ) -> None:
        self._place, self._listener, self._name, self._user, self._most = place, listener, answer, user, most
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._ending = False
        self._answer: Answer | None = None

    def serve(self, owner: Owner, idle_seconds: float, first_seconds: float = FIRST_SECONDS) -> None:
        """Answer messages in this thread until none came for so many seconds. The owner's end ends the process."""
        threading.Thread(target=self._end_with, args=(owner,), name="owner", daemon=True).start()
        threading.Thread(target=self._accept, name="connections", daemon=True).start()
        seconds = max(idle_seconds, first_seconds)
        while self._answer_next(seconds):
            seconds = idle_seconds
        self._place.remove_socket()
        self._ending = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts; later connections are reset
        self._listener.close()
        while self._connections:  # those that were greeted are answered
            self._answer_next(0.05)

    def _answer_next(self, seconds: float) -> bool:
        """Answer the next message; return whether one came within so many seconds."""
        try:
            job = self._jobs.get(timeout=seconds)
        except queue.Empty:
            return False
        job.answer = self._answered(job.ask)
        job.done.set()
        return True

    @property
    def _connections(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _end_with(self, owner: Owner) -> None:
        wait_for_end(owner)
        self._place.remove()
        os._exit(0)  # at once, in the middle of an answer too; ranks end with this process

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                if self._listener.fileno() < 0 or self._ending:
                    return
                time.sleep(0.1)  # such as too many open files
                continue
            thread = threading.Thread(target=self._connection, args=(link,), daemon=True)
            self._threads = [one for one in self._threads if one.is_alive()]
            if len(self._threads) >= _MOST_CONNECTIONS:
                link.close()
                continue
            self._threads.append(thread)
            thread.start()

    def _connection(self, link: socket.socket) -> None:
        with link, suppress(OSError):
            try:
                if self._user(link) != os.getuid():
                    return
                send(link, Frame(Kind.HELLO), FRAME_SECONDS)
                limits = {} if self._most is None else {"most": self._most}
                ask = receive(link, FRAME_SECONDS, **limits)
                if ask is None or ask.kind != Kind.ASK:
                    return
                job = _Job(ask)
                self._jobs.put(job)
                while not job.done.wait(BEAT_SECONDS):
                    send(link, Frame(Kind.BEAT), FRAME_SECONDS)
                assert job.answer is not None, "it is done"
                send(link, job.answer, FRAME_SECONDS)
            except FrameError as error:
                send(link, Frame(Kind.FAILED, {"reason": f"the local service refused the message: {error}"}), 1.0)

    def _answered(self, ask: Frame) -> Frame:
        """Make an answer; an error is one too, and the next message has another chance."""
        try:
            if self._answer is None:
                module, _, function = self._name.partition(":")
                self._answer = getattr(importlib.import_module(module), function)
            return Frame(Kind.ANSWER, {}, self._answer(str(ask.head["kind"]), ask.head["node"], bytes(ask.body)))
        except Exception as error:
            traceback.print_exc()
            words = str(error) if isinstance(error, FedscapeError) else f"{type(error).__name__}: {error}"
            return Frame(Kind.FAILED, {"reason": words[:2000]})
