"""The clients of a probe, and the coefficients of their updates in the aggregate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.errors import UserError
from clients.training.local import count_steps
from server.algorithms.aggregation import ClientFacts
from server.algorithms.objective import objective_weights
from simulator.probes.formulas.cohort_law import (
    CohortLaw,
    by_cohorts,
    everyone,
    finite_correction,
    with_replacement,
    without_replacement,
)
from simulator.probes.standing import Standing


@dataclass(frozen=True)
class Sample:
    """The clients of a probe: all that have data, or a uniform sample, which then stands for the federation.

    Attributes:
        clients: int64 (n,), increasing.
        population: N, the clients that have data.
        cohort: m, draws of a round.
        steps: local steps of each in the round, int64 (n,).
        weights: p_k of each in the objective, with sum 1, (n,).
    """

    clients: I64
    population: int
    cohort: int
    steps: I64
    weights: F64

    @property
    def is_whole(self) -> bool:
        """Whether all clients that have data are in it."""
        return len(self.clients) == self.population


def sample_of(standing: Standing, *, most: int, rows: int) -> Sample:
    """Draw the clients of a probe.

    Args:
        standing: the state.
        most: clients, where the federation has more; twice the cohort where that is more.
        rows: vectors of the model's size that the probe holds for each client; `engine.keep_bytes` holds them.
    """
    session, task = standing.session, standing.session.task
    busy = np.flatnonzero(session.population.sizes).astype(np.int64)
    cohort = session.played.cohort or len(busy)
    fits = session.scenario.engine.keep_bytes // (rows * task.parameters.size * task.dtype.itemsize)
    count = max(1, min(len(busy), max(most, 2 * cohort), fits))
    chosen = busy[streams.choose(streams.keys(task.seed, "probe/clients"), len(busy), count)]
    weights = p_of(standing)[chosen]
    return Sample(chosen, len(busy), cohort, steps_of_everyone(standing)[chosen], weights / weights.sum())


def steps_of_everyone(standing: Standing) -> I64:
    """Return the local steps of all clients in the next round, after partial work, int64 (N,); 0 without data."""
    task, sizes = standing.session.task, standing.session.population.sizes.astype(np.int64)
    return count_steps(task.local, sizes, np.arange(len(sizes)), seed=task.seed, round_index=standing.next_round)


def p_of(standing: Standing) -> F64:
    """Return p_k of all clients in the objective that the run minimises, (N,)."""
    session = standing.session
    by_examples = session.scenario.algorithm.sampling == "by_examples"
    return objective_weights(
        standing.own.algorithm,
        session.population.federation,
        local_lr=session.task.local.lr(standing.next_round),
        drawn_by_examples=by_examples,
    )


class Coefficients:
    """The coefficients of a sample's updates in the aggregate.

    Raises:
        UserError: the aggregation is no weighted sum, or their law over cohorts is not known.
    """

    def __init__(self, standing: Standing, sample: Sample) -> None:
        self._standing, self._sample = standing, sample
        session, how = standing.session, standing.own.algorithm.aggregation
        self._sizes = session.population.sizes[sample.clients].astype(np.int64)
        shares = session.population.federation.shares
        self._shares = None if shares is None else shares[sample.clients] / shares[sample.clients].sum()
        self._by_examples = session.scenario.algorithm.sampling == "by_examples"
        self._counts = np.ones(len(sample.clients), np.int64)
        if len(sample.clients) < min(sample.population, sample.cohort):
            limit = session.scenario.engine.keep_bytes
            problem = f"is {limit}, which does not hold several updates of each client of a cohort"
            raise UserError("engine.keep_bytes", problem)
        if how.reduce is not None or how.map_update is not None:
            raise UserError(
                "aggregation", f"{how.name!r} is no weighted sum of updates, so its error has no such parts"
            )
        if self._by_examples and (how.needs_steps or how.weighting != "uniform"):
            raise UserError(
                "algorithm.sampling", f"is 'by_examples', whose law is known for uniform means, not {how.name!r}"
            )
        if standing.own.federation.drop_partial_work:
            local = replace(session.task.local, partial_work=0.0)
            full = count_steps(local, self._sizes, sample.clients, seed=session.task.seed, round_index=1)
            self._counts = (sample.steps >= full).astype(np.int64)

    def of(self, members: I64, cohort: int) -> F64:
        """Return the coefficients of some members of the sample as a whole cohort."""
        chosen = self._counts[members]
        if not chosen.any():
            return np.zeros(len(members))
        return self._standing.own.algorithm.aggregation.weights_of(
            ClientFacts(
                num_examples=self._sizes[members],
                draws=chosen,
                local_steps=self._sample.steps[members],
                total_examples=int(self._sizes.sum()),
                population=len(self._sizes),
                cohort=cohort,
                local_lr=self._standing.session.task.local.lr(self._standing.next_round),
                shares=None if self._shares is None else self._shares[members],
            )
        )

    @property
    def full(self) -> F64:
        """The coefficients where all clients take part, (n,)."""
        if self._by_examples:
            return self._drawn_with
        everyone_here = np.arange(len(self._sizes))
        return self.of(everyone_here, len(self._sizes))

    @property
    def _drawn_with(self) -> F64:
        found: F64 = self._sizes / self._sizes.sum() if self._shares is None else self._shares
        return found

    @cached_property
    def law(self) -> CohortLaw:
        """Their law over cohorts."""
        n, m, how = len(self._sizes), self._sample.cohort, self._standing.own.algorithm.aggregation
        if self._by_examples:
            return with_replacement(self._drawn_with, m)
        if m >= n:
            return everyone(self.full)
        if how.weighting == "unbiased" and not how.needs_steps:
            return without_replacement(self.of(np.arange(n), m), m)
        alike = how.weighting == "uniform" or (self._shares is None and len(set(self._sizes.tolist())) == 1)
        if alike and how.weighting is not None and not how.needs_steps and self._counts.all():
            return without_replacement(np.full(n, 1.0 / m), m)
        return by_cohorts(lambda members: self.of(members, m), n, m, seed=self._standing.session.task.seed)

    def correction(self) -> float:
        """Return the factor of the variance over cohorts where the sample is smaller than the federation."""
        if self._by_examples:
            return 1.0
        return finite_correction(len(self._sizes), self._sample.population, self._sample.cohort)
