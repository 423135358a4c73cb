"""Cheap trials: the run's scenario with one change, one round, from one state."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor

from clients.core.arrays import I64
from clients.core.errors import UserError
from clients.training.options import LocalOptions
from server.algorithms.build import build_algorithm, dropping_partial_work
from server.algorithms.options import AlgorithmOptions
from server.rounds.model_metrics import ModelMetrics, curve_of_objective
from server.rounds.play import play_round
from server.rounds.sampling import CohortSampler
from server.rounds.strategy import FederatedStrategy, nobody
from simulator.grid.cohort_grid import CohortGrid
from simulator.grid.local_clients import LocalClients
from simulator.probes.sample import p_of
from simulator.probes.shadow_updates import Shadows, seed_of
from simulator.probes.standing import Standing
from simulator.runs.measured import has_central

Measure = Literal["objective", "validation_loss"]
OBJECTIVE_EXAMPLES = 200_000
"""Up to so many training examples trials measure the global objective; beyond, the central validation loss if any."""
MOST_EVERYONE = 2_000
"""The most clients that a trial trains in one round."""


@dataclass(frozen=True)
class Trial:
    """What one change does to the next round.

    Attributes:
        name: the change, in words.
        sets: the same change as `--set`s; empty where no key says it.
        differences: measure after the changed round minus that after the run's own, for each repeat.
        skipped: why it was not played; empty where it was.
    """

    name: str
    sets: tuple[str, ...] = ()
    differences: tuple[float, ...] = ()
    skipped: str = ""

    @property
    def mean(self) -> float:
        """Mean difference; below 0 the change does better. nan where it was not played."""
        with np.errstate(all="ignore"):
            return float(np.mean(self.differences)) if self.differences else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation of the differences; nan for fewer than two."""
        with np.errstate(all="ignore"):
            return float(np.std(self.differences, ddof=1)) if len(self.differences) > 1 else math.nan

    @property
    def error(self) -> float:
        """Standard error of the mean difference."""
        return self.spread / math.sqrt(len(self.differences)) if len(self.differences) > 1 else math.nan


@dataclass(frozen=True)
class Trials:
    """All trials of a state.

    Attributes:
        measure: what was measured.
        before: the measure at the state.
        own: the measure after the run's own next round.
        trials: the changes.
        updates: aggregated pseudo-gradients [P] of the unchanged round with other cohorts and batches.
    """

    measure: Measure
    before: float
    own: float
    trials: tuple[Trial, ...]
    updates: tuple[Tensor, ...]


@dataclass(frozen=True)
class _Change:
    name: str
    sets: tuple[str, ...] = ()
    local: Callable[[LocalOptions], LocalOptions] | None = None
    cohorts: bool = False
    batches: bool = False
    everyone: bool = False


class TrialRounds:
    """Plays rounds with one change from a state; the session's client states stay as they are.

    Args:
        standing: the state.
        shadows: has the local steps of each client.
    """

    def __init__(self, standing: Standing, shadows: Shadows) -> None:
        self.standing, self.shadows = standing, shadows
        population = standing.session.population
        central = has_central(population)
        objective = not central or population.num_examples <= OBJECTIVE_EXAMPLES
        self.measure: Measure = "objective" if objective else "validation_loss"
        evaluator = standing.session.evaluator
        curves = [curve_of_objective(evaluator, p_of(standing), 1)] if objective else []
        self._metrics = ModelMetrics(population, evaluator if central and not objective else None, curves=curves)

    def before(self) -> float:
        """Return the measure at the state, on the data of the next round."""
        state = replace(self.standing.state, round_index=self.standing.next_round)
        line = {**self._metrics.measure(None, state).line, **self._metrics.curves(state)}
        return float(line[self.measure])

    def play(self, change: _Change, *, batches: int, cohort: int) -> tuple[float, Tensor | None]:
        """Play a round; return the measure after it and the aggregate [P], None where no update counted.

        Args:
            change: what differs from the run.
            batches: number of the draw of batches; 0 is the run's own.
            cohort: likewise of the cohort.
        """
        standing, session = self.standing, self.standing.session
        options, given = session.scenario.algorithm, standing.run.given.algorithm
        act = change.local or (lambda o: o)
        local, whole = act(self.shadows.local), act(session.task.local)
        task = replace(session.task, local=local, seed=seed_of(session.task.seed, batches))
        if change.everyone:
            options = _of_everyone(options)
        algorithm = dropping_partial_work(options, given) if given is not None else build_algorithm(options, whole)
        facts = session.population.federation
        seed = seed_of(session.task.seed, cohort, "probe/cohort")
        sampler = CohortSampler(options, facts.sizes, seed, shares=facts.shares)
        federation = replace(standing.own.federation, local=whole, sampler=sampler, evaluated=nobody, hashed=False)
        strategy = FederatedStrategy(algorithm, federation)
        assert session.states is not None, "the clients are in this process"
        clients = LocalClients(standing.engine(task), session.codec, session.states,
                               session.scenario.engine.keep_bytes, algorithm.local_work)  # fmt: skip
        grid = CohortGrid(session.population.num_clients, clients)
        experiment = replace(standing.experiment, strategy=strategy, own=strategy, grid=grid, certifier=None,
                             model_metrics=self._metrics, machinery=None)  # fmt: skip
        try:
            _, result = play_round(experiment, standing.state)
        finally:
            session.states.rollback()
        aggregate = result.total.aggregate if result.total is not None else None
        return float(result.line[self.measure]), aggregate.pseudo_gradient if aggregate is not None else None


def run_trials(rounds: TrialRounds, *, repeats: int) -> Trials:
    """Play every trial `repeats` times.

    Repeat r of a change has the cohort and the batches of repeat r of the run's own round: they differ by the change
    alone. Repeat 0 is the run's next round itself. Other cohorts and other batches are compared with that one.
    """
    reasons = _skipped(rounds)
    unchanged = _Change("the run's own round")
    # A run whose rounds are not random has one outcome, so one repeat tells all.
    is_random = "another cohort" not in reasons or "another batch order" not in reasons
    repeats = repeats if is_random else 1
    own = [rounds.play(unchanged, batches=r, cohort=r) for r in range(repeats)]
    found = []
    for change in _changes(rounds.standing.session.task.local, rounds.shadows.steps_of_everyone):
        if change.name in reasons:
            found.append(Trial(change.name, change.sets, skipped=reasons[change.name]))
            continue
        if change.cohorts or change.batches:
            drawn = [rounds.play(change, batches=r * change.batches, cohort=r * change.cohorts)
                     for r in range(1, max(2, repeats) + 1)]  # fmt: skip
            differences = [value - own[0][0] for value, _ in drawn]
        else:
            values = [rounds.play(change, batches=r, cohort=r)[0] for r in range(repeats)]
            differences = [value - mine for value, (mine, _) in zip(values, own, strict=True)]
        found.append(Trial(change.name, change.sets, tuple(differences)))
    updates = tuple(update for _, update in own if update is not None)
    return Trials(rounds.measure, rounds.before(), own[0][0], tuple(found), updates)


def _changes(local: LocalOptions, every: I64) -> Sequence[_Change]:
    """Return the changes, in the order in which they are shown; `every` are the local steps of all clients."""
    lr, steps = local.local_lr, sorted(set(every[every > 0].tolist()))
    whole: tuple[str, ...] = ("local.batch_size=full",)
    if local.local_steps is None:
        whole = (*whole, "local.local_epochs=", f"local.local_steps={steps[0]}") if len(steps) == 1 else ()
    one = ("local.local_epochs=", "local.local_steps=1") if local.local_steps is None else ("local.local_steps=1",)
    return (
        _Change("another cohort", cohorts=True),
        _Change("another batch order", batches=True),
        _Change("full batch", whole, lambda o: replace(o, batch_size="full", drop_last=False)),
        _Change("one local step", one, lambda o: replace(o, local_epochs=None, local_steps=1)),
        _Change(
            "half the local rate", (f"local.local_lr={_exact(lr / 2)}",), lambda o: replace(o, local_lr=o.local_lr / 2)
        ),
        _Change(
            "double the local rate",
            (f"local.local_lr={_exact(lr * 2)}",),
            lambda o: replace(o, local_lr=o.local_lr * 2),
        ),
        _Change("all clients", ("algorithm.cohort=",), everyone=True),
    )


def _exact(value: float) -> str:
    """Return a number as short as possible without another value.

    Example:
        >>> _exact(2.0), _exact(2 / 11)
        ('2', '0.18181818181818182')
    """
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _skipped(rounds: TrialRounds) -> dict[str, str]:
    """Return why some changes would change nothing, or cannot be played, by name."""
    shadows, session = rounds.shadows, rounds.standing.session
    local, sample = session.task.local, shadows.sample
    found = {}
    if sample.cohort >= sample.population and session.scenario.algorithm.sampling == "uniform":
        found["another cohort"] = found["all clients"] = "all clients take part in each round"
    elif session.scenario.algorithm.sampling == "by_examples" and rounds.standing.run.given.algorithm is not None:
        found["all clients"] = "cohorts of your own algorithm are drawn by examples"
    elif sample.population > MOST_EVERYONE:
        found["all clients"] = f"it would train {sample.population:,} clients in a round"
    if not shadows.is_random:
        found["another batch order"] = "no random number enters the clients' work"
    sizes = session.population.sizes
    if local.batch_size == "full" or int(sizes.max(initial=0)) <= local.batch_size:
        found["full batch"] = "every batch has all examples of its client"
    if int(shadows.steps_of_everyone.max(initial=0)) <= 1:
        found["one local step"] = "clients take one step"
    return found


def _of_everyone(options: AlgorithmOptions) -> AlgorithmOptions:
    """Return the options with which all clients take part, by the weights that cohorts have on average."""
    names = {f.name for f in fields(options)}
    changes: dict[str, Any] = {"cohort": None, "sampling": "uniform"}
    if options.sampling == "by_examples" and "weighting" in names:
        changes["weighting"] = "examples"
    return replace(options, **changes)


def check_repeats(repeats: object) -> int:
    """Return the number of repeats.

    Raises:
        UserError: it is no whole number from 3 to 100.
    """
    if isinstance(repeats, bool) or not isinstance(repeats, int) or not 3 <= repeats <= 100:
        fix = "4 tell a cheap probe; more shrink the standard errors."
        raise UserError("repeats", f"must be a whole number from 3 to 100, got {repeats!r:.40}", fix=fix)
    return repeats
