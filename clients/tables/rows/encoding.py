"""Encodes columns as features: numbers in deviations from the training mean, categories one-hot.

All that is learnt from the data (means, deviations, categories) comes from training rows alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clients.core.arrays import F32, F64, I64, Bool
from clients.core.channels import Channel
from clients.core.errors import DataError, listed
from clients.tables.series import moments

MISSING = "missing"
"""The category of missing text."""
_LARGEST = float(np.finfo(np.float32).max)
SHOWN = 8
"""The most names that a notice lists."""


@dataclass(frozen=True)
class Column:
    """One column of labelled rows.

    Attributes:
        name: its name.
        numbers: (n,), NaN where missing; None for categories.
        codes: position of each row's category in `values`, -1 where missing, (n,); None for numbers.
        values: the categories, sorted.
    """

    name: str
    numbers: F64 | None = None
    codes: I64 | None = None
    values: tuple[str, ...] = ()

    @property
    def missing(self) -> Bool:
        """The rows without a value, (n,)."""
        if self.numbers is not None:
            return np.isnan(self.numbers)
        assert self.codes is not None
        return self.codes < 0

    def taken(self, rows: I64) -> Column:
        """Return some of the rows."""
        numbers = None if self.numbers is None else self.numbers[rows]
        return Column(self.name, numbers, None if self.codes is None else self.codes[rows], self.values)


@dataclass(frozen=True)
class Encoded:
    """Encoded columns.

    Attributes:
        features: (n, F).
        channels: what each of the F features is; a one-hot feature is not measured by a sensor.
        notices: what was filled, constant or unseen.
    """

    features: F32
    channels: tuple[Channel, ...]
    notices: tuple[str, ...]


@dataclass(frozen=True)
class Groups:
    """The rows whose statistics scale others.

    Attributes:
        training: which rows are for training, (n,).
        owner: the client of each row for scaling by client, (n,), -1 for none; None for scaling by all.
        clients: how many there are.
        scaled: whether numbers are scaled at all.
    """

    training: Bool
    owner: I64 | None = None
    clients: int = 0
    scaled: bool = True


def encode(columns: Sequence[Column], groups: Groups, max_categories: int) -> Encoded:
    """Encode columns, in their order.

    Args:
        columns: at least one. Missing numbers become the training mean, missing text the category `MISSING`.
        groups: whose statistics scale the numbers.
        max_categories: the most that a column may have.

    Raises:
        DataError: a column has more categories.

    Example:
        >>> size, colour = Column("size", np.array([1.0, 3.0])), Column("colour", None, np.array([1, 0]), ("a", "b"))
        >>> encoded = encode([size, colour], Groups(np.array([True, True])), 10)
        >>> [c.name for c in encoded.channels], encoded.features.tolist()
        (['size', 'colour=a', 'colour=b'], [[-1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    """
    blocks: list[F32] = []
    channels: list[Channel] = []
    notices = _Notices([], [], [], [], [])
    for column in columns:
        if column.numbers is not None:
            block, channel = _scaled_numbers(column.name, column.numbers, groups, notices)
            channels.append(channel)
        else:
            block, names = _one_hot(column, groups.training, max_categories, notices)
            channels += [Channel(name=name, measured=False) for name in names]
        blocks.append(block)
    return Encoded(np.concatenate(blocks, axis=1), tuple(channels), notices.sentences())


@dataclass(frozen=True)
class _Notices:
    """What is reported of columns."""

    filled: list[str]
    constant: list[str]
    categories: list[str]
    unseen: list[str]
    hints: list[str]

    def sentences(self) -> tuple[str, ...]:
        found = [f"categories, one-hot: {'; '.join(self.categories)}"] if self.categories else []
        found += [f"missing values filled: {'; '.join(self.filled)}"] if self.filled else []
        found += [f"constant in the training rows: {', '.join(self.constant)}"] if self.constant else []
        found += (
            [f"unseen categories, in no training row, are all zeros: {'; '.join(self.unseen)}"] if self.unseen else []
        )
        return tuple(found + self.hints)


def _scaled_numbers(name: str, values: F64, groups: Groups, notices: _Notices) -> tuple[F32, Channel]:
    check_range(name, values, "features")
    known = values[groups.training]
    if _like_ids(known):
        notices.hints.append(f"{name!r} has a different whole number in each row: if it is an id, add it to exclude")
    (mean,), (deviation,) = moments(known[:, None])
    seen = known[~np.isnan(known)]
    if len(seen) == 0 or seen.min() == seen.max():
        notices.constant.append(name)
    empty = np.isnan(values)
    if empty.any():
        notices.filled.append(f"{int(empty.sum()):,} of {name!r} by the training mean {mean:.6g}")
        values = np.where(empty, mean, values)
    if not groups.scaled:
        return values.astype(np.float32)[:, None], Channel(name=name)
    if groups.owner is None:
        scaled = (values - mean) / deviation
        return scaled.astype(np.float32)[:, None], Channel(name=name, mean=float(mean), deviation=float(deviation))
    means, deviations = client_moments(values, groups)
    at = np.where(groups.owner < 0, groups.clients, groups.owner)
    scaled = (values - np.append(means, mean)[at]) / np.append(deviations, deviation)[at]
    return scaled.astype(np.float32)[:, None], Channel(name=name)


def check_range(name: str, values: F64, field: str) -> None:
    """Refuse numbers that float32 cannot hold.

    Raises:
        DataError: naming the column and the largest number.
    """
    largest = float(np.nanmax(np.abs(values), initial=0.0))
    if largest > _LARGEST:
        problem = f"column {name!r} holds {largest:g}, and numbers of {_LARGEST:.2g} or more cannot be used"
        raise DataError(field, problem, fix="Correct it, list it in missing, or take its logarithm.")


def _like_ids(values: F64) -> bool:
    """Return whether values are whole numbers of which no two are equal."""
    few = values[:1000]
    if len(few) < 20 or (few != np.rint(few)).any() or len(np.unique(few)) < len(few):
        return False
    return len(np.unique(values)) == len(values)


def client_moments(values: F64, groups: Groups) -> tuple[F64, F64]:
    """Return mean and deviation of each client's training rows, (K,); deviation 1 for a constant.

    A client without training rows has those of all.
    """
    assert groups.owner is not None
    some = groups.training & (groups.owner >= 0)
    owner, own = groups.owner[some], values[some]
    count = np.bincount(owner, minlength=groups.clients)
    mean = np.bincount(owner, own, groups.clients) / np.maximum(count, 1)
    deviation = np.sqrt(np.bincount(owner, (own - mean[owner]) ** 2, groups.clients) / np.maximum(count, 1))
    deviation = np.where(deviation > 1e-12 * np.maximum(np.abs(mean), 1.0), deviation, 1.0)
    (all_mean,), (all_deviation,) = moments(values[groups.training][:, None])
    return np.where(count > 0, mean, all_mean), np.where(count > 0, deviation, all_deviation)


def _one_hot(column: Column, training: Bool, most: int, notices: _Notices) -> tuple[F32, list[str]]:
    """Return a column of 0 or 1 for each category of the training rows, and their names."""
    assert column.codes is not None
    values, codes = list(column.values), column.codes
    empty = codes < 0
    if empty.any():
        called = MISSING if MISSING not in values else f"({MISSING})"
        notices.filled.append(f"{int(empty.sum()):,} of {column.name!r} by the category {called!r}")
        codes, values = np.where(empty, len(values), codes), [*values, called]
    known = np.flatnonzero(np.bincount(codes[training], minlength=len(values)))
    if len(known) > most:
        problem = (
            f"column {column.name!r} has {len(known):,} categories in the training rows, such as {values[known[0]]!r}"
        )
        fix = f"If it is an id, add {column.name!r} to exclude; else raise max_categories (now {most})."
        raise DataError("max_categories", problem, fix=fix)
    place = np.full(len(values), -1, np.int64)
    place[known] = np.arange(len(known))
    at = place[codes]
    if (at < 0).any():
        new = [values[v] for v in np.unique(codes[at < 0])]
        notices.unseen.append(f"{int((at < 0).sum()):,} of {column.name!r} ({listed(new, 3)})")
    if len(known) == 1:
        notices.constant.append(column.name)
    names = [values[v] for v in known]
    marks = [repr(n) for n in names if n and not any(c.isalnum() for c in n)]
    if marks:
        notices.hints.append(
            f"{column.name!r} has the category {marks[0]}: if it marks a missing value, list it in missing"
        )
    notices.categories.append(f"{column.name} ({listed(names, SHOWN)})")
    hot = np.zeros((len(codes), len(known)), np.float32)
    rows = np.flatnonzero(at >= 0)
    hot[rows, at[rows]] = 1.0
    return hot, [f"{column.name}={name}" for name in names]
