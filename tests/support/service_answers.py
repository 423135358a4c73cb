"""Answers of a local service, for its tests: imported by the service's process."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any


def echo(kind: str, node: Mapping[str, Any], content: bytes) -> bytes:
    """Do what the kind says, and return this process's id."""
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "fail":
        raise ArithmeticError("no such number")
    if kind == "wait":
        Path(content.decode()).touch()
        while Path(content.decode()).exists():
            time.sleep(0.02)
    told = {"pid": os.getpid(), "kind": kind, "node": dict(node), "size": len(content), "torch": "torch" in sys.modules}
    return json.dumps(told).encode()


def train(kind: str, node: Mapping[str, Any], content: bytes) -> bytes:
    """Train two clients over two ranks, and return the processes; "kill" ends a rank before."""
    engine, work = _engine()
    if kind == "kill":
        os.kill(engine.pids[0], signal.SIGKILL)
    update, _ = engine.train(work, {})
    told = {"pid": os.getpid(), "ranks": engine.pids, "sum": float(update.params.sum())}
    return json.dumps(told).encode()


@cache
def _engine() -> Any:
    import numpy as np
    import torch
    from torch import nn

    from clients.engines.ranks.distributed import DistributedEngine
    from clients.sources.custom import custom_population
    from clients.training.options import LocalOptions
    from clients.training.task import make_task
    from clients.training.work import CohortWork

    torch.manual_seed(0)
    numbers = np.random.default_rng(3)
    data = [(numbers.normal(size=(5, 4)), numbers.integers(0, 2, 5)) for _ in range(2)]
    population = custom_population(lambda k: data[k], [5, 5], outputs=2, task="classification", feature_shape=(4,))
    task = make_task(nn.Linear(4, 2), population, LocalOptions(batch_size=2, devices=2), seed=1)
    params, buffers = task.initial()
    work = CohortWork(round_index=1, clients=np.arange(2), params=params, buffers=buffers)
    return DistributedEngine(task), work


def runs(pid: int) -> bool:
    """Return whether a process runs; one that only waits for its parent does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
