"""Which examples each local step uses, and how many steps a client takes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.core.errors import UserError
from clients.training.local import batches_per_epoch, check_batches_of_one, count_steps, plan_batches
from clients.training.options import LocalOptions

SEED = 5


def plan(local, sizes, clients=None, round_index=2, seed=SEED):
    """Plan batches for clients whose examples are numbered 1000 k + 0, 1, ..., shuffled among clients."""
    sizes = np.asarray(sizes, np.int64)
    clients = np.arange(len(sizes)) if clients is None else np.asarray(clients)
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    rows = np.concatenate([1000 * k + np.arange(n)[::-1] for k, n in zip(clients, sizes, strict=True)] or [[]])
    steps = count_steps(local, sizes, clients, seed=seed, round_index=round_index)
    return plan_batches(local, rows.astype(np.int64), offsets, steps, clients, seed=seed, round_index=round_index)


def lists(batches, k):
    """Return client k's batches as lists, without padding."""
    return [batches.rows[k, s, : batches.counts[k, s]].tolist() for s in range(int(batches.steps[k]))]


sizes_of_some = st.lists(st.integers(0, 40), min_size=1, max_size=6)


@given(sizes=sizes_of_some, batch=st.integers(1, 12), epochs=st.integers(1, 3), drop=st.booleans())
def test_epoch_is_a_permutation(sizes, batch, epochs, drop):
    local = LocalOptions(batch_size=batch, local_epochs=epochs, drop_last=drop)
    batches = plan(local, sizes)
    for k, n in enumerate(sizes):
        mine = set(range(1000 * k, 1000 * k + n))
        per_epoch = n // batch if drop and n >= batch else -(-n // batch)
        assert batches.steps[k] == epochs * per_epoch
        got = lists(batches, k)
        for e in range(epochs):
            epoch = [row for one in got[e * per_epoch : (e + 1) * per_epoch] for row in one]
            assert len(set(epoch)) == len(epoch), "no example twice in an epoch"
            assert set(epoch) <= mine
            assert len(epoch) == (n if not drop or n < batch else n - n % batch)
        assert all(len(one) == batch for one in got[: per_epoch - 1])
        # Padding must be valid rows too: it is computed with weight 0.
        if n:
            assert set(batches.rows[k].ravel().tolist()) <= mine
        assert not batches.counts[k, int(batches.steps[k]) :].any()


@given(sizes=sizes_of_some, batch=st.integers(1, 12), steps=st.integers(1, 30), drop=st.booleans())
def test_steps_wrap_over_epochs(sizes, batch, steps, drop):
    by_steps = plan(LocalOptions(batch_size=batch, local_steps=steps, drop_last=drop), sizes)
    by_epochs = plan(LocalOptions(batch_size=batch, local_epochs=30, drop_last=drop), sizes)
    for k, n in enumerate(sizes):
        assert by_steps.steps[k] == (steps if n else 0)
        assert lists(by_steps, k) == lists(by_epochs, k)[: int(by_steps.steps[k])]


@given(
    sizes=st.lists(st.integers(0, 40), min_size=2, max_size=6),
    batch=st.one_of(st.just("full"), st.integers(1, 12)),
    data=st.data(),
)
def test_batches_depend_only_on_their_client(sizes, batch, data):
    local = LocalOptions(batch_size=batch, local_epochs=2)
    together = plan(local, sizes)
    some = data.draw(st.lists(st.sampled_from(range(len(sizes))), min_size=1, unique=True))
    apart = plan(local, [sizes[k] for k in some], clients=some)
    for place, k in enumerate(some):
        assert lists(apart, place) == lists(together, k)


def test_rounds_epochs_clients_and_seeds_draw_anew():
    local = LocalOptions(batch_size=3, local_epochs=2)
    first = lists(plan(local, [30, 30]), 0)
    assert first[:10] != first[10:]
    assert first != lists(plan(local, [30, 30], round_index=3), 0)
    assert first != lists(plan(local, [30, 30], seed=6), 0)
    other = lists(plan(local, [30, 30]), 1)
    assert first != [[row - 1000 for row in one] for one in other]


def test_every_example_is_equally_likely_in_every_place():
    """Chi-square of where example 0 of 8 falls, over 4,000 clients: 7 degrees of freedom, 24.3 at 1 in 1,000."""
    batches = plan(LocalOptions(batch_size=1, local_epochs=1), [8] * 4000)
    place = (batches.rows[:, :, 0] % 1000 == 0).argmax(1)
    counts = np.bincount(place, minlength=8)
    assert ((counts - 500) ** 2 / 500).sum() < 24.3


def test_large_and_small_clients_get_their_own_batches():
    sizes = [3000, 1, 7, 70, 700, 0, 2]
    batches = plan(LocalOptions(batch_size=4, local_steps=900), sizes)
    for k, n in enumerate(sizes):
        got = lists(batches, k)
        assert len(got) == (900 if n else 0)
        per_epoch = -(-n // 4)
        if n and per_epoch < 900:
            assert sorted(r for one in got[:per_epoch] for r in one) == list(range(1000 * k, 1000 * k + n))


def test_gd_takes_full_batches_and_steps_per_client():
    batches = plan(LocalOptions(optimizer="gd", local_steps=(1, 3, 2)), [4, 2, 0])
    assert batches.steps.tolist() == [1, 3, 0]
    assert [sorted(one) for one in lists(batches, 1)] == [[1000, 1001]] * 3
    assert LocalOptions(optimizer="gd", batch_size=5).batch_size == "full"


def test_partial_work_is_shorter_for_about_its_share_of_clients():
    local = LocalOptions(batch_size=10, local_epochs=5, partial_work=0.3)
    clients = np.arange(20_000)
    steps = count_steps(local, np.full(20_000, 20), clients, seed=1, round_index=4)
    epochs, counts = np.unique(steps // 2, return_counts=True)
    assert (steps % 2 == 0).all()
    assert epochs.tolist() == [1, 2, 3, 4, 5]
    assert abs(counts[-1] / 20_000 - 0.7) < 0.013  # four standard deviations
    assert np.abs(counts[:-1] / 20_000 - 0.075).max() < 0.0075
    again = count_steps(local, np.full(20_000, 20), clients, seed=1, round_index=5)
    assert (again != steps).mean() > 0.3


def test_partial_work_never_takes_the_only_epoch():
    local = LocalOptions(local_epochs=1, partial_work=1.0)
    assert count_steps(local, np.array([5, 0]), np.arange(2), seed=1, round_index=1).tolist() == [1, 0]


def test_batches_of_one_are_found():
    one = [LocalOptions(batch_size=4), LocalOptions(batch_size=1), LocalOptions(batch_size="full")]
    for local, sizes in zip(one, ([8, 9], [8], [8, 1]), strict=True):
        with pytest.raises(UserError, match="batch_size: the model needs batches of at least 2"):
            check_batches_of_one(local, np.array(sizes), "fails")
    check_batches_of_one(LocalOptions(batch_size=4, drop_last=True), np.array([8, 9, 0]), "fails")
    check_batches_of_one(LocalOptions(batch_size="full"), np.array([2, 0]), "fails")
    check_batches_of_one(LocalOptions(batch_size=1), np.array([2, 1]), "")
    with pytest.raises(UserError, match="1 clients"):
        check_batches_of_one(LocalOptions(batch_size=4, drop_last=True), np.array([8, 1]), "fails")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"local_lr": 0.0}, "local_lr: must be > 0, got 0.0"),
        ({"local_lr": float("nan")}, "local_lr"),
        ({"batch_size": 0}, "batch_size: must be >= 1 or 'full', got 0"),
        ({"local_epochs": 0}, "local_epochs: must be >= 1"),
        ({"local_steps": (2, 0)}, "local_steps: must be >= 1"),
        ({"local_steps": 2, "local_epochs": 2}, "local_steps: cannot be combined with local_epochs"),
        ({"momentum": 1.0}, r"momentum: must be in \[0, 1\)"),
        ({"l2": -0.1}, "l2: must be >= 0"),
        ({"clip_norm": 0.0}, "clip_norm: must be > 0"),
        ({"partial_work": 1.5}, "partial_work"),
    ],
)
def test_invalid_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        LocalOptions(**options)


@pytest.mark.parametrize("steps", [None, 3, 4, 5])
def test_batches_of_equal_clients_are_those_they_have_beside_unequal_ones(steps):
    local = LocalOptions(batch_size=10, local_steps=steps, local_epochs=None if steps else 1)
    alone, beside = plan(local, [40] * 5), plan(local, [40] * 5 + [7])
    for k in range(5):
        assert lists(alone, k) == lists(beside, k)
    assert alone.counts.tolist() == beside.counts[:5].tolist()
    assert alone.rows.flags.c_contiguous


def test_dropped_rest_leaves_whole_batches_of_each_client():
    sizes = np.array([0, 3, 10, 25])
    assert batches_per_epoch(LocalOptions(batch_size=10, drop_last=True), sizes).tolist() == [0, 1, 1, 2]
    assert batches_per_epoch(LocalOptions(batch_size=10), sizes).tolist() == [0, 1, 1, 3]
