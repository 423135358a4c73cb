"""Tries the change that an explanation suggests: the same run with it, paired by its random numbers, and its gain."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clients.core.arrays import F64
from clients.core.errors import UserError
from clients.flower.shim import quiet
from server.algorithms.algorithm import Algorithm
from server.convergence.facts import label_of, shown
from server.convergence.noise import deviation
from server.diagnosis.evidence import NEWEST, Evidence
from server.diagnosis.finding import Change, Finding
from server.record.files import free_name
from server.record.records import RunFolder
from simulator.explaining.reading import evidence_of
from simulator.runs.building import DataLike, ModelLike
from simulator.runs.record import recorded_scenario
from simulator.runs.run import Run, simulate
from simulator.runs.strategies import StrategyChoice
from simulator.scenario.sections import load_scenario

CLEAR = 2.0
"""Standard errors beyond which a difference of two runs is called one."""


@dataclass(frozen=True)
class Tried:
    """What a change did.

    Attributes:
        finding: the cause whose change was tried.
        path: the folder of the run with the change.
        metric: the loss that was compared.
        before: its median over the newest rounds of the run.
        after: the same of the run with the change, at the same round where it reached it.
        error: standard error of their difference, from the noise of both curves.
        rounds_to: the first round in which the changed run was as good as the run ever was; None where it never was.
        best_round: the round in which the run was at its best.
    """

    finding: Finding
    path: Path
    metric: str
    before: float
    after: float
    error: float
    rounds_to: int | None
    best_round: int

    @property
    def helped(self) -> bool | None:
        """Whether the change helped; None where the two runs cannot be told apart."""
        if not math.isfinite(self.after):
            return False
        if not math.isfinite(self.before):
            return True
        gained = self.before - self.after
        return None if abs(gained) <= CLEAR * self.error else gained > 0

    def __str__(self) -> str:
        """Return what the change did, as one sentence."""
        sets = ", ".join(f"{key} = {value}" for key, value in (self.finding.change or Change({}, "")).sets.items())
        words = {True: "It helped", False: "It did not help", None: "No clear difference"}[self.helped]
        course = f"{label_of(self.metric)} {shown(self.before)} before, {shown(self.after)} with {sets}"
        if self.helped and self.rounds_to is not None:
            course += f"; it was as good as the run's best (round {self.best_round}) by round {self.rounds_to}"
        return f"{words}: {course} (standard error {shown(self.error)}, one pair)."


def try_change(
    run: Path | str,
    finding: Finding,
    *,
    out: Path | str | None = None,
    model: ModelLike | None = None,
    data: DataLike | None = None,
    algorithm: Algorithm | None = None,
    strategy: StrategyChoice | None = None,
    observers: Sequence[object] = (),
    stop_asked: Callable[[], bool] = lambda: False,
) -> Tried:
    """Play the run again with the change of a finding, from its first round and with the same seed, and compare.

    Data, partition, cohorts, batches and faults are those of the run wherever the change leaves them.

    Args:
        run: the run's folder.
        finding: one of its explanation, with a change of the scenario.
        out: the new run's folder; by default the run's name with the cause beside it.
        model: the one passed to `simulate`, if any; likewise `data`, `algorithm` and `strategy`.
        data: see `model`.
        algorithm: see `model`.
        strategy: see `model`.
        observers: as in `simulate`.
        stop_asked: as in `simulate`.

    Raises:
        UserError: the finding has no change of the scenario.
        ScenarioError: the change does not fit the scenario.
    """
    quiet()
    change = finding.change
    if change is None or not change.sets:
        words = change.words if change is not None else "nothing"
        raise UserError(
            "finding", f"{finding.kind!r} has no change of the scenario to try", fix=f"What can be done: {words}."
        )
    folder = RunFolder.open(Path(run))
    sets = dict(change.sets)
    scenario = load_scenario(recorded_scenario(folder), sets=sets)
    place = (
        Path(out)
        if out is not None
        else free_name(folder.path.with_name(f"{folder.path.name}-{finding.kind.replace('_', '-')}"))
    )
    tried = simulate(
        scenario,
        model=model,
        data=data,
        algorithm=algorithm,
        strategy=strategy,
        out=place,
        observers=observers,
        stop_asked=stop_asked,
    )
    return compare(evidence_of(folder), evidence_of(RunFolder.open(_path_of(tried))), finding, _path_of(tried))


def _path_of(run: Run) -> Path:
    assert run.path is not None, "it was recorded"
    return run.path


def compare(before: Evidence, after: Evidence, finding: Finding, path: Path) -> Tried:
    """Compare two runs at the last round that both played; a change of the rounds themselves at the end of each."""
    metric = before.loss_name if len(after.series(before.loss_name)[1]) else after.loss_name
    (rounds, old), (new_rounds, new) = before.series(metric), after.series(metric)
    last = (
        math.inf if "run.rounds" in (finding.change.sets if finding.change else {}) else min(rounds[-1], new_rounds[-1])
    )
    mine, theirs = old[rounds <= last][-NEWEST:], new[new_rounds <= last][-NEWEST:]
    error = math.hypot(_error(old[rounds <= last]), _error(new[new_rounds <= last]))
    reached = new_rounds[new <= old.min()]
    return Tried(
        finding,
        path,
        metric,
        math.inf if before.diverged else float(np.median(mine)),
        math.inf if after.diverged else float(np.median(theirs)),
        error,
        int(reached[0]) if len(reached) else None,
        int(rounds[int(np.argmin(old))]),
    )


def _error(values: F64) -> float:
    """Return the standard error of a curve's newest median: its noise over the root of the rounds."""
    newest = values[-16:]
    return deviation(newest.tolist()) * math.sqrt(math.pi / 2 / min(NEWEST, len(newest))) if len(newest) >= 2 else 0.0
