"""What a round of a long run keeps and costs beside training, and what its report does: a quadratic of two clients.

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
from simulator.grid.local_clients import LocalClients

FIRST = 500
"""The round from which on growth is measured."""
ENDS = (100, 500, 1000, 5000, 10_000)
"""The last rounds of the windows in which a round's processor time is measured."""
WINDOW = 100


def measure(rounds: int) -> dict[str, Any]:
    """Run, then write the report again."""
    marks: list[int] = []
    at: list[float] = []
    training = _timed_training()

    def ended() -> bool:
        at.append(time.process_time() - training[0])
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
    windows = {end: statistics.median(took[max(0, end - WINDOW) : end]) for end in ENDS if end <= rounds}
    return {"rounds": rounds, "bytes_a_round": kept, "beside_training": windows, "report_seconds": seconds,
            "after_report": memory_used()}  # fmt: skip


def _timed_training() -> list[float]:
    """Have the clients of every grid add the processor time of their training to the number in the list."""
    spent, train = [0.0], LocalClients.train

    def timed(self: LocalClients, *arguments: Any) -> Any:
        began = time.process_time()
        try:
            return train(self, *arguments)
        finally:
            spent[0] += time.process_time() - began

    LocalClients.train = timed  # type: ignore[method-assign]
    return spent


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
