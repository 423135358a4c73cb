"""A process that plays runs of a study, one after another: imports are paid once.

It gets jobs and sends progress and rows as lines of JSON through a socket. It ignores Ctrl-C, which a terminal sends to
all processes: the study's process decides. It ends when that process does.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

PROGRESS_SECONDS = 0.5
"""Between two messages of progress."""
_DEATH_SIGNAL = 1
"""prctl's PR_SET_PDEATHSIG, Linux."""


class Channel:
    """The socket to the study's process."""

    def __init__(self, number: int) -> None:
        self._socket = socket.socket(fileno=number)
        self._buffer = b""
        self._waiting: list[dict[str, Any]] = []
        self.stops = False

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; one that nobody receives stops the run instead."""
        try:
            self._socket.settimeout(None)
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self.stops = True

    def receive(self) -> dict[str, Any] | None:
        """Wait for the next job; None at the end of the study."""
        while not self._waiting and not self.stops:
            self._read(None)
        return self._waiting.pop(0) if self._waiting and not self.stops else None

    def stop_asked(self) -> bool:
        """Return whether the study stops, or its process is gone."""
        if not self.stops:
            self._read(0.0)
        return self.stops

    def _read(self, seconds: float | None) -> None:
        self._socket.settimeout(seconds)
        try:
            part = self._socket.recv(1 << 20)
        except (BlockingIOError, TimeoutError):
            return
        except OSError:
            part = b""
        if not part:
            self.stops = True
        *lines, self._buffer = (self._buffer + part).split(b"\n")
        messages = [json.loads(line) for line in lines]
        self.stops = self.stops or any("stop" in message for message in messages)
        self._waiting += [message["play"] for message in messages if "play" in message]


class _Reporter:
    """The observer that tells the study how far a run is."""

    def __init__(self, channel: Channel) -> None:
        self._channel, self._rounds, self._due = channel, 0, 0.0

    def run_started(self, facts: dict[str, Any]) -> None:
        """Note the budget."""
        self._rounds = int(facts.get("rounds") or 0)

    def round_finished(self, line: dict[str, Any]) -> None:
        """Send the round's number now and then."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + PROGRESS_SECONDS
            self._channel.send({"round": int(line["round"]), "of": self._rounds})


def main(number: int, path: str, parent: int) -> None:
    """Play the jobs that come through a socket until it is closed.

    Args:
        number: the socket's file descriptor.
        path: the study's folder.
        parent: the id of the study's process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        return
    gc.disable()
    from simulator.studies.folder import StudyFolder
    from simulator.studies.processes.job import play_job
    from simulator.studies.processes.messages import Job

    gc.freeze()
    gc.enable()
    channel, folder = Channel(number), StudyFolder(Path(path))
    channel.send({"ready": True})
    while (message := channel.receive()) is not None:
        row = play_job(folder, Job.from_dict(message), observer=_Reporter(channel), stop_asked=channel.stop_asked)
        sys.stdout.flush()
        sys.stderr.flush()
        channel.send({"played": row})
        gc.collect()
