"""Finds the classes of a column of labels. Class order is that of the numbers, or of the texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clients.core.arrays import I64, Bool
from clients.core.errors import DataError, listed
from clients.tables.rows.encoding import Column

MOST_CLASSES = 20
"""The most classes that a notice lists."""


def labels_of(target: Column, classes: Sequence[str]) -> I64:
    """Return each row's class, (n,), among classes that are given, in their order.

    Args:
        target: the labels, none of them missing.
        classes: their names; numbers as text, such as "10".

    Raises:
        DataError: a label is none of them.
    """
    own, names = classes_of(target, len(target.missing) + 1, least=1)
    unknown = [name for name in names if name not in classes]
    if unknown:
        problem = f"column {target.name!r} has the label {unknown[0]!r}, which is not in classes"
        raise DataError("classes", problem, fix=f"All of them: {listed(list(classes), MOST_CLASSES)}.")
    found: I64 = np.array([classes.index(name) for name in names], np.int64)[own]
    return found


def classes_of(target: Column, most: int, *, least: int = 2) -> tuple[I64, tuple[str, ...]]:
    """Return each row's class, (n,), and the names of the classes.

    Args:
        target: the labels, none of them missing.
        most: the most classes.
        least: the fewest.

    Raises:
        DataError: there is one class, or there are too many.

    Example:
        >>> classes_of(Column("grade", np.array([10.0, 2.0, 10.0])), 5)[1]
        ('2', '10')
    """
    if target.numbers is not None:
        values, labels = np.unique(target.numbers, return_inverse=True)
        names = tuple(str(int(v)) if v == np.rint(v) and abs(v) < 2**53 else repr(float(v)) for v in values)
    else:
        assert target.codes is not None
        used, labels = np.unique(target.codes, return_inverse=True)
        names = tuple(target.values[v] for v in used)
    if len(names) > most:
        problem = f"column {target.name!r} has {len(names):,} different values, such as {names[0]!r} and {names[-1]!r}"
        fix = f"For numbers set task = 'regression'; for so many classes raise max_categories (now {most})."
        raise DataError("target", problem, fix=fix)
    if len(names) < least:
        found = repr(names[0]) if names else "no value"
        raise DataError(
            "target", f"column {target.name!r} has one class alone, {found}", fix="Name the label's column."
        )
    return labels.astype(np.int64), names


def class_notice(column: str, names: tuple[str, ...], labels: I64, training: Bool) -> str:
    """Describe the classes for people: their order and counts, and those that no training row has."""
    counts = np.bincount(labels, minlength=len(names))
    words = [name if name == name.strip() != "" else repr(name) for name in names]
    shown = [f"{i} = {name} ({count:,})" for i, (name, count) in enumerate(zip(words, counts.tolist(), strict=True))]
    text = f"classes of {column!r} with their rows: {listed(shown, MOST_CLASSES)}"
    absent = [words[c] for c in np.flatnonzero(np.bincount(labels[training], minlength=len(names)) == 0)]
    text += f"; in no training row: {listed(absent)}" if absent else ""
    folded: dict[str, str] = {}
    alike = [(folded[w.lower()], w) for w in words if folded.setdefault(w.lower(), w) != w]
    return text + (f"; {alike[0][0]} and {alike[0][1]} differ in capitals alone" if alike else "")
