"""Addressed random streams: right in law, and independent of everything that is not in the address."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.core import streams

seeds = st.integers(0, 2**63 - 1)


@settings(max_examples=80)
@given(seed=seeds, sizes=st.lists(st.integers(0, 70), min_size=1, max_size=12))
def test_permutations_are_permutations(seed: int, sizes: list[int]) -> None:
    order = streams.permutations(streams.keys(seed, "test", np.arange(len(sizes))), sizes)
    assert order.shape == (len(sizes), max(sizes))
    for row, size in zip(order, sizes, strict=True):
        assert sorted(row[:size]) == list(range(size))
        assert row[size:].tolist() == list(range(size, max(sizes)))


@settings(max_examples=50)
@given(seed=seeds, size=st.integers(1, 60), others=st.lists(st.integers(1, 90), max_size=6))
def test_added_clients_change_no_other_permutation(seed: int, size: int, others: list[int]) -> None:
    alone = streams.permutations(streams.keys(seed, "test", np.arange(1)), [size])
    among = streams.permutations(streams.keys(seed, "test", np.arange(1 + len(others))), [size, *others])
    np.testing.assert_array_equal(alone[0], among[0, :size])


def test_permutations_are_equally_likely() -> None:
    order = streams.permutations(streams.keys(5, "test", np.arange(60_000)), np.full(60_000, 3))
    counts = np.unique(order @ [9, 3, 1], return_counts=True)[1]
    assert len(counts) == 6
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 20.5  # chi-square, 5 degrees of freedom: p = 0.001


def test_uniforms_are_uniform() -> None:
    u = streams.uniforms(streams.keys(1, "test", np.arange(1000)), 200)
    n = u.size
    assert u.min() > 0
    assert u.max() < 1
    assert u.mean() == pytest.approx(1 / 2, abs=4 / np.sqrt(12 * n))
    assert u.var() == pytest.approx(1 / 12, abs=4 / np.sqrt(180 * n))
    # Neighbours in every direction are uncorrelated: along a stream and across clients.
    for a, b in ((u[:, 1:], u[:, :-1]), (u[1:], u[:-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / np.sqrt(n)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_normals_are_normal(count: int) -> None:
    z = streams.normals(streams.keys(2, "test", np.arange(60_000)), count)
    assert z.shape == (60_000, count)
    n = z.size
    assert z.mean() == pytest.approx(0, abs=4 / np.sqrt(n))
    assert z.var() == pytest.approx(1, abs=4 * np.sqrt(2 / n))
    assert (z**4).mean() == pytest.approx(3, abs=4 * np.sqrt(96 / n))


def test_quick_numbers_follow_their_laws_and_do_not_depend_on_first() -> None:
    key = streams.keys(4, "test", np.arange(500))
    u, z = streams.quick_uniforms(key, 400), streams.quick_normals(key, 400)
    n = u.size
    assert u.dtype == z.dtype == np.float32
    assert 0.0 < u.min() < u.max() < 1.0
    assert u.mean(dtype=np.float64) == pytest.approx(1 / 2, abs=4 / np.sqrt(12 * n))
    assert u.var(dtype=np.float64) == pytest.approx(1 / 12, abs=4 / np.sqrt(180 * n))
    assert z.mean(dtype=np.float64) == pytest.approx(0, abs=4 / np.sqrt(n))
    assert z.var(dtype=np.float64) == pytest.approx(1, abs=4 * np.sqrt(2 / n))
    assert (z.astype(np.float64) ** 4).mean() == pytest.approx(3, abs=4 * np.sqrt(96 / n))
    assert (z > 3.0).mean() == pytest.approx(0.00135, abs=4 * np.sqrt(0.00135 / n))
    for made, quick in ((u, streams.quick_uniforms), (z, streams.quick_normals)):
        for a, b in ((made[:, 1:], made[:, :-1]), (made[1:], made[:-1]), (made[:, 4:], made[:, :-4])):
            assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / np.sqrt(n)
        assert np.array_equal(quick(key[[7, 3]], 31, 18), made[[7, 3], 18:49])
        assert np.array_equal(quick(key[:4].reshape(2, 2), 5), made[:4, :5].reshape(2, 2, 5))
        assert quick(key, 0).shape == (500, 0)
        assert np.array_equal(quick(key[3], 9, 1), made[3, 1:10])
    assert np.array_equal(streams.quick_normal_rows(key, 6), z[:, :6].T)
    w = streams.quick_white_rows(key, 399)
    assert np.array_equal(w[:3, 7:9], streams.quick_white_rows(key[7:9], 3))
    assert w.mean(dtype=np.float64) == pytest.approx(0, abs=4 / np.sqrt(n))
    assert w.var(dtype=np.float64) == pytest.approx(1, abs=4 * np.sqrt(0.8 / n))
    assert abs(w).max() < np.sqrt(3.0)
    assert abs(np.corrcoef(w[:, 1:].ravel(), w[:, :-1].ravel())[0, 1]) < 4 / np.sqrt(n)
    assert abs(np.corrcoef(w[1:].ravel(), w[:-1].ravel())[0, 1]) < 4 / np.sqrt(n)


def test_numbers_keep_their_bits() -> None:
    """Runs are resumed with them, and published: they may never change."""
    key = streams.keys(7, "bits", 3)
    assert int(key) == 0x9DB91DF6FD49AF2C
    assert streams.hashes(key, 2, 5).tolist() == [10732593742504627097, 8512474278279920173]
    np.testing.assert_array_equal(streams.uniforms(key, 2), [0.7252511631394836, 0.5263223344455046])
    np.testing.assert_allclose(
        streams.normals(key, 3), [0.8003475752720384, -0.9427723106328422, 0.043797981293630835], rtol=1e-12
    )


@given(seed=seeds, client=st.integers(0, 2**31), round_=st.integers(0, 2**31))
@settings(max_examples=50)
def test_scalars_and_arrays_give_the_same_keys(seed: int, client: int, round_: int) -> None:
    one = streams.keys(seed, "test", round_, client)
    many = streams.keys(seed, "test", round_, np.array([client, client + 1]))
    assert one == many[0]
    assert many[0] != many[1]


def test_addresses_differ_in_every_part() -> None:
    addresses = {
        int(streams.keys(*a))
        for a in [
            (1, "a"),
            (2, "a"),
            (1, "b"),
            (1, "a", 0),
            (1, "a", 1),
            (1, "a", 0, 0),
            (1, "a", 0, 1),
            (1, "a", 1, 0),
        ]
    }
    assert len(addresses) == 8


def test_keys_do_not_collide() -> None:
    """10^6 keys among 2^64: a collision has probability 3e-8."""
    keys = streams.keys(3, "test", np.arange(1000)[:, None], np.arange(1000))
    assert len(np.unique(keys)) == 1_000_000


def test_purposes_are_independent() -> None:
    a, b = (streams.uniforms(streams.keys(1, purpose), 50_000) for purpose in ("batches", "dropout"))
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(50_000)


@settings(max_examples=50)
@given(seed=seeds, population=st.integers(1, 200), data=st.data())
def test_choose_returns_distinct_elements_in_order(seed: int, population: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(0, population))
    chosen = streams.choose(streams.keys(seed, "test"), population, size)
    assert len(chosen) == size
    assert (np.diff(chosen) > 0).all()
    assert size == 0 or (chosen[0] >= 0 and chosen[-1] < population)


def test_choose_takes_every_element_equally_often() -> None:
    counts = np.zeros(20)
    for r in range(4000):
        counts[streams.choose(streams.keys(9, "test", r), 20, 5)] += 1
    # Inclusion is 1/4 each; counts of draws without replacement, 19 degrees of freedom: p = 0.001 at 43.8.
    assert ((counts - 1000) ** 2 / 750 * 19 / 20).sum() < 43.8


def test_generators_repeat_and_differ() -> None:
    assert streams.generator(1, "a", 2).random() == streams.generator(1, "a", 2).random()
    assert streams.generator(1, "a", 2).random() != streams.generator(1, "a", 3).random()


def test_kept_counters_cannot_be_written_to() -> None:
    key = streams.keys(1, "test")
    before = streams.hashes(key, 5)
    before[:] = 0
    assert streams.hashes(key, 5).all()
