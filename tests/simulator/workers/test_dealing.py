import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.workers.dealing import Block, CostModel, deal, make_blocks


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=30),
    most=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_blocks_have_every_tile_once_and_in_order(sizes, most, seed):
    steps = np.random.default_rng(seed).integers(0, 50, sum(sizes))
    tiles = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    blocks = make_blocks(tiles, steps, most)
    assert len(blocks) <= most
    np.testing.assert_array_equal(np.concatenate([b.places for b in blocks]), np.arange(sum(sizes)))
    assert sum(b.steps for b in blocks) == steps.sum()


def end_of(dealt, costs):
    return max(sum(costs[job] for job in jobs) for jobs in dealt)


@given(costs=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=7), workers=st.integers(1, 3))
def test_longest_first_is_within_four_thirds_of_the_best(costs, workers):
    """Graham 1969: longest processing time first ends by at most 4/3 - 1/(3 m) times the best end."""
    dealt = deal(np.array(costs), [1.0] * workers)
    assert sorted(job for jobs in dealt for job in jobs) == list(range(len(costs)))
    best = min(
        max(sum(cost for cost, of in zip(costs, who, strict=True) if of == w) for w in range(workers))
        for who in itertools.product(range(workers), repeat=len(costs))
    )
    assert end_of(dealt, costs) <= (4 / 3 - 1 / (3 * workers)) * best * (1 + 1e-12)


def test_longest_first_reaches_grahams_bound():
    """Graham's example for two workers: 3, 3, 2, 2, 2 ends at 7 where 6 is possible."""
    costs = [3.0, 3.0, 2.0, 2.0, 2.0]
    assert end_of(deal(np.array(costs), [1.0, 1.0]), costs) == 7.0


def test_fast_worker_gets_more():
    dealt = deal(np.ones(12), [1.0, 3.0])
    assert [len(jobs) for jobs in dealt] == [3, 9]


def blocks_of(facts):
    return [Block([np.arange(1)], longest, steps) for longest, steps in facts]


@pytest.mark.parametrize("true", [(0.0, 2e-5), (3e-4, 1e-5), (2e-4, 0.0)])
def test_costs_are_learnt_from_exact_times(true):
    model, random = CostModel(), np.random.default_rng(1)
    for _ in range(5):
        found = blocks_of([(int(a), int(a * b)) for a, b in random.integers(1, 40, (6, 2))])
        model.learn([(0, b, true[0] * b.longest + true[1] * b.steps) for b in found])
    np.testing.assert_allclose(model.coefficients, true, rtol=1e-6, atol=1e-12)


def test_speeds_of_unequal_workers_are_learnt():
    model = CostModel()
    for _ in range(60):
        found = blocks_of([(10, 100), (10, 200), (10, 300), (10, 400)])
        model.learn([(i % 2, b, 1e-4 * b.steps * (1 + i % 2)) for i, b in enumerate(found)])
    fast, slow = model.speeds([0, 1])
    assert fast / slow == pytest.approx(2.0, rel=0.1)


def test_costs_stay_finite_without_measurements_or_with_times_of_zero():
    model = CostModel()
    model.learn([])
    model.learn([(0, b, 0.0) for b in blocks_of([(1, 1), (2, 2)])])
    assert np.isfinite(model.seconds(blocks_of([(3, 3)]))).all()
    assert np.isfinite(model.speeds([0])).all()
