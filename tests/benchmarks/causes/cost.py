"""What an explanation costs beside its run: processor seconds of `fs.explain`, with making the data again.

    python tests/benchmarks/causes/cost.py

Writes the table of docs/explaining.md between its marks. Processor seconds of one thread in one process do not depend
on what else the machine does.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent)]

from report import table  # noqa: E402

import fedscape as fs  # noqa: E402

DOCS = HERE.parent.parent.parent / "docs" / "explaining.md"
BEGIN, END = "<!-- cost: written by tests/benchmarks/causes/cost.py -->", "<!-- end of cost -->"
ALONE = {"engine.workers": 1, "engine.threads": 1}
RUNS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("the default scenario", "digits-label-skew", {}),
    ("the same, three hidden units", "digits-label-skew", {"model.hidden": [3]}),
    ("`digits-iid`", "digits-iid", {}),
    ("`city-congestion`", "city-congestion", {}),
    ("`city-traffic`", "city-traffic", {}),
    ("`city-activity`, 1,200 rounds", "city-activity", {"run.rounds": 1200, "convergence.stop": "never"}),
)
"""Runs by a name for people: their scenario and changes of it."""


def measured(scenario: str, sets: dict[str, Any], folder: Path) -> tuple[int, float, float]:
    """Return the rounds of a run, and the processor seconds of it and of its explanation."""
    begun = time.process_time()
    run = fs.simulate(fs.load_scenario(scenario, sets=ALONE | sets), out=folder)
    played = time.process_time()
    assert run.path is not None
    found = fs.explain(run.path)
    print(scenario, sets, [finding.kind for finding in found.findings], flush=True)
    return run.verdict.round_index, played - begun, time.process_time() - played


def main() -> None:
    """Play the runs, explain them and write the table."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        measured("digits-iid", {"run.rounds": 2}, Path(folder) / "first")  # imports are paid here
        rows = []
        for n, (words, scenario, sets) in enumerate(RUNS):
            rounds, played, looked = measured(scenario, sets, Path(folder) / str(n))
            rows.append([words, f"{rounds}", f"{played:.1f}", f"{looked:.1f}", f"{looked / played:.0%}"])
    made = table(["run", "rounds", "run, s", "explanation, s", "share"], rows)
    print(made)
    before, _, rest = DOCS.read_text().partition(BEGIN)
    DOCS.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
