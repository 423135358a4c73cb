"""Chooses by timing which engine runs a scenario, in which tiles, compiled or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from clients.core.errors import EngineError, FedscapeError
from clients.engines.base import Engine
from clients.engines.batch import Program
from clients.engines.plain import PlainEngine
from clients.engines.programs import VmapProgram, make_program
from clients.engines.stacked import StackedEngine
from clients.training.task import LearningTask, probe_examples
from simulator.engines.compiling import compile_where_it_pays
from simulator.engines.limits import processors
from simulator.engines.memory import widest_tile
from simulator.engines.options import EngineOptions
from simulator.engines.plan import EnginePlan, engine_from_plan
from simulator.engines.probe import (
    Build,
    Sample,
    disagreement,
    first_line,
    make_sample,
    measure,
    plain_round,
    seconds_text,
    stacked_round,
    tile_widths,
)

PROBE_SECONDS = 1.0
"""Seconds: after the first tile, no tile is timed that would take longer."""
HOPELESS = 3.0
"""Wider tiles are not timed after one that is slower than the best by this factor, far above a busy machine's noise."""


@dataclass(frozen=True)
class Candidate:
    """An engine to time.

    Attributes:
        engine: "plain" or "stacked".
        tile: clients trained together; None is the whole cohort.
    """

    engine: str
    tile: int | None = None

    @property
    def label(self) -> str:
        """The name in the record."""
        return self.engine if self.tile is None else f"{self.engine}, tiles of {self.tile}"

    @property
    def words(self) -> str:
        """The name in a sentence."""
        return self.engine if self.tile is None else f"{self.engine} in tiles of {self.tile}:"


PLAIN = Candidate("plain")
Probes = dict[Candidate, float]
"""Predicted seconds a round of each candidate."""


def plan_engine(options: EngineOptions, task: LearningTask, cohort: int, rounds: int) -> tuple[Engine, EnginePlan]:
    """Choose an engine for `cohort` clients a round over `rounds` rounds.

    Raises:
        EngineError: the named engine, or compilation, cannot run this scenario.
    """
    engine, plan = _plan_engine(options, task, cohort, rounds)
    if options.workers == "auto" or options.workers == 1:
        return engine, plan
    threads = options.threads or max(1, processors() // options.workers)
    fewest = -(-cohort // options.workers)  # every worker needs a tile
    if options.tile is None and plan.engine == "stacked" and (plan.tile is None or plan.tile > fewest):
        plan = replace(plan, tile=fewest)
    plan = replace(plan, workers=options.workers, threads=threads)
    return engine_from_plan(plan, task), plan


def _plan_engine(options: EngineOptions, task: LearningTask, cohort: int, rounds: int) -> tuple[Engine, EnginePlan]:
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
    plain = found.get(PLAIN)
    best, stacked = min(((c, v) for c, v in found.items() if c != PLAIN), key=lambda pair: pair[1])
    reason = f"probe: {best.words} {seconds_text(stacked)} a round" + (
        "" if plain is None else f", plain {seconds_text(plain)}"
    )
    reason += _threads_text(threads, probes)
    if plain is not None and plain < stacked and options.compile != "always":
        plan = EnginePlan("plain", None, False, reason, _by_label(found), threads=threads)
        return engine_from_plan(plan, task), plan
    tile = options.tile if best.tile is None else best.tile
    plan = EnginePlan("stacked", tile, False, reason, _by_label(found), threads=threads)
    return _compiled(options, sample, program, plan, rounds)


def _plain(options: EngineOptions, sample: Sample, why: str) -> tuple[Engine, EnginePlan]:
    """Plan the plain engine: only the number of threads is chosen."""
    probes = _over_threads(options, lambda: {PLAIN: _plain_seconds(sample)})
    threads, found = _fastest(probes)
    plan = EnginePlan(
        "plain", None, False, f"plain: {why}{_threads_text(threads, probes)}", _by_label(found), threads=threads
    )
    return engine_from_plan(plan, sample.task), plan


def _over_threads(options: EngineOptions, probe: Callable[[], Probes]) -> dict[int, Probes]:
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


def _fastest(probes: dict[int, Probes]) -> tuple[int, Probes]:
    """Return the number of threads with the fastest probe, and its probes."""
    return min(probes.items(), key=lambda item: min(item[1].values()))


def _threads_text(threads: int, probes: dict[int, Probes]) -> str:
    """Return the number of threads in words if there was a choice; empty otherwise."""
    return "" if len(probes) == 1 else f" ({threads} thread{'s' if threads > 1 else ''})"


def _by_label(probes: Probes) -> dict[str, float]:
    return {candidate.label: seconds for candidate, seconds in probes.items()}


def _plain_seconds(sample: Sample) -> float:
    pair = min(2, len(sample.clients))
    return plain_round(sample, measure(PlainEngine, sample, pair), pair)


def _stackable(task: LearningTask, sample: Sample) -> tuple[Program | None, str]:
    """Try the stacked engine on two clients; return its program, or None and the obstacle in words."""
    if task.passes.only_plain:
        return None, task.passes.only_plain
    try:
        program = make_program(task, probe_examples(task.population, task.dtype).features)
        off = disagreement(_stacked(program), sample)
    except FedscapeError:
        raise
    except Exception as error:  # whatever a user's module raises under torch.func
        return None, first_line(error)
    if off > (0.1 if task.bf16 else 0.02):  # bfloat16 rounds to 0.4%
        return (
            None,
            f"stacked, its updates differ from the plain ones by {off:.0%} (state outside its buffers, or rounding?)",
        )
    return program, ""


def _time(options: EngineOptions, sample: Sample, program: Program) -> Probes:
    """Predict seconds a round of the plain engine and of tiles of several widths."""
    cohort = len(sample.clients)
    probes: Probes = {}
    if options.kind == "auto" and options.compile != "always":
        probes[PLAIN] = _plain_seconds(sample)
    if options.tile is not None:
        widths = [min(options.tile, cohort)]
    else:
        widths = tile_widths(cohort, widest_tile(sample, options.keep_bytes))
    build, alone, best, expected = _stacked(program), None, float("inf"), 0.0
    for width in widths:
        if expected * width * 3 > PROBE_SECONDS:
            break
        cost = measure(build, sample, width)
        alone = alone or cost
        seconds = stacked_round(sample, cost, width, alone)
        probes[Candidate("stacked", None if width == cohort else width)] = seconds
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
    """Complete a stacked plan: compile its program if configured, or if that repays its time."""
    engine, forced = StackedEngine(sample.task, tile=plan.tile, program=program), options.compile == "always"
    if options.compile == "never":
        return engine, plan
    if not isinstance(program, VmapProgram):
        note = "; nothing to compile: its gradients are written by hand" if forced else ""
        return engine, replace(plan, reason=plan.reason + note)
    eager = min(seconds for name, seconds in plan.probes.items() if name != PLAIN.label)
    found = compile_where_it_pays(sample, plan.tile, eager, rounds, forced=forced)
    probes = plan.probes if found.round_seconds is None else plan.probes | {"compiled": found.round_seconds}
    plan = replace(
        plan, compiled=found.program is not None, probes=probes, compile_seconds=found.compile_seconds,
        widths=found.widths, length=found.length, reason=f"{plan.reason}; {found.note}",
    )  # fmt: skip
    return StackedEngine(sample.task, tile=plan.tile, program=found.program or program), plan
