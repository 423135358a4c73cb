"""Compiles the stacked engine's gradients where compiling repays its time."""

from __future__ import annotations

import os
import shutil
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from clients.core.errors import EngineError, FedscapeError
from clients.engines.programs import VmapProgram, make_program
from clients.training.task import probe_examples
from simulator.engines.probe import Cost, Sample, first_line, seconds_text, stacked_round
from simulator.engines.timing import Candidate, Stopwatch, measure

COMPILE_SECONDS = 30.0
"""The assumed seconds of compiling one shape (measured: 2 to 17 s on two cores)."""
REPAID = 4.0
"""Compile only if the rounds take this many times as long as compiling."""


@dataclass(frozen=True)
class Compiled:
    """The result of trying to compile.

    Attributes:
        program: the compiled program; None keeps the eager one.
        widths: numbers of clients whose batches are compiled.
        length: examples in a compiled batch.
        note: what was done and why, in words; may be empty.
        compile_seconds: time spent compiling.
        round_seconds: predicted seconds a round; None if nothing was compiled.
    """

    program: VmapProgram | None
    widths: tuple[int, ...] = ()
    length: int = 0
    note: str = ""
    compile_seconds: float = 0.0
    round_seconds: float | None = None


def compile_where_it_pays(sample: Sample, tile: int | None, eager: float, rounds: int, *, forced: bool) -> Compiled:
    """Compile the program of a task whose gradients come from `torch.func`.

    Args:
        sample: a typical cohort.
        tile: clients trained together; None is all.
        eager: predicted seconds a round without compiling.
        rounds: rounds of the run.
        forced: compile however short the run; otherwise compile only if that repays its time and is faster.

    Raises:
        EngineError: compilation was forced, and is impossible.
    """
    widths = compiled_widths(sample, tile)
    if not forced and eager * rounds < REPAID * COMPILE_SECONDS * len(widths):
        return Compiled(None, note="not compiled: the run is too short to repay it")
    recurrent = any(isinstance(m, nn.RNNBase | nn.RNNCellBase) for m in sample.task.module.modules())
    obstacle = compiler_missing() or _varying_length(sample)
    if forced and obstacle:
        raise EngineError(
            "engine.compile", f"'always' is impossible: {obstacle}", fix="Set compile = 'auto' or 'never'."
        )
    if obstacle or (recurrent and not forced):
        return Compiled(None, note=f"not compiled: {obstacle or 'an unrolled recurrence compiles for minutes'}")
    try:
        return _compile(sample, widths, eager, forced)
    except FedscapeError:
        raise
    except Exception as error:  # whatever the compiler raises
        if forced:
            raise EngineError("engine.compile", f"'always', and compiling failed: {first_line(error)}") from error
        return Compiled(None, note=f"not compiled: {first_line(error)}")


def _compile(sample: Sample, widths: tuple[int, ...], eager: float, forced: bool) -> Compiled:
    task, length = sample.task, _batch_length(sample)
    program = make_program(task, probe_examples(task.population, task.dtype).features)
    assert isinstance(program, VmapProgram)
    program.compile(widths, length)
    started = time.perf_counter()
    threads = torch.get_num_threads()
    for width in widths:
        Stopwatch(sample, program).seconds(Candidate("stacked", width, threads), 1)
    spent = time.perf_counter() - started
    widest, watch = Candidate("stacked", max(widths), threads), Stopwatch(sample, program)
    cost = measure(lambda steps: watch.seconds(widest, steps), sample.longest)
    seconds = stacked_round(sample, cost, max(widths), Cost(cost.setup, cost.step / 4))  # no width is below a quarter
    if seconds > 0.9 * eager and not forced:
        note = f"not compiled: that is no faster ({seconds_text(seconds)}, tried for {spent:.0f} s)"
        return Compiled(None, note=note, compile_seconds=spent, round_seconds=seconds)
    note = f"compiled {seconds_text(seconds)} (compiling took {spent:.0f} s)"
    return Compiled(program, widths, length, note, spent, seconds)


def compiled_widths(sample: Sample, tile: int | None) -> tuple[int, ...]:
    """Choose the numbers of clients to compile: those of the tiles and, if clients end early, a half and a quarter.

    For numbers in between, the engine pads to the next compiled one. Three shapes a program stay well below the
    compiler's limit of eight; above it, the compiler would silently run eager.
    """
    parts = np.array_split(sample.steps, -(-len(sample.clients) // (tile or len(sample.clients))))
    widths = {len(part) for part in parts}
    if any(part[0] != part[-1] for part in parts):
        widest = max(widths)
        widths |= {-(-widest // 2), -(-widest // 4)}
    return tuple(sorted(widths))


def compiler_missing() -> str:
    """Return what `torch.compile` lacks on this machine for the CPU, in words; empty if nothing."""
    name = os.environ.get("CXX", "g++")
    if shutil.which(name) is None and shutil.which("clang++") is None:
        return f"no C++ compiler ({name}) is installed"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python's headers (Python.h) are not installed"
    return ""


def _batch_length(sample: Sample) -> int:
    local, largest = sample.task.local, int(sample.task.population.sizes[sample.clients].max())
    return largest if local.batch_size == "full" else min(local.batch_size, largest)


def _varying_length(sample: Sample) -> str:
    """Return an obstacle, in words, if batches differ in length between cohorts; empty otherwise."""
    sizes = sample.task.population.sizes
    sizes = sizes[sizes > 0]
    whole = sample.task.local.batch_size == "full" or int(sizes.max()) < sample.task.local.batch_size
    if whole and len(sample.clients) < len(sizes) and (sizes != sizes[0]).any():
        return "a batch is as long as the largest client of each cohort, a new shape each round"
    return ""
