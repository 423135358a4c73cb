"""A process that a local service belongs to, in place of a SuperNode."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from waiting import eventually

from clients.service.owner import Owner


@contextmanager
def owning() -> Iterator[tuple[Owner, Path]]:
    """Run a process until the end, when its services must end too; yield it, and a new folder with a short path."""
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        folder = Path("/tmp") / f"fs-{process.pid}"  # a socket's path is short
        try:
            yield Owner(process.pid, started(process.pid)), folder
        finally:
            process.kill()
    eventually(lambda: not list(folder.rglob("*.sock")))
    for file in sorted(folder.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    if folder.exists():
        folder.rmdir()


def started(pid: int) -> int:
    """Return when a process started, in clock ticks."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
