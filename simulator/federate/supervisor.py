"""The process that holds all processes of a federation, and ends them whatever happens to the one that started it.

Run as `python -m simulator.federate.supervisor NAME`. It reads one JSON object a line: `{"name", "argv", "env", "log"}`
starts a process, `{"remove": FOLDER}` names a folder to delete at the end. It writes one JSON object a line:
`{"ended": name, "code": code}`, and `{"watched": [pids]}` when processes with NAME in their command appear or vanish.

At the end of its input, also where its parent was killed, it kills all its descendants: it is their subreaper, so a
process whose parent has died, or that has left its session, is still found below it. Linux alone has this.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TICK_SECONDS = 0.2
KILL_SECONDS = 30.0
"""A process in the kernel may not end at once; after so many seconds it is left."""
_PDEATHSIG, _SUBREAPER = 1, 36
"""prctl's PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER."""


class Supervisor:
    """Starts processes as its parent says, and reports their ends.

    Args:
        watched: a word in the command lines of the processes whose ids are reported.
    """

    def __init__(self, watched: str) -> None:
        self._watched, self._seen = watched.encode(), [0]
        self._names: dict[int, str] = {}
        self._folders: list[str] = []
        self._parent = os.getppid()
        self._input = b""

    def serve(self) -> None:
        """Work until the parent is gone or closes the input."""
        while os.getppid() == self._parent:
            if select.select([0], [], [], TICK_SECONDS)[0]:
                read = os.read(0, 65_536)
                if not read:
                    return
                *lines, self._input = (self._input + read).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))
            self._reap()
            self._look()

    def end(self) -> None:
        """Kill every descendant, and delete the folders."""
        kill_descendants(os.getpid(), KILL_SECONDS)
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _obey(self, order: Mapping[str, Any]) -> None:
        if "remove" in order:
            self._folders.append(order["remove"])
            return
        try:
            with open(order["log"], "ab") as log:
                process = subprocess.Popen(
                    order["argv"], env=order["env"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    preexec_fn=_die_with_parent,
                )  # fmt: skip
        except OSError as error:
            _report({"ended": order["name"], "code": 127, "problem": f"{error.filename}: {error.strerror}"})
            return
        self._names[process.pid] = order["name"]

    def _reap(self) -> None:
        """Collect ended processes, those of others included."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if (name := self._names.pop(pid, None)) is not None:
                _report({"ended": name, "code": os.waitstatus_to_exitcode(status)})

    def _look(self) -> None:
        found = [pid for pid in descendants(os.getpid()) if self._watched in _command(pid)]
        if found != self._seen:
            self._seen = found
            _report({"watched": found})


def descendants(root: int) -> list[int]:
    """Return the ids of the living processes below a process, in increasing order."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_bytes()
        except OSError:  # it has ended
            continue
        state, parent = stat.rpartition(b")")[2].split()[:2]
        if state not in (b"Z", b"X"):
            parents[int(entry)] = int(parent)
    below: set[int] = {root}
    while found := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= found
    return sorted(below - {root})


def kill_descendants(root: int, seconds: float) -> None:
    """Kill all processes below this one until none is left.

    A process that is started while this runs has a dead parent, so it is below the subreaper in the next pass.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for pid in descendants(root):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)


def _report(what: Mapping[str, Any]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def _end(number: int, frame: object) -> None:
    raise SystemExit


def main(watched: str) -> None:
    """Serve the parent, then end everything."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    supervisor = Supervisor(watched)
    try:
        supervisor.serve()
    except BrokenPipeError:
        pass  # the parent is gone
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        supervisor.end()


if __name__ == "__main__":
    main(sys.argv[1])
