"""Chooses by timing which engine runs a scenario: workers, tiles, threads, compiled or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from clients.core.errors import EngineError, FedscapeError
from clients.engines.base import Engine
from clients.engines.batch import Program
from clients.engines.native.choice import has_kernel
from clients.engines.native.threads import set_threads, threads_restored
from clients.engines.plain import PlainEngine
from clients.engines.programs import VmapProgram, make_program
from clients.engines.stacked import StackedEngine
from clients.training.rules import PLAIN, LocalRule
from clients.training.task import LearningTask, probe_examples
from simulator.engines.compiling import compile_where_it_pays
from simulator.engines.kernels import find_kernel, with_note
from simulator.engines.memory import widest_tile
from simulator.engines.options import EngineOptions
from simulator.engines.plan import EnginePlan, probe_name, use_threads
from simulator.engines.probe import (
    Sample,
    disagreement,
    first_line,
    make_sample,
    seconds_text,
    tile_widths,
)
from simulator.engines.race import Entrant, choose, race
from simulator.engines.splitting import plan_split
from simulator.engines.timing import Candidate, Stopwatch, Timing
from simulator.engines.trial import try_workers
from simulator.engines.worker_count import Choice, TryWorkers, choose_workers, shared_width, threads_each

MakeWatch = Callable[[Sample, Program | None], Stopwatch]
"""(sample, the stacked engine's program) -> what times candidates."""


def plan_engine(
    options: EngineOptions,
    task: LearningTask,
    cohort: int,
    rounds: int,
    rule: LocalRule = PLAIN,
    *,
    here: int | None = None,
    watch: MakeWatch = Stopwatch,
    trial: TryWorkers = try_workers,
) -> tuple[Engine, EnginePlan]:
    """Choose an engine for `cohort` clients a round over `rounds` rounds.

    One process is left with the plan's threads; of several workers the pool sets them.

    Args:
        options: of the engine.
        task: the model and the clients' data.
        cohort: clients of a round.
        rounds: of the run.
        rule: the algorithm's local rule.
        here: workers on this machine, where `options.workers` are on several.
        watch: makes what times candidates.
        trial: tries several workers.

    Raises:
        EngineError: the named engine, compilation or a kernel cannot run this scenario.
    """
    if (split := plan_split(options, task)) is not None:
        use_threads(split[1], task)
        return split
    native, missing = find_kernel(options, task, rule)
    if options.native == "always":
        options = replace(options, kind="stacked")
    sample = make_sample(task, cohort)
    program, why = _program(options, sample, native=native)
    with threads_restored():
        planner = _Planner(options, watch(sample, program), program, why, rounds, _threads(options, here))
        plan, alone = planner.plan(trial)
        if plan.threads is not None:
            set_threads(plan.threads)  # compiled code is made for a number of threads
        engine, plan = _built(options, sample, program, plan, alone, rounds)
    plan = with_note(plan, engine, missing)
    use_threads(plan, task)
    return engine, plan


def _program(options: EngineOptions, sample: Sample, *, native: bool) -> tuple[Program | None, str]:
    """Return the program of the stacked engine; or None, and why the plain engine runs.

    Raises:
        EngineError: the options need the stacked engine, which cannot run this model.
    """
    if options.kind == "plain":
        return None, "as configured"
    program, problem = _stackable(sample.task, sample, native=native)
    if program is None and (options.kind == "stacked" or options.compile == "always"):
        is_named = options.kind == "stacked"
        raise EngineError(
            "engine.kind" if is_named else "engine.compile",
            f"'{options.kind if is_named else options.compile}' cannot run this model: {problem}",
            fix="Set engine.kind = 'plain' (or 'auto', and compile = 'auto'), or change the model's forward.",
        )
    return program, f"cannot be stacked: {problem}" if program is None else ""


def _stackable(task: LearningTask, sample: Sample, *, native: bool) -> tuple[Program | None, str]:
    """Try the stacked engine on two clients; return its program, or None and the obstacle in words."""
    if task.passes.only_plain:
        return None, task.passes.only_plain
    try:
        program = make_program(task, probe_examples(task.population, task.dtype).features, native=native)
        off = disagreement(lambda task: StackedEngine(task, program=program), sample)
    except EngineError as error:
        return None, error.problem
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


@dataclass(frozen=True)
class _Planner:
    """Times candidates and makes the plan, but for compilation.

    Attributes:
        options: of the engine.
        watch: times candidates.
        program: of the stacked engine; None where the plain one runs.
        why: why the plain engine runs.
        rounds: of the run.
        threads: the numbers of threads to time.
    """

    options: EngineOptions
    watch: Stopwatch
    program: Program | None
    why: str
    rounds: int
    threads: tuple[int, ...]

    @property
    def cohort(self) -> int:
        """Clients of a round."""
        return len(self.watch.sample.clients)

    def plan(self, trial: TryWorkers) -> tuple[EnginePlan, float]:
        """Return the plan, and the predicted seconds of its engine in one process."""
        entrants = race(self.entrants(), self.rounds)
        winner = choose(entrants)
        reason = self.reason(winner, entrants)  # before the trial, which takes more samples of the winner alone
        if self.options.workers == "auto":
            chosen = choose_workers(self.options, self.watch, entrants, winner, self.rounds, trial)
        else:
            tile = shared_width(self.cohort, winner.candidate.width, self.options.workers)
            chosen = Choice(self.options.workers, "", winner, winner.candidate.threads, tile)
        candidate = chosen.entrant.candidate
        width = (self.options.tile or chosen.tile) if candidate.engine == "stacked" else None
        plan = EnginePlan(
            candidate.engine,
            None if width == self.cohort and self.options.tile is None else width,
            compiled=False,
            reason=reason + (f"; {chosen.note}" if chosen.note else ""),
            probes={self.name(e): e.seconds for e in entrants} | dict(chosen.probes),
            threads=chosen.threads,
            workers=chosen.workers,
        )
        return plan, chosen.entrant.seconds

    def entrants(self) -> list[Entrant]:
        """Return the candidates of the race, those of each number of threads from narrow to wide."""
        named = self.program is None or (self.options.kind == "auto" and self.options.compile != "always")
        found = []
        for threads in self.threads:
            if named:
                found.append(self.entrant(Candidate("plain", min(2, self.cohort), threads)))
            narrower = None
            for width in self.widths() if self.program is not None else ():
                narrower = self.entrant(Candidate("stacked", width, threads), narrower)
                found.append(narrower)
        return found

    def widths(self) -> list[int]:
        """Return the tiles to time: each worker must have one, and those of all workers must fit the memory."""
        workers = 1 if self.options.workers == "auto" else self.options.workers
        if self.options.tile is not None:
            return [min(self.options.tile, self.cohort)]
        largest = widest_tile(self.watch.sample, self.options.keep_bytes // workers)
        widest = -(-self.cohort // workers)
        if self.program is not None and has_kernel(self.program):  # it trains one client after another
            return [max(1, min(widest, largest))]
        return tile_widths(widest, largest)

    def entrant(self, candidate: Candidate, narrower: Entrant | None = None) -> Entrant:
        """Return an entrant that is not timed yet."""
        sample = self.watch.sample
        timing = Timing(lambda steps: self.watch.seconds(candidate, steps), sample.longest)
        return Entrant(candidate, timing, sample, narrower)

    def tile(self, entrant: Entrant) -> int | None:
        """Return the tile of a candidate; None for the whole cohort and for the plain engine."""
        width = entrant.candidate.width
        return None if entrant.candidate.engine == "plain" or width == self.cohort else width

    def name(self, entrant: Entrant) -> str:
        """Return the name of a candidate's probe in the record."""
        threads = entrant.candidate.threads if len(self.threads) > 1 else None
        return probe_name(entrant.candidate.engine, self.tile(entrant), threads)

    def reason(self, winner: Entrant, entrants: Sequence[Entrant]) -> str:
        """Return why the fastest candidate of one process was chosen."""
        several = "s" if winner.candidate.threads > 1 else ""
        threads = f" ({winner.candidate.threads} thread{several})" if len(self.threads) > 1 else ""
        if self.program is None:
            return f"plain: {self.why}{threads}"
        best = {
            kind: choose(own)
            for kind in ("stacked", "plain")
            if (own := [e for e in entrants if e.candidate.engine == kind])
        }
        tile = self.tile(best["stacked"])
        words = "stacked" if tile is None else f"stacked in tiles of {tile}:"
        words = f"probe: {words} {seconds_text(best['stacked'].seconds)} a round"
        return words + (f", plain {seconds_text(best['plain'].seconds)}" if "plain" in best else "") + threads


def _threads(options: EngineOptions, here: int | None) -> tuple[int, ...]:
    """Return the numbers of threads to time: on a busy machine, or for small models, one is often faster than all."""
    if options.workers != "auto" and options.workers > 1:
        return (threads_each(options, here or options.workers),)
    return tuple(sorted({1, torch.get_num_threads()})) if options.threads is None else (options.threads,)


def _built(
    options: EngineOptions, sample: Sample, program: Program | None, plan: EnginePlan, eager: float, rounds: int
) -> tuple[Engine, EnginePlan]:
    """Build the engine of a plan; compile its program if configured, or if that repays its time."""
    if plan.engine == "plain":
        return PlainEngine(sample.task), plan
    engine, forced = StackedEngine(sample.task, tile=plan.tile, program=program), options.compile == "always"
    if options.compile == "never":
        return engine, plan
    if not isinstance(program, VmapProgram) or has_kernel(program):
        how = "a kernel in C trains" if isinstance(program, VmapProgram) else "its gradients are written by hand"
        note = f"; nothing to compile: {how}" if forced else ""
        return engine, replace(plan, reason=plan.reason + note)
    found = compile_where_it_pays(sample, plan.tile, eager, rounds // plan.workers, forced=forced)
    probes = plan.probes if found.round_seconds is None else plan.probes | {"compiled": found.round_seconds}
    plan = replace(
        plan, compiled=found.program is not None, probes=probes, compile_seconds=found.compile_seconds,
        widths=found.widths, length=found.length, reason=f"{plan.reason}; {found.note}",
    )  # fmt: skip
    return StackedEngine(sample.task, tile=plan.tile, program=found.program or program), plan
