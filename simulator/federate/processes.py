"""Starts processes through a supervisor, which ends all of them, and theirs, when this process ends in any way."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from clients.core.errors import FedscapeError, UserError
from clients.core.shown.secrets import child_environment

END_SECONDS = 40.0
CLOCK = (
    "the SuperLink has refused a signature (401). Flower refuses that of a node whose clock is more than 5 seconds"
    " ahead of the SuperLink's, or 5 minutes behind: set the clocks"
)
_UNSIGNED = re.compile(r'"POST /v1/fleet/\S+ HTTP/[\d.]+" 401')
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_IDLE = re.compile(r"INFO|For more information, visit|terminated gracefully")


@dataclass(frozen=True)
class End:
    """How a process ended.

    Attributes:
        code: its exit code; negative is a signal.
        log: the file with its output.
        problem: why it could not be started; mostly empty.
    """

    code: int
    log: Path
    problem: str = ""

    @property
    def words(self) -> str:
        """The end and the last lines of the output, in words."""
        how = self.problem or (
            f"was killed by signal {-self.code}" if self.code < 0 else f"ended with code {self.code}"
        )
        last = last_lines(self.log)
        return f"{how}; its log {self.log} ends with: {last}" if last else f"{how}; see {self.log}"


class Processes:
    """The processes of a federation; a context, at whose end none of them is left.

    Args:
        watched: a word in the command lines of the processes whose ids are in `watched`.

    Attributes:
        ended: how processes ended, by their names.
        watched: ids of the watched processes; None before the first look.
        supervisor: the id of the supervisor.

    Raises:
        UserError: this system cannot hold processes so.
    """

    def __init__(self, watched: str) -> None:
        if sys.platform != "linux":
            fix = "Start SuperLink and SuperNodes by hand, as docs/federations.md shows."
            raise UserError("fedscape federate", "needs Linux, to end all processes whatever happens", fix=fix)
        self.ended: dict[str, End] = {}
        self.watched: list[int] | None = None
        self._logs: dict[str, Path] = {}
        self._buffer = b""
        # A session of its own: Ctrl-C of the terminal reaches this process alone, which decides.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "simulator.federate.supervisor", watched],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, env=_own_environment(),
        )  # fmt: skip
        self.supervisor = self._process.pid

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, name: str, argv: Sequence[str], *, env: Mapping[str, str], log: Path) -> None:
        """Start a process; its output is appended to a file."""
        self._logs[name] = log
        self._order({"name": name, "argv": list(argv), "env": dict(env), "log": str(log)})

    def remove_at_end(self, folder: Path) -> None:
        """Delete a folder when all processes have ended."""
        self._order({"remove": str(folder)})

    def poll(self, seconds: float) -> None:
        """Take in reports, and wait for the first at most some seconds.

        Raises:
            FedscapeError: the supervisor is gone.
        """
        out = self._process.stdout
        assert out is not None
        while select.select([out], [], [], seconds)[0]:
            read = os.read(out.fileno(), 65_536)
            if not read:
                raise FedscapeError("the supervisor of the federation's processes was killed")
            *lines, self._buffer = (self._buffer + read).split(b"\n")
            for line in lines:
                report = json.loads(line)
                if "watched" in report:
                    self.watched = report["watched"]
                else:
                    name = report["ended"]
                    self.ended[name] = End(report["code"], self._logs[name], report.get("problem", ""))
            seconds = 0.0

    def close(self) -> None:
        """End all processes, and wait until they are gone."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _order(self, order: Mapping[str, object]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise FedscapeError("the supervisor of the federation's processes was killed") from error


def last_lines(log: Path, count: int = 3, most: int = 600) -> str:
    """Return the last lines of a log that tell something, on one line: without colours and notes on a server's life."""
    lines = [_COLOURS.sub("", line).strip() for line in _end_of(log).splitlines()]
    kept = [line for line in lines if line and not _IDLE.search(line)]
    return " | ".join(kept[-count:])[-most:]


def clock_hint(superlink_log: Path) -> str:
    """Return what the SuperLink's log tells of refused signatures; empty without any. SuperNodes do not print it."""
    return CLOCK if _UNSIGNED.search(_end_of(superlink_log)) else ""


def _end_of(log: Path) -> str:
    """Return the last 32 KiB of a log; empty where it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 32_768))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _own_environment() -> dict[str, str]:
    """Return the environment in which the supervisor finds this package wherever it was imported from."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**child_environment(), "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
