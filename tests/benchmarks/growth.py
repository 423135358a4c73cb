"""How time and memory grow with the cohort and with the population; synthetic clients are made on demand.

python growth.py CLIENTS COHORT ROUNDS [SECTION.KEY=VALUE ...]
"""

from __future__ import annotations

import itertools
import json
import resource
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import fedscape as fs

EXAMPLES = 50
BATCH = 10


def grow(clients: int, cohort: int, rounds: int, more: list[str]) -> dict[str, Any]:
    """Run softmax regression as a user does, and return its time and memory up to the last round."""
    sets = [
        f"data={{kind='synthetic', clients={clients}, sizes={EXAMPLES}}}",
        "partition=",
        "model={kind='softmax'}",
        f"local={{local_lr=0.01, batch_size={BATCH}, local_epochs=1}}",
        f"algorithm.cohort={cohort}",
        "evaluation={federated_every=0}",
        "convergence={stop='never', settled={}}",
        f"run.rounds={rounds}",
        *more,
    ]
    before = _peak()
    stamps = []

    def ended() -> bool:
        stamps.append((time.perf_counter(), _peak(), time.process_time(), _own_memory()))
        return False

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        fs.simulate(fs.load_scenario("digits-label-skew", sets=sets), out=folder, stop_asked=ended)
    times, peaks, processor, own = (list(values) for values in zip(*stamps, strict=True))
    return {
        "clients": clients,
        "cohort": cohort,
        "to_first_round": times[0] - started,
        "seconds": [after - ahead for ahead, after in itertools.pairwise(times)],
        "imported": before,
        "peak": peaks[-1],
        "processor": [after - ahead for ahead, after in itertools.pairwise(processor)],
        "own": [own[quarter * (len(own) - 1) // 4] for quarter in range(5)],
    }


def _own_memory() -> int:
    """Return the bytes of this process that belong to no file; 0 where the system does not say."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def _peak() -> int:
    """Return the peak memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    print(json.dumps(grow(*map(int, sys.argv[1:4]), sys.argv[4:])))
