"""Which engine runs a scenario, in which tiles, compiled or not, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from clients.core.errors import EngineError, FedscapeError
from clients.engines.base import Engine
from clients.engines.plain import PlainEngine
from clients.engines.programs import VmapProgram, make_program
from clients.engines.stacked import StackedEngine
from clients.training.batch import Program
from clients.training.task import LearningTask, probe_examples
from simulator.engines.compiling import compile_where_it_pays
from simulator.engines.options import EngineOptions
from simulator.engines.probe import (
    Build,
    Sample,
    disagreement,
    first_line,
    largest_tile,
    make_sample,
    measure,
    plain_round,
    seconds_text,
    stacked_round,
    tile_widths,
)

PROBE_SECONDS = 1.0
"""No tile is timed that would take longer than this, once a smaller one has been."""
HOPELESS = 3.0
"""Wider tiles are not timed after one this much slower than the best: far more than a busy machine's noise."""


@dataclass(frozen=True)
class EnginePlan:
    """What was chosen, for the record and for resuming.

    Attributes:
        engine: "plain" or "stacked".
        tile: clients trained together; None is the whole cohort.
        compiled: whether gradients are compiled.
        reason: why, one line.
        probes: predicted seconds a round of what was timed, by name.
        compile_seconds: time spent compiling.
        widths: numbers of clients whose batches are compiled.
        length: examples in a compiled batch.
        threads: torch's threads; None leaves them.
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

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"widths": list(self.widths)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EnginePlan:
        """Read what `to_dict` gave."""
        return cls(**(values | {"widths": tuple(values.get("widths", ()))}))


@contextmanager
def threads_restored() -> Iterator[None]:
    """Put torch's number of threads back at the end: a plan changes it for the run."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def engine_from_plan(plan: EnginePlan, task: LearningTask) -> Engine:
    """Build the engine that a plan names, as a resumed run does; what was compiled is compiled again when first met."""
    if plan.threads is not None:
        torch.set_num_threads(plan.threads)
    if plan.engine == "plain":
        return PlainEngine(task)
    engine = StackedEngine(task, tile=plan.tile)
    if plan.compiled:
        assert isinstance(engine.program, VmapProgram)
        engine.program.compile(plan.widths, plan.length)
    return engine


def plan_engine(options: EngineOptions, task: LearningTask, cohort: int, rounds: int) -> tuple[Engine, EnginePlan]:
    """Choose an engine for `cohort` clients a round over `rounds` rounds.

    Raises:
        EngineError: the named engine, or compilation, cannot run this scenario.
    """
    sample = make_sample(task, cohort)
    if options.kind == "plain":
        return _plain(options, sample, "as configured")
    program, problem = _stackable(task, sample)
    if program is None:
        if options.kind == "stacked" or options.compile == "always":
            raise EngineError(
                "engine.kind" if options.kind == "stacked" else "engine.compile",
                f"'{options.kind if options.kind == 'stacked' else options.compile}' cannot run this model: {problem}",
                fix="Set engine.kind = 'plain' (or 'auto', and compile = 'auto'), or change the model's forward.",
            )
        return _plain(options, sample, f"cannot be stacked: {problem}")
    probes = _over_threads(options, lambda: _time(options, sample, program))
    threads, found = _fastest(probes)
    torch.set_num_threads(threads)
    plain = found.get("plain")
    name, stacked = min(((n, v) for n, v in found.items() if n != "plain"), key=lambda pair: pair[1])
    said = name.replace(", tiles", " in tiles") + (":" if "tiles" in name else "")
    reason = f"probe: {said} {seconds_text(stacked)} a round" + (
        "" if plain is None else f", plain {seconds_text(plain)}"
    )
    reason += _threads_text(threads, probes)
    if plain is not None and plain < stacked and options.compile != "always":
        plan = EnginePlan("plain", None, False, reason, found, threads=threads)
        return engine_from_plan(plan, task), plan
    plan = EnginePlan("stacked", _tile_of(name, options), False, reason, found, threads=threads)
    return _compiled(options, sample, program, plan, rounds)


def _plain(options: EngineOptions, sample: Sample, why: str) -> tuple[Engine, EnginePlan]:
    """Plan the plain engine, which only leaves the number of threads to choose."""
    probes = _over_threads(options, lambda: {"plain": _plain_seconds(sample)})
    threads, found = _fastest(probes)
    plan = EnginePlan("plain", None, False, f"plain: {why}{_threads_text(threads, probes)}", found, threads=threads)
    return engine_from_plan(plan, sample.task), plan


def _over_threads(options: EngineOptions, probe: Callable[[], dict[str, float]]) -> dict[int, dict[str, float]]:
    """Probe with one thread and with all of torch's: on a busy machine, or for small models, one is often faster."""
    before = torch.get_num_threads()
    counts = sorted({1, before}) if options.threads is None else [options.threads]
    found = {}
    try:
        for threads in counts:
            torch.set_num_threads(threads)
            found[threads] = probe()
    finally:
        torch.set_num_threads(before)
    return found


def _fastest(probes: dict[int, dict[str, float]]) -> tuple[int, dict[str, float]]:
    """Return the number of threads with the fastest probe, and what was timed with it."""
    return min(probes.items(), key=lambda item: min(item[1].values()))


def _threads_text(threads: int, probes: dict[int, dict[str, float]]) -> str:
    """Say the number of threads where there was a choice."""
    return "" if len(probes) == 1 else f" ({threads} thread{'s' if threads > 1 else ''})"


def _tile_of(name: str, options: EngineOptions) -> int | None:
    """Read the tile back from the name of a probe; None is the whole cohort."""
    return int(name.rpartition(" ")[2]) if "tiles of" in name else options.tile


def _plain_seconds(sample: Sample) -> float:
    pair = min(2, len(sample.clients))
    return plain_round(sample, measure(PlainEngine, sample, pair), pair)


def _stackable(task: LearningTask, sample: Sample) -> tuple[Program | None, str]:
    """Try the stacked engine on two clients; return its program, or None and what is in the way."""
    try:
        program = make_program(task, probe_examples(task.population, task.dtype).features)
        off = disagreement(_stacked(program), sample)
    except FedscapeError:
        raise
    except Exception as error:  # whatever a user's module raises under torch.func
        return None, first_line(error)
    if off > 0.02:
        return None, f"stacked, its updates differ from the plain ones by {off:.0%} (state outside its buffers?)"
    return program, ""


def _time(options: EngineOptions, sample: Sample, program: Program) -> dict[str, float]:
    """Predict seconds a round of the plain engine and of tiles of several widths."""
    cohort, probes = len(sample.clients), {}
    if options.kind == "auto" and options.compile != "always":
        probes["plain"] = _plain_seconds(sample)
    if options.tile is not None:
        widths = [min(options.tile, cohort)]
    else:
        widths = tile_widths(cohort, largest_tile(sample, options.keep_bytes))
    build, alone, best, expected = _stacked(program), None, float("inf"), 0.0
    for width in widths:
        if expected * width * 3 > PROBE_SECONDS:
            break
        cost = measure(build, sample, width)
        alone = alone or cost
        seconds = stacked_round(sample, cost, width, alone)
        probes["stacked" if width == cohort else f"stacked, tiles of {width}"] = seconds
        best = min(best, seconds)
        expected = cost.step / width
        if seconds > HOPELESS * best:
            break
    return probes


def _stacked(program: Program) -> Build:
    return lambda task: StackedEngine(task, program=program)


def _compiled(
    options: EngineOptions, sample: Sample, program: Program, plan: EnginePlan, rounds: int
) -> tuple[Engine, EnginePlan]:
    """Finish a stacked plan: compile its program where asked to, or where that pays."""
    engine, forced = StackedEngine(sample.task, tile=plan.tile, program=program), options.compile == "always"
    if options.compile == "never":
        return engine, plan
    if not isinstance(program, VmapProgram):
        note = "; nothing to compile: its gradients are written by hand" if forced else ""
        return engine, replace(plan, reason=plan.reason + note)
    eager = min(seconds for name, seconds in plan.probes.items() if name != "plain")
    found = compile_where_it_pays(sample, plan.tile, eager, rounds, forced=forced)
    probes = plan.probes if found.round_seconds is None else plan.probes | {"compiled": found.round_seconds}
    plan = replace(
        plan, compiled=found.program is not None, probes=probes, compile_seconds=found.compile_seconds,
        widths=found.widths, length=found.length, reason=f"{plan.reason}; {found.note}",
    )  # fmt: skip
    return StackedEngine(sample.task, tile=plan.tile, program=found.program or program), plan
