"""Two arms with one number for each seed: differences and ratios pair by pair, their intervals and tests.

All differences are second minus first, all ratios second over first. Student's interval is the one that is shown:
`tests/theory/test_interval_coverage.py` has what both cover. With 5 pairs the bootstrap's covers 79 to 85% instead of
95%, with 10 pairs 85 to 90%. Student's is exact for normal differences, and the one of ratios for lognormal numbers.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np

from clients.core.arrays import F64
from clients.core.errors import UserError

RESAMPLES = 4_999
EXACT = 50
"""Up to so many differences the p of the signed-rank test is exact."""
SAME = 1e-12
"""Differences that vary by less than this share of the values vary by rounding alone."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class PairedComparison:
    """What pairs of numbers say of two arms. A number that the pairs do not give is NaN, an interval None.

    Attributes:
        n: pairs.
        first_mean: mean of the first arm.
        second_mean: mean of the second arm.
        mean: mean difference.
        median: median difference.
        std: standard deviation of the differences (n - 1); NaN for one pair.
        student: Student's interval for the mean difference; None for one pair, and where all differences are equal:
            they have no spread to judge the mean by.
        bootstrap: the BCa bootstrap's interval for it; None below 3 pairs too.
        ratio: of the means; NaN where the first mean is not positive, or the second is negative.
        geometric: geometric mean of the ratios; NaN where a value is not positive, as `log_std` and `geometric_p` are.
        geometric_student: Student's interval for it, from the logarithms.
        log_std: standard deviation of the log ratios.
        lower: pairs in which the second is lower.
        higher: pairs in which the second is higher.
        equal: pairs in which both are equal.
        t_p: p of the paired t test; 1 where all differences are 0, NaN for one pair and where all are equal.
        geometric_p: the same of the log ratios.
        wilcoxon_p: p of Wilcoxon's signed-rank test.
        sign_p: p of the sign test, without equal pairs.
    """

    n: int
    first_mean: float
    second_mean: float
    mean: float
    median: float
    std: float
    student: Interval | None
    bootstrap: Interval | None
    ratio: float
    geometric: float
    geometric_student: Interval | None
    log_std: float
    lower: int
    higher: int
    equal: int
    t_p: float
    geometric_p: float
    wilcoxon_p: float
    sign_p: float


def paired(first: F64, second: F64, *, confidence: float = 0.95, seed: int = 0) -> PairedComparison:
    """Compare two arms pair by pair.

    Args:
        first: [n] the first arm's numbers, one for each seed; finite.
        second: [n] the second arm's, in the same order.
        confidence: the share of repeated studies whose interval covers the true mean.
        seed: of the bootstrap's resamples. The same numbers give the same interval.

    Raises:
        UserError: the arrays are empty, differ in length, or hold a number that is not finite; or `confidence` is not
            between 0 and 1.
    """
    a, b = checked_pairs(first, second)
    checked_share("confidence", confidence)
    d = b - a
    scale = float(np.abs([a, b]).max())
    d = np.where(np.abs(d) <= SAME * np.maximum(np.abs(a), np.abs(b)), 0.0, d)
    d = d if _vary(d, scale) else np.full_like(d, d[0])
    lower, higher = int((d < 0).sum()), int((d > 0).sum())
    mean, means = float(d.mean()), (float(a.mean()), float(b.mean()))
    logs = np.where(d == 0, 0.0, np.log(b) - np.log(a)) if min(a.min(), b.min()) > 0 else None
    logs = np.full_like(logs, logs[0]) if logs is not None and not _vary(logs, 1.0) else logs
    low_high = None if logs is None else student_interval(logs, confidence)
    return PairedComparison(
        n=len(d),
        first_mean=means[0],
        second_mean=means[1],
        mean=mean,
        median=float(np.median(d)),
        std=float(d.std(ddof=1)) if len(d) > 1 else math.nan,
        student=student_interval(d, confidence),
        bootstrap=_bca(d, confidence, seed) if len(d) > 2 and np.ptp(d) else None,
        ratio=means[1] / means[0] if means[0] > 0 and means[1] >= 0 else math.nan,
        geometric=math.nan if logs is None else math.exp(float(logs.mean())),
        geometric_student=None if low_high is None else (math.exp(low_high[0]), math.exp(low_high[1])),
        log_std=float(logs.std(ddof=1)) if logs is not None and len(d) > 1 else math.nan,
        lower=lower,
        higher=higher,
        equal=len(d) - lower - higher,
        t_p=t_test(d),
        geometric_p=math.nan if logs is None else t_test(logs),
        wilcoxon_p=signed_rank_test(d),
        sign_p=sign_test(lower, higher),
    )


def checked_pairs(first: F64, second: F64) -> tuple[F64, F64]:
    """Return two arrays of pairs in float64.

    Raises:
        UserError: they are empty, differ in length, or hold a number that is not finite.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        problem = f"must be two arrays of one length, at least 1, got shapes {a.shape} and {b.shape}"
        raise UserError("first and second", problem, fix="Leave out seeds that one arm lacks.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        lost = int((~(np.isfinite(a) & np.isfinite(b))).sum())
        problem = f"must hold finite numbers, got NaN or infinity in {lost} of {len(a)} pairs"
        raise UserError("first and second", problem, fix="Leave these pairs out.")
    return a, b


def checked_share(name: str, value: float) -> float:
    """Return a share such as a confidence.

    Raises:
        UserError: it is not between 0 and 1.
    """
    if not 0 < value < 1:
        raise UserError(name, f"must be between 0 and 1, got {value}", fix="95 percent is 0.95.")
    return value


def student_interval(values: F64, confidence: float = 0.95) -> Interval | None:
    """Return Student's interval for the mean of values [n]; None for one value, and where all are equal."""
    from scipy.special import stdtrit  # half a second less than scipy.stats, where only an interval is needed

    n, mean = len(values), float(np.mean(values))
    if n < 2 or not np.ptp(values):
        return None
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return mean - half, mean + half


def t_test(differences: F64) -> float:
    """Return the p of Student's test that a mean is 0.

    Differences [n] that are all equal have no spread to judge their mean by: 1 where they are 0, else NaN; the sign
    test still has a p. One difference has NaN.
    """
    from scipy import stats

    if len(differences) < 2:
        return math.nan
    if not np.ptp(differences):
        return math.nan if differences.any() else 1.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _vary(values: F64, scale: float) -> bool:
    """Return whether values differ by more than rounding."""
    return float(np.ptp(values)) > SAME * scale


def sign_test(lower: int, higher: int) -> float:
    """Return the p of the sign test, from the numbers of pairs that are lower and higher; 1 without any."""
    from scipy import stats

    return float(stats.binomtest(lower, lower + higher).pvalue) if lower + higher else 1.0


def signed_rank_test(differences: F64) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test of differences [n]; 1 where all are 0.

    Differences of 0 are left out, and equal ones share their mean rank. Up to EXACT differences the p is exact, given
    these ranks: the ways to give them signs are counted by their sums. That is what SciPy's permutation test finds for
    up to 13 differences with ties, a thousand times as fast.
    """
    from scipy import stats

    moved = differences[differences != 0]
    if not len(moved):
        return 1.0
    if len(moved) > EXACT:
        return float(stats.wilcoxon(moved, method="asymptotic").pvalue)
    twice = np.rint(2 * stats.rankdata(np.abs(moved))).astype(np.int64)  # mean ranks are multiples of a half
    ways = np.ones(1)
    for rank in twice:
        ways = np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0))
    positive = int(twice[moved > 0].sum())
    tail = min(ways[: positive + 1].sum(), ways[positive:].sum())
    return min(1.0, 2.0 * float(tail / ways.sum()))


def _bca(differences: F64, confidence: float, seed: int) -> Interval | None:
    """Return the BCa interval for the mean; None where its resamples do not give one."""
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            (differences,), np.mean, confidence_level=confidence, n_resamples=RESAMPLES, method="BCa", rng=seed
        ).confidence_interval
    return (float(found.low), float(found.high)) if math.isfinite(found.low) and math.isfinite(found.high) else None
