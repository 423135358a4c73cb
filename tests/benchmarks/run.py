"""Times fedscape, a plain loop, Flower and pfl-research in turn, and writes the results.

make bench              about 4 minutes, 10 with the peers that `make bench-peers` installs
python tests/benchmarks/run.py --help

Writes tests/benchmarks/results.json, and the measured part of docs/benchmarks.md between its two marks.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from city import SOURCES
from machine import Child, Failed, Patience, facts
from report import markdown, write_between_marks
from workloads import WORKLOADS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Competitor:
    """One of the timed programs.

    Attributes:
        name: its key in the results.
        python: its interpreter.
        script: the script and the arguments before the workload's name.
        rounds: rounds of each workload in a child process.
        threads: numbers of threads to try once each; the fastest is timed. Empty: the program chooses.
    """

    name: str
    python: Path
    script: tuple[str, ...]
    rounds: dict[str, int]
    threads: tuple[int, ...] = ()

    def command(self, workload: str, threads: int | None) -> list[str]:
        """Return the command of one child process."""
        last = [] if threads is None else [str(threads)]
        return [str(self.python), str(HERE / self.script[0]), *self.script[1:], workload,
                str(self.rounds[workload]), *last]  # fmt: skip


@dataclass
class Timed:
    """The results of one competitor on one workload; lists have one element a child process."""

    threads: int | None = None
    medians: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    children: list[Child] = field(default_factory=list)
    problem: str = ""

    def add(self, child: Child) -> None:
        """Add the result of a child process."""
        self.medians.append(statistics.median(child.result["seconds"]))
        self.seconds += child.result["seconds"]
        self.children.append(child)

    def result(self) -> dict[str, Any]:
        """Return plain values: the median of all rounds, the range of medians over processes, and the cost."""
        if not self.children:
            return {"problem": self.problem}
        return {
            "seconds": statistics.median(self.seconds),
            "low": min(self.medians),
            "high": max(self.medians),
            "rounds": len(self.seconds),
            "processes": len(self.medians),
            "threads": self.threads,
            "engine": self.children[-1].result.get("engine"),
            "peak": max(c.peak for c in self.children),
            "others": max(c.others for c in self.children),
        }


def competitors(peers: dict[str, Path]) -> list[Competitor]:
    """List the installed competitors."""
    ours = Competitor("fedscape", Path(sys.executable), ("ours.py", "user"), {"logreg": 100, "2nn": 12, "cnn": 5})
    few = {"logreg": 5, "2nn": 5, "cnn": 3}
    both = tuple(sorted({1, CORES}))
    loop = Competitor("plain loop", Path(sys.executable), ("plain_loop.py",), few, both)
    found = [ours, loop]
    for name, script, threads in (("Flower", "flower_ray.py", (CORES,)), ("pfl-research", "pfl_research.py", both)):
        if peers[name].exists():
            found.append(Competitor(name, peers[name], (script,), few, threads))
    return found


def race(
    who: Sequence[Competitor], workload: str, repeats: int, patience: Patience, say: Callable[[str], None]
) -> dict[str, Any]:
    """Time all competitors on one workload, in turn: A B C, A B C, ..."""
    timed = {c.name: Timed() for c in who}
    for c in who:
        if len(c.threads) > 1:
            speeds = {n: t for n in c.threads if (t := _once(c, workload, n, timed[c.name], patience, say)) is not None}
            timed[c.name].threads = min(speeds, key=lambda n: speeds[n]) if speeds else c.threads[0]
            timed[c.name] = Timed(timed[c.name].threads, problem=timed[c.name].problem)
        elif c.threads:
            timed[c.name].threads = c.threads[0]
    for _ in range(repeats):
        for c in who:
            _once(c, workload, timed[c.name].threads, timed[c.name], patience, say)
    return {name: t.result() for name, t in timed.items()}


def _once(
    c: Competitor, workload: str, threads: int | None, into: Timed, patience: Patience, say: Callable[[str], None]
) -> float | None:
    try:
        child = patience.run_child(c.command(workload, threads), separates_own_use=c.name != "Flower")
    except Failed as error:
        into.problem = str(error)
        say(f"  {workload:7} {c.name:13} {error}")
        return None
    into.add(child)
    with_threads = "" if threads is None else f", {threads} thread{'s' if threads > 1 else ''}"
    say(f"  {workload:7} {c.name:13} {1e3 * into.medians[-1]:9.2f} ms a round{with_threads}")
    return into.medians[-1]


def observing(patience: Patience, repeats: int, rounds: int = 100) -> dict[str, Any]:
    """Measure the cost of observing on every round of logreg, as a share of the round."""
    found = [
        patience.run_child([sys.executable, str(HERE / "ours.py"), "observing", "logreg", str(rounds)])
        for _ in range(repeats)
    ]
    observed = statistics.median(s for c in found for s in c.result["observed"])
    bare = statistics.median(s for c in found for s in c.result["bare"])
    return {"observed": observed, "bare": bare, "share": (observed - bare) / observed}


def ragged(patience: Patience, repeats: int) -> dict[str, Any]:
    """Measure the cost of log-normal sizes, by workload and sigma."""
    found = {}
    for workload, rounds, sigma in (
        ("logreg", 40, 0.5),
        ("logreg", 40, 1.0),
        ("2nn", 6, 0.5),
        ("2nn", 6, 1.0),
        ("cnn", 2, 1.0),
    ):
        command = [sys.executable, str(HERE / "ragged.py"), workload, str(rounds), str(sigma)]
        found = [patience.run_child(command).result for _ in range(repeats)]
        equal = statistics.median(s for r in found for s in r["equal"])
        unequal = statistics.median(s for r in found for s in r["ragged"])
        found[f"{workload} {sigma}"] = {"equal": equal, "ragged": unequal, "loss": unequal / equal - 1} | {
            k: v for k, v in found[-1].items() if k not in ("equal", "ragged")
        }
    return found


def growth(patience: Patience) -> dict[str, list[dict[str, Any]]]:
    """Measure time and memory over cohort and population."""
    points = {
        "cohort": [(10_000, k, n) for k, n in ((10, 20), (100, 20), (1000, 10), (10_000, 5))],
        "population": [(n, 100, 20) for n in (100, 1000, 10_000, 100_000, 1_000_000)],
    }
    found = {}
    for what, settings in points.items():
        rows = [patience.run_child([sys.executable, str(HERE / "growth.py"), *map(str, s)]).result for s in settings]
        found[what] = [r | {"seconds": statistics.median(r["seconds"])} for r in rows]
    return found


def first_round(patience: Patience, repeats: int) -> dict[str, float]:
    """Measure the default scenario from the command to its first recorded round."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    seconds = []
    for _ in range(repeats + 1):
        patience.wait()
        with tempfile.TemporaryDirectory() as folder:
            record = Path(folder) / "run" / "rounds.jsonl"
            started = time.perf_counter()
            command = [
                sys.executable,
                "-m",
                "simulator.cli",
                "run",
                "--out",
                str(record.parent),
                "--set",
                "run.rounds=1",
            ]
            with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL) as process:
                while not (record.exists() and '"round": 1,' in record.read_text()):
                    assert process.poll() is None, "the run ended without a round"
                    time.sleep(0.01)
                seconds.append(time.perf_counter() - started)
    return {"first": seconds[0], "again": statistics.median(seconds[1:])}


def generator_cost(patience: Patience) -> dict[str, Any]:
    """Run the benchmark of the random numbers."""
    return patience.run_child([sys.executable, str(HERE / "generator_cost.py")]).result


def city(patience: Patience, rounds: int) -> list[dict[str, Any]]:
    """Measure a million sites of every generated source, each in its own process."""
    found = []
    for source in SOURCES:
        command = [sys.executable, str(HERE / "city.py"), "--one", source, f"run.rounds={rounds}"]
        found.append(patience.run_child(command).result)
    return found


def main() -> int:
    """Run the benchmarks that the arguments name."""
    parser = argparse.ArgumentParser(description="Time fedscape and other simulators in turn.")
    parser.add_argument("--repeats", type=int, default=3, help="child processes of each competitor and workload")
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--flower", type=Path, default=ROOT / ".venv-flower/bin/python", help="Flower's interpreter")
    parser.add_argument("--pfl", type=Path, default=ROOT / ".venv-pfl/bin/python", help="pfl-research's interpreter")
    parser.add_argument(
        "--race-only", action="store_true", help="leave out memory, growth, ragged clients and the rest"
    )
    waits = "on a shared machine: wait for quiet and repeat disturbed measurements, for at most this long in all"
    parser.add_argument("--patience", type=float, default=0, metavar="SECONDS", help=waits)
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument(
        "--only", choices=["city"], help="measure this alone, and keep what results.json has of the rest"
    )
    options = parser.parse_args()
    say: Callable[[str], None] = lambda text: print(text, flush=True)  # noqa: E731
    peers = {"Flower": options.flower, "pfl-research": options.pfl}
    started, patience = time.perf_counter(), Patience(options.patience)
    if options.only:
        results = json.loads((HERE / "results.json").read_text())
        results[options.only] = {"date": date.today().isoformat(), "rows": city(patience, 8)}
        return finish(results, write=not options.no_write, say=say)
    results = {"date": date.today().isoformat(), "machine": facts(), "load": os.getloadavg()[0]}
    say(f"{results['machine']}, load {results['load']:.2f} before the start")
    who = competitors(peers)
    results["missing"] = [name for name, python in peers.items() if not python.exists()]
    for name in results["missing"]:
        say(f"{name}: not installed (make bench-peers)")
    results["workloads"] = {w: race(who, w, options.repeats, patience, say) for w in options.workloads}
    if not options.race_only:
        for name, measure in (
            ("observing", lambda: observing(patience, options.repeats)),
            ("ragged", lambda: ragged(patience, 2)),
            ("growth", lambda: growth(patience)),
            ("first_round", lambda: first_round(patience, options.repeats)),
            ("generator", lambda: generator_cost(patience)),
            ("city", lambda: {"date": results["date"], "rows": city(patience, 8)}),
        ):
            say(f"  {name}")
            try:
                results[name] = measure()
            except Failed as error:
                results[name] = {"problem": str(error)}
    results["patience"], results["repeated"] = options.patience, patience.repeated
    results["took"] = time.perf_counter() - started
    return finish(results, write=not options.no_write, say=say)


def finish(results: dict[str, Any], *, write: bool, say: Callable[[str], None]) -> int:
    """Print the results, and write them."""
    text = markdown(results)
    say(f"\n{text}")
    if write:
        (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        write_between_marks(ROOT / "docs" / "benchmarks.md", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
