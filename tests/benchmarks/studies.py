"""Times a study, then its runs alone: `studies.py ARMS SEEDS`.

The study is `fedscape study` on the default scenario, as a user starts it: its time includes the start of Python, the
choice of engines, the table and the page. Its runs alone are `fedscape.simulate` on the scenarios that it wrote, engine
and all, in as many warm processes, the longest first. The last line is one JSON object.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ALGORITHMS = ("fedavg", "scaffold", "fedprox", "fedavgm")
RATES = (0.02, 0.05)
SCENARIO = "digits-label-skew"


def study_of(arms: int, seeds: int) -> dict[str, Any]:
    """Return a study's table: so many of the crossed arms."""
    both = [(kind, rate) for kind in ALGORITHMS for rate in RATES][:arms]
    named = [{"name": f"{kind} {rate}", "algorithm.kind": kind, "local.local_lr": rate} for kind, rate in both]
    return {"title": "Overhead", "scenario": SCENARIO, "seeds": seeds, "arms": named}


def alone(job: tuple[str, str]) -> float:
    """Play a run of a study, as from Python, and return its seconds."""
    import fedscape as fs

    began = time.perf_counter()
    fs.simulate(Path(job[0], "scenario.toml"), out=job[1])
    return time.perf_counter() - began


def _warm(_: int) -> None:
    import simulator.runs.run  # noqa: F401

    time.sleep(1)  # so that every process of the pool gets one


def measured(arms: int, seeds: int) -> dict[str, Any]:
    """Time a study and its runs alone; seconds, and how many processes played."""
    import pandas as pd
    import tomli_w

    processes = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="fs-") as folder:
        file, out = Path(folder, "study.toml"), Path(folder, "study")
        file.write_text(tomli_w.dumps(study_of(arms, seeds)))
        began = time.perf_counter()
        command = [sys.executable, "-m", "simulator.cli", "study", str(file), "--out", str(out)]
        subprocess.run([*command, "--processes", str(processes)], check=True, stdout=subprocess.DEVNULL)
        study = time.perf_counter() - began
        rows = pd.read_parquet(out / "study.parquet").sort_values("seconds", ascending=False)
        jobs = [(str(out / run), str(Path(folder, f"alone-{number}"))) for number, run in enumerate(rows["run"])]
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            list(pool.map(_warm, range(processes)))
            began = time.perf_counter()
            seconds: Sequence[float] = list(pool.map(alone, jobs))
            runs = time.perf_counter() - began
    packed = max(sum(seconds) / processes, max(seconds))
    return {"study": study, "alone": runs, "packed": packed, "runs": len(jobs), "processes": processes}


if __name__ == "__main__":
    print(json.dumps(measured(int(sys.argv[1]), int(sys.argv[2]))))
