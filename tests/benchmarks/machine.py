"""The machine of a benchmark, and how busy other processes kept it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any


def facts() -> dict[str, Any]:
    """Return the facts on which a measurement depends."""
    return {
        "processor": _line("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "fedscape": f"{version('fedscape')} ({_commit()})",
    }


def _commit() -> str:
    """Return the commit of the tree, with a + where files other than the benchmarks' results differ from it."""
    git = ["git", "-C", str(Path(__file__).parents[2])]
    others = ["--", ".", *(f":!{name}" for name in ("tests/benchmarks/results.json", "docs/benchmarks.md"))]
    try:
        commit, changes = (
            subprocess.run([*git, *ask], capture_output=True, text=True, check=True).stdout.strip()
            for ask in (["describe", "--always"], ["status", "--porcelain", "--untracked-files=no", *others])
        )
    except (OSError, subprocess.CalledProcessError):
        return "no commit"
    return commit + "+" * bool(changes)


def _line(path: str, key: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)


BUSY = 0.05
"""A measurement counts as disturbed if others used this share of the machine."""


@dataclass(frozen=True)
class Child:
    """The last line that a child process printed, as JSON, and its cost.

    Attributes:
        result: the object.
        wall: seconds from its start to its end.
        peak: bytes of its peak memory, of its own children where one is larger.
        others: share of the machine that other processes (and other virtual machines) used meanwhile.
    """

    result: dict[str, Any]
    wall: float
    peak: int
    others: float


class Failed(Exception):
    """A child process ended without a result."""


def run_child(command: Sequence[str], *, timeout: float = 600) -> Child:
    """Run a command to its end.

    Raises:
        Failed: the process failed or printed no JSON; the message has its last lines.
    """
    busy, started = _busy_seconds(), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())
    alarm = threading.Timer(timeout, process.kill)
    alarm.start()
    assert process.stdout is not None
    with process.stdout:
        lines = process.stdout.read().strip().splitlines()
    _, status, used = os.wait4(process.pid, 0)
    alarm.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - started
    others = max(0.0, _busy_seconds() - busy - used.ru_utime - used.ru_stime) / (wall * (os.cpu_count() or 1))
    if process.returncode or not lines or not lines[-1].startswith("{"):
        tail = " | ".join(lines[-3:])
        raise Failed(f"{' '.join(command[-4:])} ended with {process.returncode} after {wall:.0f} s: {tail}")
    return Child(json.loads(lines[-1]), wall, used.ru_maxrss * 1024, others)


def environment() -> dict[str, str]:
    """Return the environment of a child process: this folder and the tree are importable, and it chooses its threads.

    A child must write byte code, as an installed program does.
    """
    here = Path(__file__).resolve().parent
    dropped = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    return kept | quiet | {"PYTHONPATH": os.pathsep.join((str(here), str(here.parent.parent)))}


def busy_share(seconds: float) -> float:
    """Return the share of the machine that was in use over the next seconds."""
    before = _busy_seconds()
    time.sleep(seconds)
    return (_busy_seconds() - before) / (seconds * (os.cpu_count() or 1))


def _busy_seconds() -> float:
    """Return the seconds all processors have worked since the machine started, stolen time included."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
