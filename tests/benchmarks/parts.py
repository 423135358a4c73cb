"""The parts of `make bench` other than the race, each a function that runs its processes and returns plain values."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from city import SOURCES
from federation import MODES, STEPS
from machine import Child, environment, run_child
from race import CORES, HERE, MANY, Say

RAGGED = ("logreg", "mlp", "2nn")
SIGMAS = (0.0, 0.5, 1.0)
WORKERS = (1, 2)
OBSERVED = {"logreg": 100, "mlp": 100, "gru": 25}
"""Workloads with their tile: both sessions of the comparison must have the same engine."""
UNAVAILABLE = "this version has no `[engine] workers`"


def _ours(*arguments: object) -> Child:
    return run_child([sys.executable, str(HERE / "ours.py"), *map(str, arguments)])


def _rounds(workload: str, *, quick: bool) -> int:
    return 3 if quick else MANY[workload]


def has_workers() -> bool:
    """Return whether this version knows `[engine] workers`."""
    import fedscape as fs

    try:
        fs.load_scenario("blank", sets=["engine.workers=2"])
    except fs.UserError:
        return False
    return True


def ragged(repeats: int, *, quick: bool, say: Say) -> dict[str, Any]:
    """Time log-normal sizes and equal ones of the same total work, in turn."""
    found = {}
    for name in RAGGED:
        turns: dict[float, list[Child]] = {sigma: [] for sigma in SIGMAS}
        for _, sigma in itertools.product(range(repeats), SIGMAS):
            turns[sigma].append(_ours("user", name, _rounds(name, quick=quick), sigma))
            say(f"  {name:7} sigma {sigma:3} {1e3 * _median(turns[sigma][-1]):9.2f} ms a round")
        equal = [_median(c) for c in turns[0.0]]
        found[name] = {
            str(sigma): {
                "seconds": statistics.median(map(_median, children)),
                "ratio": statistics.median(_median(c) / e for c, e in zip(children, equal, strict=True)),
                "longest": children[-1].result["longest"],
                "engine": children[-1].result["engine"],
            }
            for sigma, children in turns.items()
        }
        found[name]["others"] = max(c.others for children in turns.values() for c in children)
    return {"rows": found}


def _median(child: Child) -> float:
    return statistics.median(child.result["seconds"])


def workers(repeats: int, *, quick: bool, say: Say) -> dict[str, Any]:
    """Time one and two worker processes on each workload, in turn."""
    if not has_workers():
        return {"unavailable": UNAVAILABLE}
    if max(WORKERS) > CORES:
        return {"unavailable": f"this machine has {CORES} core"}
    found = {}
    for name in MANY:
        turns: dict[int, list[Child]] = {n: [] for n in WORKERS}
        for _, n in itertools.product(range(repeats), WORKERS):
            turns[n].append(_ours("user", name, _rounds(name, quick=quick), f"engine.workers={n}"))
            say(f"  {name:7} {n} workers {1e3 * _median(turns[n][-1]):9.2f} ms a round")
        one, two = ([_median(c) for c in turns[n]] for n in WORKERS)
        found[name] = {
            "one": statistics.median(one),
            "two": statistics.median(two),
            "ratio": statistics.median(a / b for a, b in zip(one, two, strict=True)),
            "engines": [turns[n][-1].result["engine"] for n in WORKERS],
            "others": max(c.others for children in turns.values() for c in children),
        }
    return {"rows": found}


def observing(repeats: int, *, quick: bool, say: Say) -> dict[str, Any]:
    """Measure what record, criteria, drift and validation cost, as a share of the round."""
    pinned = ["engine.kind=stacked", "engine.threads=1", "engine.compile=never"]
    pinned += ["engine.workers=1"] if has_workers() else []
    found = {}
    for name, tile in OBSERVED.items():
        sets = [*pinned, f"engine.tile={tile}"]
        children = [_ours("observing", name, _rounds(name, quick=quick), *sets) for _ in range(repeats)]
        observed, bare = ([statistics.median(c.result[key]) for c in children] for key in ("observed", "bare"))
        found[name] = {
            "observed": statistics.median(observed),
            "bare": statistics.median(bare),
            "share": statistics.median((o - b) / o for o, b in zip(observed, bare, strict=True)),
            "others": max(c.others for c in children),
        }
        say(f"  {name:7} {found[name]['share']:.0%} of the round")
    return {"rows": found}


def growth(repeats: int, *, quick: bool, say: Say) -> dict[str, Any]:
    """Measure time and memory over cohort, population and rounds."""
    points: list[tuple[int, int, int, str]] = [
        *((10_000, k, n, "fedavg") for k, n in ((10, 20), (100, 20), (1000, 10), (10_000, 5))),
        *((n, 100, 20, "fedavg") for n in (100, 100_000, 1_000_000)),
        *((1_000_000, 1000, 200, kind) for kind in ("fedavg", "scaffold")),
    ]
    if quick:
        points = [(10_000, 10, 3, "fedavg"), (1_000_000, 100, 3, "scaffold")]
    rows = []
    for clients, cohort, rounds, kind in points:
        command = [sys.executable, str(HERE / "growth.py"), *map(str, (clients, cohort, rounds))]
        child = run_child([*command, f"algorithm.kind={kind}"])
        r = child.result
        part = max(1, len(r["seconds"]) // 5)
        used = r["processor"]  # of the processor: the machine's other work would look like growth
        ends = {"early": statistics.median(used[:part]), "late": statistics.median(used[-part:])}
        rows.append(
            r | ends | {"kind": kind, "rounds": rounds, "seconds": statistics.median(r["seconds"])}
            | {"processor": statistics.median(used)}
            | {"others": child.others}
        )  # fmt: skip
        say(f"  {clients} clients, {cohort} a round, {kind}: {1e3 * rows[-1]['seconds']:.2f} ms a round")
    child = run_child([sys.executable, str(HERE / "rounds_memory.py"), "600" if quick else "10000"])
    return {"points": rows, "rounds": child.result | {"others": child.others}}


COMMAND = ("-m", "simulator.cli")
START_UP: dict[str, tuple[str, ...]] = {
    "import torch": ("-c", "import torch"),
    "import fedscape": ("-c", "import fedscape"),
    "fedscape --help": (*COMMAND, "--help"),
    "fedscape scenarios": (*COMMAND, "scenarios"),
    "fedscape show": (*COMMAND, "show", "digits-label-skew"),
    "fedscape run, to the first round": (*COMMAND, "run"),
    "fedscape run, all of it": (*COMMAND, "run"),
}


def start_up(repeats: int, *, quick: bool, say: Say) -> dict[str, Any]:
    """Time commands from their start, in turn: wall and processor seconds; one turn before writes the byte code."""
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in START_UP}
    for _ in range(repeats + 1):
        for name, arguments in START_UP.items():
            with tempfile.TemporaryDirectory() as folder:
                turns[name].append(_from_start([*arguments], Path(folder), first="first round" in name))
    found = {}
    for name, times in turns.items():
        wall, processor = (statistics.median(t[i] for t in times[1:]) for i in range(2))
        found[name] = {"wall": wall, "processor": processor}
        say(f"  {name}: {wall:.2f} s, processor {processor:.2f} s")
    return {"rows": found}


def _from_start(arguments: list[str], folder: Path, *, first: bool) -> tuple[float, float]:
    """Run Python with arguments, to its end or to the first round of its record; return wall and processor seconds."""
    record = folder / "run" / "rounds.jsonl"
    if "run" in arguments:
        arguments += ["--out", str(record.parent)]
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], cwd=folder, env=environment(), stdout=subprocess.DEVNULL)
    if first:
        while not (record.exists() and '"round": 1,' in record.read_text()):
            assert process.poll() is None, "the run ended without a round"
            time.sleep(0.005)
        seconds = time.perf_counter() - started
        used = _processor_seconds(process.pid)
        process.kill()
        process.wait()
        return seconds, used
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime


def _processor_seconds(pid: int) -> float:
    """Return the processor seconds of a running process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def city(repeats: int, *, quick: bool, say: Say) -> dict[str, Any]:
    """Measure a million sites of every generated source, each in its own process."""
    found = []
    for source in SOURCES[4:5] if quick else SOURCES:
        command = [sys.executable, str(HERE / "city.py"), "--one", source, f"run.rounds={2 if quick else 8}"]
        child = run_child(command)
        found.append(child.result | {"others": child.others})
        say(f"  {source}: {1e3 * child.result['round']:.0f} ms a round")
    return {"rows": found}


FEDERATED_NODES, FEDERATED_ROUNDS, FEDERATED = 3, 6, ("partition.clients=12",)


def federation(repeats: int, *, quick: bool, say: Say) -> dict[str, Any]:
    """Measure where the seconds of a federation's rounds go, in each of its modes; the first round is left out."""
    found = {}
    for mode in MODES[-1:] if quick else MODES:
        words = [mode, str(FEDERATED_NODES), str(2 if quick else FEDERATED_ROUNDS), *FEDERATED]
        child = run_child([sys.executable, str(HERE / "federation.py"), *words])
        later = child.result["rounds"][1:]
        steps = {name: statistics.mean(one[name] for one in later) for name in (*STEPS, "processor")}
        found[mode] = {"steps": steps, "before": child.result["before"], "after": child.result["after"]}
        say(f"  {mode}: {sum(steps[name] for name in STEPS):.2f} s a round")
    return {"rows": found}


def studies(repeats: int, *, quick: bool, say: Say) -> dict[str, Any]:
    """Time a study of 8 arms x 10 seeds once, and its runs alone."""
    child = run_child([sys.executable, str(HERE / "studies.py"), *(("2", "1") if quick else ("8", "10"))], timeout=1800)
    found = child.result
    say(f"  a study of {found['runs']} runs {found['study']:.1f} s, its runs alone {found['alone']:.1f} s")
    return found | {"others": child.others}


PARTS = {
    "ragged": ragged,
    "workers": workers,
    "observing": observing,
    "growth": growth,
    "start-up": start_up,
    "city": city,
    "federation": federation,
    "studies": studies,
}
"""The parts besides the race, in order."""
