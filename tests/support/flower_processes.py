"""Processes of real federations in tests: `fedscape federate` in the background, and what is left of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from waiting import eventually

PATIENCE = 240.0


def federating(folder: Path, *arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """Start `fedscape federate ... --out folder/run`, with its private folder inside `folder`."""
    return _started(folder, *arguments, "--out", str(folder / "run"))


def resuming(folder: Path, *arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """Start `fedscape federate --resume folder/run`."""
    return _started(folder, "--resume", str(folder / "run"), *arguments)


@contextmanager
def _started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "simulator.cli", "federate", *arguments]
    private = folder / "private"
    private.mkdir(exist_ok=True)
    env = {**os.environ, "TMPDIR": str(private)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_rounds(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    """Wait until round 0 and `count` more are recorded."""
    rounds = folder / "run" / "rounds.jsonl"

    def recorded() -> bool:
        if process.poll() is not None:
            _, errors = process.communicate()
            raise AssertionError(f"ended with {process.returncode}: {errors}")
        return rounds.exists() and rounds.read_bytes().count(b"\n") > count

    eventually(recorded, seconds=PATIENCE)


def processes_naming(text: Path | str) -> dict[int, str]:
    """Return the commands, by id, of the living processes whose command line or environment has a text."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            state = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0]
            command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue
        if state != b"Z" and str(text).encode() in command + environment:
            found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found
