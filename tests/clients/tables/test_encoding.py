"""Encoding of columns: training statistics, one-hot categories, and what is reported of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.core.errors import DataError
from clients.tables.rows.classes import class_notice, classes_of
from clients.tables.rows.encoding import Column, Groups, client_moments, encode

ALL = np.array([True, True, True, False])


def numbers(*values: float) -> Column:
    return Column("x", np.array(values))


def categories(codes: list[int], *values: str) -> Column:
    return Column("colour", None, np.array(codes, np.int64), values)


def test_numbers_are_in_deviations_of_the_training_rows() -> None:
    encoded = encode([numbers(1, 3, 5, 100)], Groups(ALL), 10)
    deviation = np.sqrt(8 / 3)
    np.testing.assert_allclose(encoded.features[:, 0], (np.array([1, 3, 5, 100]) - 3) / deviation, rtol=1e-6)
    assert encoded.channels[0].mean == 3
    assert encoded.channels[0].deviation == pytest.approx(deviation)
    assert encoded.notices == ()


def test_categories_come_from_training_rows_and_unseen_ones_are_zeros() -> None:
    encoded = encode([categories([2, 0, 2, 1], "blue", "green", "red")], Groups(ALL), 10)
    assert [c.name for c in encoded.channels] == ["colour=blue", "colour=red"]
    assert [c.measured for c in encoded.channels] == [False, False]
    assert encoded.features.tolist() == [[0, 1], [1, 0], [0, 1], [0, 0]]
    assert "unseen categories, in no training row, are all zeros: 1 of 'colour' (green)" in encoded.notices


def test_missing_values_are_filled_and_reported() -> None:
    nan = float("nan")
    columns = [numbers(1, 3, nan, nan), categories([0, -1, 0, -1], "blue")]
    encoded = encode(columns, Groups(ALL), 10)
    assert encoded.features.tolist() == [[-1, 1, 0], [1, 0, 1], [0, 1, 0], [0, 0, 1]]
    assert "2 of 'x' by the training mean 2; 2 of 'colour' by the category 'missing'" in encoded.notices[1]


def test_constant_columns_are_named() -> None:
    encoded = encode([numbers(2, 2, 2, 9), categories([0, 0, 0, 0], "blue")], Groups(ALL), 10)
    assert encoded.features.tolist() == [[0, 1]] * 3 + [[7, 1]]
    assert "constant in the training rows: x, colour" in encoded.notices


def test_too_many_categories_are_refused_with_the_key_to_set() -> None:
    with pytest.raises(DataError) as caught:
        encode([categories([0, 1, 2, 0], "a", "b", "c")], Groups(ALL), 2)
    assert str(caught.value) == (
        "max_categories: column 'colour' has 3 categories in the training rows, such as 'a'. "
        "If it is an id, add 'colour' to exclude; else raise max_categories (now 2)."
    )


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.integers(-1, 3), st.booleans(), st.integers(-50, 50)), min_size=1, max_size=30))
def test_scaling_by_client_agrees_with_a_loop(rows: list[tuple[int, bool, int]]) -> None:
    owner, training, values = (np.array(part) for part in zip(*rows, strict=True))
    training[0] = True
    groups = Groups(training, owner.astype(np.int64), 4)
    mean, deviation = client_moments(values.astype(np.float64), groups)
    for k in range(4):
        own = values[training & (owner == k)]
        own = own if len(own) else values[training]
        assert mean[k] == pytest.approx(own.mean())
        assert deviation[k] == pytest.approx(own.std() or 1.0)


def test_classes_are_in_order_of_numbers_or_texts() -> None:
    labels, names = classes_of(Column("y", np.array([10.0, 2.0, 2.5])), 5)
    assert (labels.tolist(), names) == ([2, 0, 1], ("2", "2.5", "10"))
    labels, names = classes_of(Column("y", None, np.array([2, 0, 2]), ("no", "perhaps", "yes")), 5)
    assert (labels.tolist(), names) == ([1, 0, 1], ("no", "yes"))


@pytest.mark.parametrize(
    ("values", "most", "words"),
    [
        ([1.0, 1.0], 5, "has one class alone, '1'"),
        ([0.5, 1.5, 2.5], 2, "3 different values, such as '0.5' and '2.5'. For numbers set task = 'regression'"),
    ],
)
def test_column_without_classes_is_refused(values: list[float], most: int, words: str) -> None:
    with pytest.raises(DataError) as caught:
        classes_of(Column("y", np.array(values)), most)
    assert words in str(caught.value)


def test_notice_of_classes_has_counts_and_classes_without_training_rows() -> None:
    text = class_notice("y", ("no", " "), np.array([0, 0, 1]), np.array([True, True, False]))
    assert text == "classes of 'y' with their rows: 0 = no (2), 1 = ' ' (1); in no training row: ' '"


def test_classes_that_differ_in_capitals_are_pointed_out() -> None:
    text = class_notice("y", ("Yes", "no", "yes"), np.array([0, 1, 2]), np.ones(3, np.bool_))
    assert text.endswith("; Yes and yes differ in capitals alone")


def test_numbers_beyond_float32_are_refused() -> None:
    with pytest.raises(DataError, match=r"features: column 'x' holds 1e\+300"):
        encode([numbers(1, 1e300, 2, 3)], Groups(ALL), 10)


def test_signs_without_letters_are_pointed_out_as_possible_marks() -> None:
    encoded = encode([categories([0, 1, 1, 1], "-", "a")], Groups(ALL), 10)
    assert encoded.notices[-1] == "'colour' has the category '-': if it marks a missing value, list it in missing"
