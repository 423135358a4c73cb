"""A million sites of every generated source: the time to build, to make data and to train, and the memory.

    python tests/benchmarks/city.py [SOURCE ...] [SECTION.KEY=VALUE ...]

Each source runs in its own process: 20 rounds of 1,000 sites out of 1,000,000, with faults (outages and noise) and one
local epoch of the built-in scenario's model. Nearly every client of a cohort is new. Each source prints one row: the
seconds to build, the median milliseconds of a round and of its data (source, faults, standardising) in wall and
processor time, and the peak memory of the process. The aim: data take less time than training, and the memory stays
below 2 GiB. The last line is the same as JSON.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

import fedscape as fs
from clients.core.examples import CohortData
from clients.federation.build import build_federation
from simulator.runs.building import federation_of

SOURCES = ("traffic", "meters", "air", "bridge", "intrusion", "activity")
SITES, COHORT, ROUNDS = 1_000_000, 1000, 20
FAULTS = ("faults.out={kind='gateway_outage', severity=0.5}", "faults.noisy={kind='noise', severity=0.5, clients=0.3}")
Clocks = tuple[float, float]


def clocks() -> Clocks:
    """Return the seconds of the wall clock and of the processor."""
    return time.perf_counter(), time.process_time()


def measure(source: str, sets: list[str]) -> dict[str, Any]:
    """Run one source and return its times and memory."""
    changes = [f"data.clients={SITES}", f"algorithm.cohort={COHORT}", f"run.rounds={ROUNDS}", *FAULTS,
             "local.local_epochs=1", "evaluation={federated_every=0}", "convergence={stop='never'}", *sets]  # fmt: skip
    scenario = fs.load_scenario(f"city-{source}", sets=changes)
    started = time.perf_counter()
    population = build_federation(federation_of(scenario, scenario.data))
    built = time.perf_counter() - started
    spent, inner, made = np.zeros(2), population.cohort, 0

    def timed(clients: npt.NDArray[np.int64]) -> CohortData:
        nonlocal made
        before = clocks()
        data = inner(clients)
        spent[:] += np.subtract(clocks(), before)
        made = max(made, data.features.untyped_storage().nbytes() // data.features.element_size())
        return data

    ended: list[Clocks] = []
    making: list[Any] = []

    class Watch:
        def round_finished(self, line: dict[str, Any]) -> None:
            ended.append(clocks())
            making.append(spent.copy())

    plain = replace(scenario, faults={}, world=None)
    with tempfile.TemporaryDirectory() as folder:
        clocked = replace(population, clients=replace(population.clients, cohort=timed))
        run = fs.simulate(plain, data=clocked, out=folder, observers=[Watch()])
    whole, data = (np.median(np.diff(x, axis=0), axis=0).tolist() for x in (ended, making))
    return {
        "source": source,
        "model": scenario.model.kind if scenario.model else "",
        "build": built,
        "round": whole[0],
        "round_cpu": whole[1],
        "data": data[0],
        "data_cpu": data[1],
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "made": made,
        "parameters": run.session.task.parameters.size,
        "rounds": len(run.rounds["wall_seconds"]),
    }


def main(arguments: list[str]) -> None:
    """Measure each source in its own process and print its row."""
    sets = [a for a in arguments if "=" in a]
    rows = []
    for source in [a for a in arguments if "=" not in a] or SOURCES:
        command = [sys.executable, __file__, "--one", source, *sets]
        child = subprocess.run(command, capture_output=True, text=True, check=False)
        if child.returncode:
            sys.exit(f"{source}: {child.stderr[-2000:]}")
        row = json.loads(child.stdout.splitlines()[-1])
        rows.append(row)
        ms = {name: 1e3 * row[name] for name in ("round", "data", "round_cpu", "data_cpu")}
        times = f"{ms['round']:6.0f} ms a round, data {ms['data']:4.0f} ms ({ms['data'] / ms['round']:.0%})"
        cpu = f"processor {ms['round_cpu']:6.0f} and {ms['data_cpu']:4.0f} ms"
        print(f"{source:10} {row['model']:6} built in {row['build']:.2f} s, {times}; {cpu}, "
              f"peak {row['peak'] / 2**30:.2f} GiB", flush=True)  # fmt: skip
    print(json.dumps(rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2], sys.argv[3:])))
    else:
        main(sys.argv[1:])
