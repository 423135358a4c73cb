"""Simulators in turn on one workload: who takes part, and how their times become ratios."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import Child, Failed, run_child

HERE = Path(__file__).resolve().parent
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
OURS = "fedscape"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Competitor:
    """One of the timed programs.

    Attributes:
        name: its key in the results.
        command: its interpreter, script and arguments before the workload's name.
        rounds: rounds of each workload in a process; it takes no part in the others.
        threads: numbers of threads (or processes) to try; the fastest is timed. Empty: the program chooses.
        measures_others: whether the processor time of its processes can be told from that of other programs.
    """

    name: str
    command: tuple[str, ...]
    rounds: Mapping[str, int]
    threads: tuple[int, ...] = ()
    measures_others: bool = True


@dataclass
class Timed:
    """The times of one competitor with one number of threads: seconds of the rounds of each process."""

    processes: list[list[float]] = field(default_factory=list)
    children: list[Child] = field(default_factory=list)
    problem: str = ""

    @property
    def medians(self) -> list[float]:
        """Return the median round of each process."""
        return [statistics.median(s) for s in self.processes]


def race(who: Sequence[Competitor], workload: str, repeats: int, say: Say) -> dict[str, dict[str, Any]]:
    """Time all competitors on one workload in turn: A B C, A B C, ...

    The first turn runs each number of threads of a competitor; later turns only its fastest.

    Returns:
        By name: the median round, its ratio to ours turn by turn (median, lowest, highest), threads and cost.
    """
    best: dict[str, tuple[int | None, Timed]] = {}
    who = [c for c in who if workload in c.rounds]
    for c in who:
        tried = {n: _turn(c, workload, n, Timed(), say) for n in c.threads or (None,)}
        best[c.name] = min(tried.items(), key=lambda item: min(item[1].medians, default=float("inf")))
    for _ in range(repeats - 1):
        for c in who:
            threads, timed = best[c.name]
            if not timed.problem:
                _turn(c, workload, threads, timed, say)
    ours = best[OURS][1].medians
    return {c.name: _result(*best[c.name], ours, c) for c in who}


def _turn(c: Competitor, workload: str, threads: int | None, timed: Timed, say: Say) -> Timed:
    """Run one process; add its times, or what went wrong."""
    last = [] if threads is None else [str(threads)]
    try:
        child = run_child([*c.command, workload, str(c.rounds[workload]), *last])
    except Failed as error:
        timed.problem = str(error)
        say(f"  {workload:7} {c.name:13} {error}")
        return timed
    timed.processes.append(child.result["seconds"])
    timed.children.append(child)
    with_threads = "" if threads is None else f", {threads} thread{'s' if threads > 1 else ''}"
    say(f"  {workload:7} {c.name:13} {1e3 * timed.medians[-1]:9.2f} ms a round{with_threads}")
    return timed


def _result(threads: int | None, timed: Timed, ours: list[float], c: Competitor) -> dict[str, Any]:
    if not timed.children or timed.problem:
        return {"problem": timed.problem}
    ratios = [theirs / own for theirs, own in zip(timed.medians, ours, strict=False)]
    return {
        "seconds": statistics.median(timed.medians),
        "processes": timed.medians,
        "rounds": sum(map(len, timed.processes)),
        "ratio": statistics.median(ratios) if ratios else None,
        "ratios": ratios,
        "threads": threads,
        "engine": timed.children[-1].result.get("engine"),
        "peak": max(child.peak for child in timed.children),
        "others": max(child.others for child in timed.children) if c.measures_others else None,
    }


@dataclass(frozen=True)
class Peer:
    """Another simulator, in an environment of its own that `make bench-peers` makes.

    Attributes:
        name: its key in the results.
        environment: the folder of its environment.
        script: in `peers/`.
        package: the distribution whose version is recorded.
        few: rounds of each workload.
    """

    name: str
    environment: str
    script: str
    package: str
    few: Mapping[str, int]
    measures_others: bool = True


FEW = {"logreg": 5, "mlp": 5, "gru": 4, "2nn": 5, "cnn": 3}
MANY = {"logreg": 100, "mlp": 40, "gru": 12, "2nn": 12, "cnn": 5}
PEERS = (
    Peer("Flower", ".venv-flower", "flower_ray.py", "flwr", FEW, measures_others=False),
    Peer("pfl-research", ".venv-pfl", "pfl_research.py", "pfl", FEW),
    Peer("FedJAX", ".venv-fedjax", "fedjax_jit.py", "fedjax", FEW),
)


def competitors(environments: Path, *, quick: bool) -> tuple[list[Competitor], dict[str, str]]:
    """List the installed competitors, and the version of each peer; an empty one marks a peer that is missing."""
    both = (1,) if quick else tuple(sorted({1, CORES}))
    ours = dict.fromkeys(MANY, 3) if quick else MANY
    few = {"logreg": 1} if quick else FEW
    found = [
        Competitor(OURS, (sys.executable, str(HERE / "ours.py"), "user"), ours),
        Competitor("plain loop", (sys.executable, str(HERE / "peers" / "plain_loop.py")), few, both),
    ]
    versions = {}
    for peer in PEERS:
        python = environments / peer.environment / "bin" / "python"
        versions[peer.name] = _version(python, peer.package)
        if versions[peer.name]:
            command = (str(python), str(HERE / "peers" / peer.script))
            found.append(Competitor(peer.name, command, few, both, peer.measures_others))
    return found, versions


def _version(python: Path, package: str) -> str:
    """Return the version of a package in another environment, empty without either."""
    ask = f"from importlib.metadata import version; print(version({package!r}))"
    try:
        done = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
