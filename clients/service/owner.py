"""The process that a service belongs to: the SuperNode, found among the ancestors of a message's process. Linux."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROGRAMS = ("flower-supernode", "flower-superexec")
"""Flower's long-lived programs on a node, the better owner first: a SuperExec may be started apart."""

FORKED_FOR = "FEDSCAPE_FORKED_FOR"
"""The variable with the ids of programs that a process was forked for, the last its own; see
`simulator.federate.forked_programs`."""


@dataclass(frozen=True)
class Owner:
    """A process, and when it started: ids are used again.

    Attributes:
        pid: its id.
        started: clock ticks after the machine's start.
    """

    pid: int
    started: int

    def __str__(self) -> str:
        """As an argument of the service, such as "71:90210"."""
        return f"{self.pid}:{self.started}"

    @classmethod
    def parse(cls, text: str) -> Owner:
        """Return the owner that `str` wrote."""
        pid, _, started = text.partition(":")
        return cls(int(pid), int(started))

    @property
    def runs(self) -> bool:
        """Whether it still runs."""
        found = _stat(self.pid)
        return found is not None and found[1] == self.started


def can_own() -> bool:
    """Return whether this system has what the service needs."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


def this_process() -> Owner:
    """Return this process as an owner."""
    found = _stat(os.getpid())
    assert found is not None, "this process runs"
    return Owner(os.getpid(), found[1])


def find_owner(pid: int | None = None) -> Owner | None:
    """Return the SuperNode or SuperExec among the ancestors of a process, by default this one; None without one.

    Where this process was forked for a program (`FORKED_FOR`), the program and its ancestors count.
    """
    if not can_own():
        return None
    ancestors = list(_ancestors(os.getpid() if pid is None else pid))
    if pid is None:
        for asker in map(int, filter(None, os.environ.get(FORKED_FOR, "").split(","))):
            ancestors += [asker, *_ancestors(asker)]
    for program in _PROGRAMS:
        for ancestor in ancestors:
            found = _stat(ancestor)
            if found is not None and program in _programs(ancestor):
                return Owner(ancestor, found[1])
    return None


def wait_for_end(owner: Owner) -> None:
    """Return when a process has ended."""
    try:
        handle = os.pidfd_open(owner.pid)
    except ProcessLookupError:
        return
    try:
        if owner.runs:  # otherwise the id belongs to another process by now
            select.select([handle], [], [])
    finally:
        os.close(handle)


def _ancestors(pid: int) -> Iterator[int]:
    found = _stat(pid)
    while found is not None and found[0] > 0:
        yield found[0]
        found = _stat(found[0])


def _stat(pid: int) -> tuple[int, int] | None:
    """Return parent and start time of a process that has not ended; None for others."""
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] not in ("Z", "X"):
            return int(fields[1]), int(fields[19])
    return None


def _programs(pid: int) -> list[str]:
    """Return the names of the program and of the script that a process runs."""
    with suppress(OSError):
        first, *words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        script = next((word for word in words if not word.startswith(b"-")), b"")
        return [os.path.basename(word.decode(errors="replace")) for word in (first, script)]
    return []
