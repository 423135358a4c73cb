"""The processes of a study: started, given runs, watched, and replaced when they are lost."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from clients.core.errors import UserError
from simulator.studies.processes.messages import Job

_START = """
import sys
from simulator.studies.processes.process import main
main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
"""
END_SECONDS = 20.0
"""A process that does not end within so many seconds after its channel is closed is killed."""


class PlayingProcess:
    """One process that plays runs.

    Attributes:
        job: the run that it plays; None while it is idle.
    """

    def __init__(self, folder: Path, log: Path) -> None:
        ours, theirs = socket.socketpair()
        self.socket = ours
        self.job: Job | None = None
        self._buffer = b""
        paths = [part for part in sys.path if part] + [os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, paths)))}
        arguments = [sys.executable, "-c", _START, str(theirs.fileno()), str(folder), str(os.getpid())]
        with log.open("ab") as output, theirs, _ctrl_c_ignored():
            self._process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment,
                pass_fds=[theirs.fileno()],
            )  # fmt: skip

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; a process that is gone is noticed when it is read."""
        with suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> list[dict[str, Any]] | None:
        """Return the messages that have come; None where the process is gone."""
        try:
            part = self.socket.recv(1 << 20)
        except OSError:
            part = b""
        if not part:
            return None
        *lines, self._buffer = (self._buffer + part).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Close the channel, at which the process stops after its round."""
        self.socket.close()

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()

    def wait(self) -> str:
        """Wait for the end of the process, and return how it ended, in words."""
        try:
            code = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            return f"was killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
        return f"ended with code {code}"


class Pool:
    """The processes of a study.

    Args:
        folder: the study's folder.
        log: the file that gets what they print.
        size: how many.

    Raises:
        UserError: processes cannot be given a channel on this system.
    """

    def __init__(self, folder: Path, log: Path, size: int) -> None:
        if sys.platform == "win32":
            raise UserError("processes", "cannot be started on Windows", fix="Run the study on Linux or macOS.")
        self._folder, self._log = folder, log
        self._selector = selectors.DefaultSelector()
        self._all: list[PlayingProcess] = []
        for _ in range(size):
            self._start()

    def _start(self) -> None:
        process = PlayingProcess(self._folder, self._log)
        self._all.append(process)
        self._selector.register(process.socket, selectors.EVENT_READ, process)

    @property
    def idle(self) -> list[PlayingProcess]:
        """The processes without a run."""
        return [process for process in self._all if process.job is None]

    @property
    def playing(self) -> list[PlayingProcess]:
        """The processes with a run."""
        return [process for process in self._all if process.job is not None]

    def play(self, process: PlayingProcess, job: Job) -> None:
        """Give an idle process a run."""
        process.job = job
        process.send({"play": job.to_dict()})

    def wait(self, seconds: float) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Yield what the processes say of their runs, waiting for the first message at most some seconds.

        Yields:
            (run, message): `round` and `of`; `played` with the row; or `lost` with how its process ended.
        """
        for key, _ in self._selector.select(seconds):
            process: PlayingProcess = key.data
            messages = process.read()
            if messages is None:
                yield from self._lost(process)
                continue
            for message in messages:
                job = process.job
                if job is None or "ready" in message:
                    continue
                if "played" in message:
                    process.job = None
                yield job, message

    def _lost(self, process: PlayingProcess) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Start another process instead of one that is gone, unless it was gone before its first run."""
        self._selector.unregister(process.socket)
        self._all.remove(process)
        process.close()
        how = process.wait()
        if process.job is not None:
            self._start()
            yield process.job, {"lost": how}
        elif not self._all:
            problem = f"cannot be started: the last one {how}"
            raise UserError("processes", problem, fix=f"Its output is in {self._log}.")

    def stop(self) -> None:
        """Have all processes stop after their rounds."""
        for process in self._all:
            process.send({"stop": True})

    def release(self, *, at_once: bool = False) -> None:
        """Have all processes end: after their rounds, or at once. `close` waits for them."""
        for process in self._all:
            self._selector.unregister(process.socket)
            if at_once:
                process.kill()
            process.close()
        self._selector.close()

    def close(self) -> None:
        """Wait for the ends of the processes that were released."""
        for process in self._all:
            process.wait()
        self._all = []


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Start a process that ignores Ctrl-C from its first moment."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
