"""What this process may take: processors, and memory by RAM, its control groups and its own resource limits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clients.core.errors import require

FEW_THREADS, THREADS_EACH = 64, 4
"""Threads that any machine may have, and threads for each processor; more are refused."""


@dataclass(frozen=True)
class Limit:
    """The most bytes that a process may take.

    Attributes:
        bytes: how many.
        what: what limits it.
    """

    bytes: int
    what: str


def memory_limit(root: Path = Path("/")) -> Limit:
    """Return the lowest limit on this process's memory.

    A container's limit is often far below the machine's memory; the system ends a process that exceeds it.

    Args:
        root: where `proc` and `sys` are.
    """
    limits = [Limit(size, "the limit of this process's control group") for size in _control_groups(root)]
    with suppress(ValueError, OSError, AttributeError):  # no such names on some systems
        limits.append(Limit(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "this machine's memory"))
    with suppress(ImportError, ValueError, OSError):
        import resource

        for name in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
            soft = resource.getrlimit(name)[0]
            if soft != resource.RLIM_INFINITY:
                limits.append(Limit(soft, "this process's resource limit (ulimit)"))
    return min(limits, key=lambda limit: limit.bytes, default=Limit(2**63 - 1, "no limit that is known"))


def _control_groups(root: Path) -> Iterator[int]:
    """Yield the memory limits of the control groups of this process and of the groups around them, versions 1 and 2."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers not in ("", "memory") and "memory" not in controllers.split(","):
                continue
            base, name = ("sys/fs/cgroup/memory", "memory.limit_in_bytes") if controllers else (
                "sys/fs/cgroup", "memory.max")  # fmt: skip
            parts = [part for part in path.split("/") if part]
            for depth in range(len(parts), -1, -1):
                with suppress(OSError, ValueError):  # no limit is the word "max"
                    yield int((root / base).joinpath(*parts[:depth], name).read_text())


def memory_used() -> int:
    """Return the bytes of memory that this process has now; 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def checked_threads(threads: int | None, available: int) -> str:
    """Refuse far more threads than processors; return a sentence where there are more; empty otherwise.

    Where the system refuses to start a thread, as in a small container, OpenMP ends the process without an error.

    Raises:
        UserError: there are too many.

    Example:
        >>> checked_threads(8, 2)
        'engine.threads = 8 is more than the 2 processors of this process: threads wait for each other'
        >>> checked_threads(2, 2), checked_threads(None, 2)
        ('', '')
    """
    if threads is None or threads <= available:
        return ""
    words = f"the {available:,} processors" if available > 1 else "the one processor"
    most = max(FEW_THREADS, THREADS_EACH * available)
    problem = f"must be at most {most:,} with {words} of this process, got {threads:,}"
    require(threads <= most, "engine.threads", problem, fix="Leave it out: the faster of one and all is then chosen.")
    return f"engine.threads = {threads:,} is more than {words} of this process: threads wait for each other"
