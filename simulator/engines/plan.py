"""The plan of an engine, for the record and for resuming, and how the engine is built from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from clients.core.errors import EngineError
from clients.engines.base import Engine
from clients.engines.native.choice import has_kernel, kernel_of
from clients.engines.native.threads import set_threads
from clients.engines.programs import VmapProgram
from clients.engines.ranks.distributed import local_engine
from clients.engines.stacked import StackedEngine
from clients.training.task import LearningTask

SMALL_MODEL = 1 << 14
"""Parameters below which torch has one thread beside a kernel in C, and beside workers: see `set_threads`."""


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
        native: whether clients are trained by a kernel in C. Its numbers differ from torch's in the last bits.
        device: torch's name of the device that the server's process trains on.
        devices: devices over which each client's batches are split.
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
    native: bool = False
    device: str = "cpu"
    devices: int = 1

    @property
    def words(self) -> str:
        """The engine in a few words, for the header.

        Example:
            >>> EnginePlan("stacked", 5, False, "", workers=2).words
            'stacked, 2 workers, tile 5'
        """
        parts = [self.engine]
        parts += [f"{self.workers} workers"] if self.workers > 1 else []
        parts += [f"{self.devices} devices"] if self.devices > 1 else []
        parts += [f"tile {self.tile}"] if self.tile is not None else []
        return ", ".join(parts)

    @property
    def round_seconds(self) -> float | None:
        """The predicted seconds of a round's training on the chosen engine; None where it was not timed."""
        tiles = [self.tile] if self.tile is None else [self.tile, None]
        shared = [(None, self.workers)] if self.workers > 1 else []
        counts: list[tuple[int | None, int]] = [*shared, (self.threads, 1), (None, 1)]
        names = [probe_name(self.engine, tile, threads, n) for threads, n in counts for tile in tiles]
        names = ["compiled", *names] if self.compiled else names
        return next((self.probes[name] for name in names if name in self.probes), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"widths": list(self.widths)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EnginePlan:
        """Return the plan that `to_dict` wrote."""
        return cls(**(values | {"widths": tuple(values.get("widths", ()))}))


def probe_name(engine: str, tile: int | None, threads: int | None = None, workers: int = 1) -> str:
    """Return the name of a probe in the record.

    Args:
        engine: "plain" or "stacked".
        tile: clients trained together; None is the whole cohort.
        threads: torch's threads; None where there is no choice.
        workers: processes that share the cohort.

    Example:
        >>> probe_name("stacked", 5, 2), probe_name("plain", None, workers=2)
        ('stacked, tiles of 5, 2 threads', 'plain, 2 workers')
    """
    parts = [engine] if tile is None else [engine, f"tiles of {tile}"]
    parts += [] if threads is None else [f"{threads} thread{'s' if threads > 1 else ''}"]
    parts += [f"{workers} workers"] if workers > 1 else []
    return ", ".join(parts)


def use_threads(plan: EnginePlan, task: LearningTask) -> None:
    """Set the numbers of threads of a plan in this process; the pool sets those of several workers for each job."""
    small = task.parameters.size < SMALL_MODEL
    if plan.workers > 1:
        if small:
            set_threads(1)
    elif plan.threads is not None:
        alone = small and plan.native
        set_threads(1 if alone else plan.threads, of_kernels=plan.threads if alone else None)


def engine_from_plan(plan: EnginePlan, task: LearningTask) -> Engine:
    """Build the engine of a plan, as a resumed run does. Compiled shapes are compiled again on first use.

    Raises:
        EngineError: the plan has a kernel in C, which cannot be used here.
    """
    use_threads(plan, task)
    if plan.engine == "plain":
        if task.local.devices == "auto":  # a resumed run has those of before
            task = replace(task, local=replace(task.local, devices=plan.devices))
        return local_engine(task, plan.threads)
    engine = StackedEngine(task, tile=plan.tile, native=plan.native)
    if plan.native and not has_kernel(engine.program):
        raise EngineError(
            "engine.native",
            f"the run's plan trains clients with a kernel in C, and here {kernel_of(task)[1]}",
            fix="Install a C compiler (apt install gcc), or start a new run with native = 'never'.",
        )
    if plan.compiled:
        assert isinstance(engine.program, VmapProgram)
        engine.program.compile(plan.widths, plan.length)
    return engine
