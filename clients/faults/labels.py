"""The functions of label faults; the options describe what each does."""

from __future__ import annotations

import numpy as np

from clients.core.arrays import F64, I64, U64
from clients.core.streams import hashes
from clients.faults.label_options import LabelClassDependentOptions, SharedLabelFaultOptions


def same_rate(o: SharedLabelFaultOptions, labels: I64) -> F64:
    """Return the probability with which each label is wrong."""
    return np.full(len(labels), o.severity * o.share)


def class_rate(o: LabelClassDependentOptions, labels: I64) -> F64:
    """Return the probability with which each label is wrong, by its class."""
    return o.severity * np.array(o.rates)[labels]


def any_other(o: object, labels: I64, classes: int, key: U64) -> I64:
    """Return one of the other classes for each label, all equally likely."""
    away = hashes(key, 1)[:, 0] % np.uint64(classes - 1)
    return (labels + 1 + away.astype(np.int64)) % classes


def next_class(o: object, labels: I64, classes: int, key: U64) -> I64:
    """Return the next class."""
    return (labels + 1) % classes


def given_class(o: LabelClassDependentOptions, labels: I64, classes: int, key: U64) -> I64:
    """Return the class that the options name, or any other class."""
    return np.array(o.to, np.int64)[labels] if o.to else any_other(o, labels, classes, key)
