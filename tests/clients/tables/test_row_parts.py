"""The split of labelled rows: its shares, its strata, and what a client keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.core.errors import DataError
from clients.tables.rows.parts import TEST, TRAINING, VALIDATION, named_parts, random_parts, split_notice

SHARES = st.floats(0.0, 0.45)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=12), SHARES, SHARES, st.integers(0, 3), st.integers(0, 9))
def test_each_client_gives_its_share_and_keeps_a_training_row(
    sizes: list[int], validation: float, test: float, classes: int, seed: int
) -> None:
    owner = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int64)
    strata = np.arange(len(owner), dtype=np.int64) % (classes + 1)
    parts = random_parts(owner, len(sizes), strata, validation, test, seed)
    for k, size in enumerate(sizes):
        own = parts[owner == k]
        assert not size or (own == TRAINING).any()
        assert np.floor(test * size) <= (own == TEST).sum() + (size == 1) <= np.ceil(test * size) + 1
        assert (own == VALIDATION).sum() <= np.ceil(validation * size)
    assert (parts == TEST).sum() <= round(test * len(owner)) + 1
    without = random_parts(owner, len(sizes), strata, 0.0, test, seed)
    np.testing.assert_array_equal(parts == TEST, without == TEST)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.floats(0.05, 0.9), st.integers(0, 9))
def test_classes_of_one_client_are_split_in_proportion(counts: list[int], test: float, seed: int) -> None:
    strata = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
    parts = random_parts(np.zeros(len(strata), np.int64), 1, strata, 0.0, test, seed)
    share = (parts == TEST).mean()
    for c, count in enumerate(counts):
        assert abs((parts[strata == c] == TEST).sum() - share * count) < 2


def test_small_clients_together_give_the_share_of_all() -> None:
    owner = np.repeat(np.arange(1000), 3).astype(np.int64)
    parts = random_parts(owner, 1000, np.zeros(3000, np.int64), 0.1, 0.2, seed=3)
    assert np.bincount(parts).tolist() == [2100, 300, 600]


def test_rows_of_a_stratum_are_equally_likely_to_be_tested() -> None:
    owner, strata = np.zeros(10, np.int64), np.repeat([0, 1], 5).astype(np.int64)
    often = np.mean([random_parts(owner, 1, strata, 0.0, 0.3, seed) == TEST for seed in range(2000)], axis=0)
    np.testing.assert_allclose(often, 0.3, atol=5 * np.sqrt(0.3 * 0.7 / 2000))


def test_column_of_words_names_the_parts() -> None:
    parts = named_parts(np.array([2, 0, 1, 0]), ("Train", "dev", "test "), "part", "x.csv")
    assert parts.tolist() == [TEST, TRAINING, VALIDATION, TRAINING]


@pytest.mark.parametrize(
    ("codes", "values", "words"),
    [
        ([0, 1], ("train", "holdout"), "x.csv: 'holdout' in column 'part' is not a part of the data"),
        ([0, -1], ("train",), "x.csv: nothing in a row of column 'part'"),
    ],
)
def test_column_of_other_words_is_refused(codes: list[int], values: tuple[str, ...], words: str) -> None:
    with pytest.raises(DataError) as caught:
        named_parts(np.array(codes), values, "part", "x.csv")
    assert caught.value.field == "split_column"
    assert words in caught.value.problem


def test_notice_names_clients_without_training_rows() -> None:
    parts = np.array([TRAINING, TEST, TEST, VALIDATION])
    assert split_notice(parts, "by column 'part'", ["b"]) == (
        "split by column 'part': 1 training, 1 validation, 2 test rows; "
        "clients without a training row, which never train: b"
    )
