"""Cohorts are a pure function of seed and round, follow the right law, and have no empty client."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.core import streams
from clients.core.errors import UserError
from server.algorithms.options import FedAvgOptions
from server.rounds.sampling import CohortSampler

SIZES = np.array([5, 1, 0, 10, 4, 0, 20], np.int32)
BUSY = [0, 1, 3, 4, 6]


def sampler(seed=1, sizes=SIZES, **options):
    return CohortSampler(FedAvgOptions(**{"weighting": "uniform"} | options), np.asarray(sizes, np.int32), seed)


def test_default_cohort_is_every_client_with_data():
    everyone = sampler()
    for round_index in (1, 2):
        cohort = everyone.draw(round_index)
        assert cohort.clients.tolist() == BUSY
        assert cohort.draws.tolist() == [1] * 5
    assert everyone.size == 5


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30).filter(any), st.data())
@settings(max_examples=60)
def test_uniform_cohort_has_distinct_clients(sizes, data):
    busy = np.flatnonzero(sizes)
    m = data.draw(st.integers(1, len(busy)))
    cohort = sampler(sizes=sizes, cohort=m).draw(data.draw(st.integers(1, 1000)))
    assert len(cohort.clients) == m
    assert (np.diff(cohort.clients) > 0).all()
    assert set(cohort.clients) <= set(busy)
    assert (cohort.draws == 1).all()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30).filter(any), st.integers(1, 40), st.integers(1, 1000))
@settings(max_examples=60)
def test_cohort_by_examples_counts_repeated_draws(sizes, m, round_index):
    """The cohort may be larger than the population; then clients are drawn more than once."""
    cohort = sampler(sizes=sizes, cohort=m, sampling="by_examples").draw(round_index)
    assert cohort.draws.sum() == m
    assert (np.diff(cohort.clients) > 0).all()
    assert set(cohort.clients) <= set(np.flatnonzero(sizes))


def test_cohort_is_a_pure_function_of_seed_and_round():
    for options in ({"cohort": 3}, {"cohort": 3, "sampling": "by_examples"}):
        one, same, other = sampler(**options), sampler(**options), sampler(seed=2, **options)
        later = one.draw(9)
        cohorts = [one.draw(r).clients.tolist() for r in range(1, 21)]
        assert cohorts == [same.draw(r).clients.tolist() for r in range(1, 21)]
        assert one.draw(9).clients.tolist() == later.clients.tolist()
        assert cohorts != [other.draw(r).clients.tolist() for r in range(1, 21)]
        assert len({tuple(c) for c in cohorts}) > 3


ROUNDS = 4000


def test_every_client_is_drawn_equally_often():
    """Each of the five clients is in 2/5 of the rounds, each pair in 1/10, within four standard errors."""
    drawn = [tuple(sampler(cohort=2).draw(r).clients) for r in range(1, ROUNDS + 1)]
    pairs, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(pairs) == 10
    assert (np.abs(counts - ROUNDS / 10) < 4 * np.sqrt(ROUNDS * 0.1 * 0.9)).all()


def test_clients_are_drawn_in_proportion_to_their_examples():
    m, total = 3, np.zeros(len(SIZES))
    draw = sampler(cohort=m, sampling="by_examples")
    twice = 0
    for r in range(1, ROUNDS + 1):
        cohort = draw.draw(r)
        total[cohort.clients] += cohort.draws
        twice += cohort.draws.max() > 1
    p = SIZES / SIZES.sum()
    assert (np.abs(total - m * ROUNDS * p) <= 4 * np.sqrt(m * ROUNDS * p * (1 - p))).all()
    distinct = sum(p[i] * p[j] * p[k] for i in BUSY for j in BUSY for k in BUSY if len({i, j, k}) == 3)
    assert abs(twice - ROUNDS * (1 - distinct)) < 4 * np.sqrt(ROUNDS * distinct * (1 - distinct))


def test_cohort_larger_than_the_clients_with_data_is_refused():
    with pytest.raises(UserError) as caught:
        sampler(cohort=6)
    message = str(caught.value)
    assert all(part in message for part in ("algorithm.cohort", "at most the 5 clients", "2 of 7 are empty", "got 6"))
    assert sampler(cohort=6, sampling="by_examples").size == 6


def test_added_client_changes_few_choices():
    """One client added to 1,000 changes at most one choice."""
    few, more = (sampler(sizes=np.ones(n), cohort=100) for n in (1000, 1001))
    for r in range(1, 30):
        assert len(set(few.draw(r).clients) - set(more.draw(r).clients)) <= 1


@pytest.mark.parametrize("sizes", [SIZES, SIZES[SIZES > 0], SIZES[2:3] + 4])
@pytest.mark.parametrize("given_shares", [False, True], ids=["by examples", "by given weights"])
def test_cohort_by_weight_is_the_inverse_of_the_weights_sums(sizes, given_shares):
    """Each draw is the first client whose sum of weights exceeds a uniform number times their total."""
    shares = np.linspace(0.9, 0.1, len(sizes)) if given_shares else None
    options = FedAvgOptions(weighting="uniform", sampling="by_examples", cohort=9)
    draw = CohortSampler(options, sizes, 7, shares=shares).draw
    weights = sizes if shares is None else [share if n else 0.0 for n, share in zip(sizes, shares, strict=True)]
    sums = [math.fsum(weights[: k + 1]) for k in range(len(sizes))]
    for round_index in range(1, 30):
        counts = Counter()
        for u in streams.uniforms(streams.keys(7, "cohort", round_index), 9):
            counts[next(k for k, reached in enumerate(sums) if reached > u * sums[-1])] += 1
        cohort = draw(round_index)
        assert cohort.clients.tolist() == sorted(counts)
        assert cohort.draws.tolist() == [counts[k] for k in sorted(counts)]
        assert (cohort.clients.dtype, cohort.draws.dtype) == (np.int64, np.int64)


@pytest.mark.parametrize("sizes", [SIZES, SIZES[SIZES > 0]])
def test_uniform_cohort_is_a_choice_among_the_clients_with_data(sizes):
    busy = np.flatnonzero(sizes)
    cohort = sampler(seed=4, sizes=sizes, cohort=3).draw(9)
    chosen = streams.choose(streams.keys(4, "cohort", 9), 5, 3)
    assert cohort.clients.tolist() == busy[chosen].tolist()
    assert (cohort.clients.dtype, cohort.draws.dtype) == (np.int64, np.int64)


def test_refusal_of_a_large_cohort_counts_no_empty_client_where_there_is_none():
    with pytest.raises(UserError, match="at most the 5 clients that have data, got 6"):
        sampler(sizes=SIZES[SIZES > 0], cohort=6)
    assert sampler(cohort=5).size == 5
