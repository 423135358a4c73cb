"""The plan of an engine, for the record and for resuming, and how the engine is built from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from clients.engines.base import Engine
from clients.engines.plain import PlainEngine
from clients.engines.programs import VmapProgram
from clients.engines.stacked import StackedEngine
from clients.training.task import LearningTask


@dataclass(frozen=True)
class EnginePlan:
    """The chosen engine, for the record and for resuming.

    Attributes:
        engine: "plain" or "stacked".
        tile: clients trained together; None is the whole cohort.
        compiled: whether gradients are compiled.
        reason: why it was chosen, in one line.
        probes: predicted seconds a round of each timed candidate, by name.
        compile_seconds: time spent compiling.
        widths: numbers of clients whose batches are compiled.
        length: examples in a compiled batch.
        threads: torch's threads of each worker; None leaves them.
        workers: processes that train a cohort together.
        device: torch's name of the device that the server's process trains on.
    """

    engine: str
    tile: int | None
    compiled: bool
    reason: str
    probes: dict[str, float] = field(default_factory=dict)
    compile_seconds: float = 0.0
    widths: tuple[int, ...] = ()
    length: int = 0
    threads: int | None = None
    workers: int = 1
    device: str = "cpu"

    @property
    def round_seconds(self) -> float | None:
        """The predicted seconds of a round's training on the chosen engine; None where it was not timed."""
        names = ["plain"] if self.engine == "plain" else [f"stacked, tiles of {self.tile}", "stacked"]
        names = ["compiled", *names] if self.compiled else names
        return next((self.probes[name] for name in names if name in self.probes), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"widths": list(self.widths)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EnginePlan:
        """Return the plan that `to_dict` wrote."""
        return cls(**(values | {"widths": tuple(values.get("widths", ()))}))


@contextmanager
def threads_restored() -> Iterator[None]:
    """Restore torch's number of threads at the end, which a plan changes for the run."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def engine_from_plan(plan: EnginePlan, task: LearningTask) -> Engine:
    """Build the engine of a plan, as a resumed run does. Compiled shapes are compiled again on first use."""
    if plan.threads is not None and plan.workers == 1:  # the pool sets the threads of its workers
        torch.set_num_threads(plan.threads)
    if plan.engine == "plain":
        return PlainEngine(task)
    engine = StackedEngine(task, tile=plan.tile)
    if plan.compiled:
        assert isinstance(engine.program, VmapProgram)
        engine.program.compile(plan.widths, plan.length)
    return engine
