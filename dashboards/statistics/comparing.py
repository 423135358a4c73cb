"""Two arms of a study compared by one quantity: pairs by seed, then the statistics that their numbers allow.

    found = compare_arms(table[table.arm == "fedavg"], table[table.arm == "scaffold"], quantity)
    found.sentence  # "scaffold needs 31% fewer rounds to the target than fedavg [24, 37], 10 of 10 pairs"
    corrected([found, other])  # the same with p corrected for their number

Where a run missed its target, the pairs are compared as censored numbers. Else quantities that are `relative` and
positive are compared by the geometric mean of their ratios, others by the mean of their differences.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from clients.core.arrays import F64
from clients.core.errors import UserError
from dashboards.statistics.censored import censored
from dashboards.statistics.findings import Findings
from dashboards.statistics.paired import checked_share, paired
from dashboards.statistics.planning import holm, pairs_for
from dashboards.statistics.quantity import Quantity
from dashboards.statistics.wording import verdict

STATED = 0.1
"""A stated difference of ratios, where none is given: one tenth."""
STATED_SHARE = 0.01
"""The same of scores that are shares."""


class Table(Protocol):
    """A pandas DataFrame, as far as it is needed."""

    def to_dict(self, orient: Literal["records"]) -> list[dict[Any, Any]]:
        """Return its rows."""


Rows = Table | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Comparison(Findings):
    """Findings that have a sentence."""

    @property
    def sentence(self) -> str:
        """The comparison in a sentence, without a full stop."""
        return verdict(self)

    @property
    def numbers(self) -> dict[str, Any]:
        """The main numbers, by name; None where there is none."""
        means = self.paired or self.censored
        low, high = self.interval or (None, None)
        found = {
            "measure": self.quantity.key, "first": self.first, "second": self.second, "pairs": self.pairs,
            "first_mean": means.first_mean if means else None, "second_mean": means.second_mean if means else None,
            "scale": self.scale, "estimate": self.estimate, "low": low, "high": high, "wins": self.wins,
            "test": self.test, "p": self.p, "p_corrected": self.p_corrected, "comparisons": self.family,
            "first_missed": self.censored.first.misses if self.censored else 0,
            "second_missed": self.censored.second.misses if self.censored else 0,
            "seeds_needed": self.needed,
        }  # fmt: skip
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in found.items()}


def compare_arms(
    first: Rows,
    second: Rows,
    quantity: Quantity,
    *,
    names: tuple[str, str] | None = None,
    difference: float | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two arms by one quantity.

    Args:
        first: rows of one arm of a study's table: `seed`, the quantity's key and `<key>_at_least`, and `arm` where
            `names` is left out. Of rows with the same seed, the first counts.
        second: rows of the arm that is compared with it.
        quantity: what is compared; a `Measure` is one.
        names: of the arms.
        difference: the difference for which the needed seeds are computed. A share of the first arm where ratios are
            compared (0.1 is 10%), else in the quantity's unit. By default a tenth, and 0.01 of shares.
        confidence: of the interval.
        seed: of the bootstrap and the drawn changes of sign.

    Raises:
        UserError: an arm without rows or with several names, or a number out of its range.
    """
    checked_share("confidence", confidence)
    if difference is not None and not (math.isfinite(difference) and difference > 0):
        raise UserError("difference", f"must be positive, got {difference}", fix="0.1 is a tenth of the first arm.")
    rows = _records(first), _records(second)
    named = names or (_name("first", rows[0]), _name("second", rows[1]))
    one, two = (_by_seed(part, quantity.key) for part in rows)
    common = [seed for seed in one if seed in two]
    known = [seed for seed in common if one[seed] is not None and two[seed] is not None]
    values = [np.array([arm[s] for s in known], np.float64).reshape(-1, 2) for arm in (one, two)]
    parts: dict[str, Any] = {
        "quantity": quantity, "first": named[0], "second": named[1], "seeds": tuple(known), "common": len(common),
        "first_absent": sum(one[s] is None for s in common), "second_absent": sum(two[s] is None for s in common),
        "confidence": confidence, "family": 1,
    }  # fmt: skip
    return Comparison(**parts, **_statistics(values[0], values[1], quantity, difference, confidence, seed))


def corrected(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """Return comparisons that are made together, with their p corrected for their number by Holm."""
    found = list(comparisons)
    family = sum(not math.isnan(one.p) for one in found)
    together = holm([one.p for one in found])
    return [replace(one, p_corrected=p, family=family) for one, p in zip(found, together, strict=True)]


def _statistics(
    a: F64, b: F64, quantity: Quantity, difference: float | None, confidence: float, seed: int
) -> dict[str, Any]:
    """Return the fields of a comparison that its numbers decide; a and b [n, 2] are numbers, and 1 for each hit."""
    nothing: dict[str, Any] = {
        "paired": None, "censored": None, "scale": "difference", "estimate": math.nan, "interval": None,
        "test": "none", "p": math.nan, "p_corrected": math.nan, "stated": difference or STATED, "needed": None,
    }  # fmt: skip
    if not len(a):
        return nothing
    hits = a[:, 1] > 0, b[:, 1] > 0
    if not (hits[0].all() and hits[1].all()):
        found = censored(a[:, 0], hits[0], b[:, 0], hits[1], confidence=confidence, seed=seed)
        stated = difference or STATED * found.first_mean
        p = found.log_rank_p
        return nothing | {
            "censored": found, "estimate": found.mean, "interval": found.student, "test": "paired log-rank",
            "p": p, "p_corrected": p, "stated": stated, "needed": _needed(found.std, stated, confidence),
        }  # fmt: skip
    pairs = paired(a[:, 0], b[:, 0], confidence=confidence, seed=seed)
    if quantity.relative and math.isfinite(pairs.geometric):
        stated = difference or STATED
        scale, estimate, interval, std = "ratio", pairs.geometric, pairs.geometric_student, pairs.log_std
        p, test = pairs.geometric_p, "t test of log ratios"
        step = math.log1p(-stated) if stated < 1 else math.log1p(stated)
    else:
        stated = step = difference or (STATED * abs(pairs.first_mean) if quantity.relative else STATED_SHARE)
        scale, estimate, interval, std = "difference", pairs.mean, pairs.student, pairs.std
        p, test = pairs.t_p, "t test"
    if math.isnan(p):
        p, test = pairs.sign_p, "sign test"
    return nothing | {
        "paired": pairs, "scale": scale, "estimate": estimate, "interval": interval, "test": test, "p": p,
        "p_corrected": p, "stated": stated, "needed": _needed(std, step, confidence),
    }  # fmt: skip


def _needed(std: float, stated: float, confidence: float) -> int | None:
    return pairs_for(std, stated, alpha=1 - confidence) if std and math.isfinite(std) and stated else None


def _records(rows: Rows) -> Sequence[Mapping[Any, Any]]:
    return rows if isinstance(rows, Sequence) else rows.to_dict("records")


def _name(which: str, rows: Sequence[Mapping[Any, Any]]) -> str:
    """Return the name of the arm that all rows are of."""
    names = sorted({str(row["arm"]) for row in rows if "arm" in row})
    if len(names) != 1:
        raise UserError(which, f"must be the rows of one arm, got {', '.join(names) or 'none'}", fix="Choose one arm.")
    return names[0]


def _by_seed(rows: Sequence[Mapping[Any, Any]], key: str) -> dict[int, tuple[float, bool] | None]:
    """Return for each seed the number and that it is one, or the bound and that it is none; None without either."""
    found: dict[int, tuple[float, bool] | None] = {}
    for row in rows:
        value, bound = _finite(row.get(key)), _finite(row.get(f"{key}_at_least"))
        known = (value, True) if value is not None else None if bound is None else (bound, False)
        found.setdefault(int(row["seed"]), known)
    return found


def _finite(value: object) -> float | None:
    """Return a number; None where it is missing or not finite."""
    if value is None or isinstance(value, str | bool):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # pandas' missing values raise
    except TypeError:
        return None
    return number if math.isfinite(number) else None
