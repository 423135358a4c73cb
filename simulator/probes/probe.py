"""Probes a recorded run: stands at the end of a round, measures, and writes probes.json."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from clients.core.errors import UserError, unknown_name
from clients.engines.native.threads import threads_restored
from clients.flower.shim import quiet
from server.algorithms.algorithm import Algorithm
from server.record.records import RunFolder
from simulator.engines.devices import device_restored
from simulator.probes.curvature import Curvature, curvature_of, hessian_of
from simulator.probes.file import add_probes
from simulator.probes.formulas.error_by_cause import mean_square_error, with_errors
from simulator.probes.result import DriftByCause, Probes
from simulator.probes.sample import Coefficients, sample_of
from simulator.probes.shadow_updates import Shadows
from simulator.probes.standing import Standing, check_probed, chosen_round, standing_after
from simulator.probes.theory import Gradients, Theory, measured_gradients, theory_of
from simulator.probes.trials import TrialRounds, Trials, check_repeats, run_trials
from simulator.replay.verify import opened
from simulator.runs.arguments.checks import check_parts, check_run_path
from simulator.runs.building import DataLike, ModelLike, Overrides

PARTS = ("trials", "drift_by_cause", "curvature")
"""What a probe may measure. Noise and dissimilarity belong to `curvature`, and so does the theory beside the run."""
CLIENTS = 200
T = TypeVar("T")


@threads_restored()
@device_restored()
def probe(
    run: Path | str,
    *,
    round: int | None = None,
    parts: tuple[str, ...] = PARTS,
    repeats: int = 4,
    clients: int = CLIENTS,
    replay_seconds: float = 60.0,
    record: bool = True,
    model: ModelLike | None = None,
    data: DataLike | None = None,
    algorithm: Algorithm | None = None,
) -> Probes:
    """Measure why a run moves as it does, from its state after a round; the run itself does not change.

    The state is that of a checkpoint, or of rounds played again from the last one before it. The same round and the
    same arguments give the same numbers.

    Args:
        run: the run's folder.
        round: the round after which to probe; the last one with a checkpoint by default.
        parts: what to measure, of `trials`, `drift_by_cause` and `curvature`.
        repeats: draws of batches and cohorts, 3 to 100.
        clients: the most clients that drift by cause and curvature are measured on; at least twice the cohort.
        replay_seconds: the most seconds, by the record, of rounds that must be played again.
        record: whether probes.json is written into the run's folder; a probe of the same round there is replaced.
        model: the one passed to `simulate`, if any.
        data: likewise.
        algorithm: likewise.

    Raises:
        UserError: the round cannot be had, or the run cannot be probed.
        RunFolderError: the folder cannot be read, or parts from Python are missing.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import fedscape as fs
        >>> with TemporaryDirectory() as folder:
        ...     done = fs.simulate("quadratic-two-clients", out=f"{folder}/run")
        ...     found = fs.probe(done.path, round=0)
        >>> [round(v, 6) for v in found.curvature.values]
        [2.5]
    """
    started = time.perf_counter()
    quiet()
    check_parts(model=model, data=data, algorithm=algorithm)
    repeats, parts = check_repeats(repeats), _checked_parts(parts)
    if isinstance(clients, bool) or not isinstance(clients, int) or clients < 2:
        raise UserError("clients", f"must be a whole number of at least 2, got {clients!r:.40}")
    if isinstance(replay_seconds, bool) or not isinstance(replay_seconds, int | float) or not replay_seconds >= 0:
        raise UserError("replay_seconds", f"must be a number of at least 0, got {replay_seconds!r:.40}")
    check_run_path(run)
    check_probed(RunFolder.open(Path(run)))
    found = opened(run, Overrides(model, data, algorithm))
    place = chosen_round(found, round)
    with standing_after(found, place, replay_seconds=replay_seconds) as standing:
        result = _measured(standing, parts, repeats, clients, started)
    if record:
        add_probes(found.folder, result)
    return result


def _checked_parts(parts: object) -> tuple[str, ...]:
    """Return the parts to measure.

    Raises:
        UserError: one is none of `PARTS`.
    """
    chosen = tuple(parts) if isinstance(parts, tuple | list | set | frozenset) else (parts,)
    for part in chosen:
        if part not in PARTS:
            raise UserError("parts", unknown_name(part, PARTS, "a part of a probe"))
    return tuple(part for part in PARTS if part in chosen)


class _Clock:
    """Seconds by part, and why parts were not measured."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.missing: dict[str, str] = {}

    def part(self, name: str, measure: Callable[[], T]) -> T | None:
        """Measure a part; None where it cannot be measured."""
        started = time.perf_counter()
        try:
            return measure()
        except UserError as error:
            self.missing[name] = f"{error.field} {error.problem}"
            return None
        finally:
            self.seconds[name] = time.perf_counter() - started


def _measured(standing: Standing, parts: tuple[str, ...], repeats: int, most_clients: int, started: float) -> Probes:
    clock = _Clock()
    clock.seconds["state"] = standing.seconds
    sample = sample_of(standing, most=most_clients, rows=repeats + 3)
    shadows = Shadows(standing, sample)
    coefficients, unlike = _coefficients(standing, shadows)
    trials: Trials | None = None
    drift: DriftByCause | None = None
    gradients: Gradients | None = None
    bent: Curvature | None = None
    theory: Theory | None = None
    if "trials" in parts:
        trials = clock.part("trials", lambda: run_trials(TrialRounds(standing, shadows), repeats=repeats))
    if "drift_by_cause" in parts and coefficients is not None:
        drift = clock.part("drift_by_cause", partial(_drift, shadows, coefficients, trials, repeats))
    elif "drift_by_cause" in parts:
        clock.missing["drift_by_cause"] = unlike
    if "curvature" in parts:
        draw = partial(measured_gradients, standing, shadows, coefficients, draws=repeats)
        gradients = clock.part("gradients", draw)
        hessian, share = hessian_of(standing, sample)
        seed = standing.session.task.seed
        bent = clock.part("curvature", lambda: curvature_of(hessian, share, seed=seed))
        if bent is not None:
            theory = clock.part("theory", partial(theory_of, standing, shadows, bent, gradients, hessian))
    clock.seconds["total"] = time.perf_counter() - started
    return Probes(
        path=standing.run.folder.path,
        round_index=standing.state.round_index,
        source=standing.source,
        reasons=standing.reasons,
        measure=trials.measure if trials is not None else "",
        before=trials.before if trials is not None else math.nan,
        own=trials.own if trials is not None else math.nan,
        trials={trial.name: trial for trial in trials.trials} if trials is not None else {},
        drift_by_cause=drift,
        curvature=bent,
        gradients=gradients,
        theory=theory,
        not_measured=clock.missing,
        seconds=clock.seconds,
    )


def _coefficients(standing: Standing, shadows: Shadows) -> tuple[Coefficients | None, str]:
    """Return the coefficients of the sample's updates; None and why where the aggregation has none."""
    try:
        return Coefficients(standing, shadows.sample), ""
    except UserError as error:
        return None, f"{error.field} {error.problem}"


def _drift(shadows: Shadows, coefficients: Coefficients, trials: Trials | None, repeats: int) -> DriftByCause:
    law, full = coefficients.law, coefficients.full
    updates = shadows.updates(full, repeats)
    split = with_errors(updates, law, full, correction=coefficients.correction())
    seen = math.nan, math.nan
    if trials is not None and trials.updates:
        seen = mean_square_error(trials.updates, updates.ideal)
    return DriftByCause.of(split, seen, len(shadows.sample.clients), law.drawn)
