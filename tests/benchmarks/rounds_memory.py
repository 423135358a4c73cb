"""The memory and time of each round of a long run, and those of its report: a quadratic of two clients.

python rounds_memory.py ROUNDS
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import fedscape as fs
from dashboards.report.report import write_report
from simulator.engines.limits import memory_used

FIRST = 500
"""The round from which on growth is measured."""


def measure(rounds: int) -> dict[str, Any]:
    """Run, then write the report again."""
    marks: list[int] = []
    at: list[float] = []

    def ended() -> bool:
        at.append(time.perf_counter())
        if len(at) in (FIRST, rounds):
            marks.append(memory_used())
        return False

    sets = ["convergence.stop=never", f"run.rounds={rounds}"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        run = fs.simulate(fs.load_scenario("quadratic-two-clients", sets=sets), out=out, stop_asked=ended)
        assert run.outcome["round"] == rounds
        started = time.perf_counter()
        write_report([out], Path(folder) / "again.html")
        seconds = time.perf_counter() - started
    kept = (marks[-1] - marks[0]) / (rounds - FIRST)
    took = [after - before for before, after in itertools.pairwise(at)]
    early, late = (statistics.median(part) for part in (took[50:150], took[-100:]))
    return {"rounds": rounds, "bytes_a_round": kept, "early": early, "late": late, "report_seconds": seconds,
            "after_report": memory_used()}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
