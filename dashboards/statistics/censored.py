"""Two arms whose numbers may be censored: a run that missed its target is known to need more than what it spent.

Medians are Kaplan and Meier's. Means are restricted to a horizon: the mean of min(T, horizon), the area under the
survival curve. Their difference is judged pair by pair through pseudo-values (Andersen, Klein and Rosthøj 2003,
Biometrika 90), which are min(T, horizon) itself where nothing is censored before the horizon.

The test is a paired log-rank: the log-rank scores of all runs together (1 for a hit, minus the cumulative hazard),
their differences pair by pair, and the share of all changes of sign with a sum as large. Its level is exact for any
number of pairs. The log-rank stratified by pair (statsmodels' `survdiff`) sees only which of a pair was first, and its
chi-square rejects in 7% of studies with 8 pairs and no difference (`tests/theory/test_censored_times.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from clients.core.arrays import F64
from clients.core.errors import UserError
from dashboards.statistics.paired import Interval, checked_pairs, checked_share, sign_test, student_interval

Hits = np.ndarray[tuple[int], np.dtype[np.bool_]]
MOST_SIGNS = 9_999
"""Above 13 pairs, this many changes of sign are drawn; below, all are counted."""
HALF = 0.5
ROUNDING = 1e-9
"""Survival curves are products of ratios, so a half may be 0.49999999999999994."""


@dataclass(frozen=True)
class SurvivalCurve:
    """Kaplan and Meier's estimate of the share of runs that have not reached their target.

    Attributes:
        times: [k] the distinct times of hits, ascending.
        share: [k] the share that need longer than each of them.
        low: [k] lower ends of pointwise intervals (log-log transform); NaN where the share is 0.
        high: [k] upper ends.
        median: the time at which the share passes a half; NaN where half of the runs or more missed.
        median_interval: its interval. The upper end is infinity where no time bounds it; None without an estimate.
        misses: runs that missed.
        last: the longest time, of a hit or a miss.
    """

    times: F64
    share: F64
    low: F64
    high: F64
    median: float
    median_interval: Interval | None
    misses: int
    last: float


@dataclass(frozen=True)
class CensoredComparison:
    """What pairs of censored numbers say of two arms. Differences are second minus first.

    Attributes:
        n: pairs.
        horizon: means are restricted to it.
        first: the first arm's curve.
        second: the second arm's curve.
        first_mean: restricted mean of the first arm.
        second_mean: restricted mean of the second arm.
        mean: difference of the restricted means.
        std: standard deviation of the pairs' differences of pseudo-values; NaN for one pair.
        student: Student's interval for the difference; None for one pair, and where all differences are equal.
        lower: pairs in which the second is lower.
        higher: pairs in which the second is higher.
        equal: pairs with equal hits.
        unknown: pairs in which nobody knows: both missed, or one hit after the other's bound.
        log_rank_p: p of the paired log-rank; 1 where every run missed.
        stratified_p: p of statsmodels' log-rank stratified by pair; NaN where no pair tells its arms apart.
        sign_p: p of the sign test on the pairs that are lower or higher.
    """

    n: int
    horizon: float
    first: SurvivalCurve
    second: SurvivalCurve
    first_mean: float
    second_mean: float
    mean: float
    std: float
    student: Interval | None
    lower: int
    higher: int
    equal: int
    unknown: int
    log_rank_p: float
    stratified_p: float
    sign_p: float


def censored(
    first: F64,
    first_hit: Hits,
    second: F64,
    second_hit: Hits,
    *,
    horizon: float | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> CensoredComparison:
    """Compare two arms whose numbers may be censored, pair by pair.

    Args:
        first: [n] what each run of the first arm needed, or at least needs where it missed; finite and not negative.
        first_hit: [n] whether it reached its target.
        second: [n] the same of the second arm, in the same order.
        second_hit: [n].
        horizon: positive; means are restricted to it. By default the longest time up to which both curves are known.
        confidence: of the intervals.
        seed: of the drawn changes of sign.

    Raises:
        UserError: arrays that are no pairs, a time below 0, a horizon that is not positive or beyond the longest time
            known of an arm, or a `confidence` that is not between 0 and 1.
    """
    a, b = checked_pairs(first, second)
    hit_a, hit_b = _checked_hits("first_hit", first_hit, a), _checked_hits("second_hit", second_hit, b)
    checked_share("confidence", confidence)
    end = _horizon(horizon, a, hit_a, b, hit_b)
    d = _pseudo_values(b, hit_b, end) - _pseudo_values(a, hit_a, end)
    if float(np.ptp(d)) <= ROUNDING * max(end, 1e-300):
        d = np.full_like(d, d[0])
    lower = int(np.where(hit_a, hit_b & (b < a), hit_b & (b <= a)).sum())
    higher = int(np.where(hit_b, hit_a & (a < b), hit_a & (a <= b)).sum())
    equal = int((hit_a & hit_b & (a == b)).sum())
    means = restricted_mean(a, hit_a, end), restricted_mean(b, hit_b, end)
    return CensoredComparison(
        n=len(a),
        horizon=end,
        first=survival_curve(a, hit_a, confidence=confidence),
        second=survival_curve(b, hit_b, confidence=confidence),
        first_mean=means[0],
        second_mean=means[1],
        mean=means[1] - means[0],
        std=float(d.std(ddof=1)) if len(d) > 1 else math.nan,
        student=student_interval(d, confidence),
        lower=lower,
        higher=higher,
        equal=equal,
        unknown=len(a) - lower - higher - equal,
        log_rank_p=_log_rank(a, hit_a, b, hit_b, seed),
        stratified_p=_stratified(a, hit_a, b, hit_b),
        sign_p=sign_test(lower, higher),
    )


def survival_curve(times: F64, hit: Hits, *, confidence: float = 0.95) -> SurvivalCurve:
    """Return Kaplan and Meier's curve of runs [n] that needed `times`, or missed (`hit` false) after them.

    Raises:
        UserError: no run, a time that is negative or not finite, or arrays of other lengths.
    """
    from scipy.special import ndtri
    from statsmodels.duration.survfunc import SurvfuncRight

    t, _ = checked_pairs(times, times)
    hits = _checked_hits("hit", hit, t)
    misses, last = int((~hits).sum()), float(t.max())
    if not hits.any():
        none = np.empty(0)
        return SurvivalCurve(none, none, none, none, math.nan, None, misses, last)
    found = SurvfuncRight(t, hits.astype(float))
    with np.errstate(divide="ignore", invalid="ignore"):  # no interval where the share is 0
        low, high = found.quantile_ci(HALF, alpha=1 - confidence)
        logs = np.log(found.surv_prob)
        width = ndtri(0.5 + confidence / 2) * found.surv_prob_se / (found.surv_prob * np.abs(logs))
        bands = found.surv_prob ** np.exp(width), found.surv_prob ** np.exp(-width)
    share = np.asarray(found.surv_prob, np.float64)
    return SurvivalCurve(
        times=np.asarray(found.surv_times, np.float64),
        share=share,
        low=np.where(share > 0, bands[0], math.nan),
        high=np.where(share > 0, bands[1], math.nan),
        median=_median(found.surv_times, share),
        median_interval=None if math.isnan(low) else (float(low), float(high)),
        misses=misses,
        last=last,
    )


def restricted_mean(times: F64, hit: Hits, horizon: float) -> float:
    """Return the mean of min(T, horizon): the area under the survival curve up to the horizon."""
    curve = _steps(times, hit)
    inside = curve[0] < horizon
    ends = np.concatenate(([0.0], curve[0][inside], [horizon]))
    return float(np.diff(ends) @ np.concatenate(([1.0], curve[1][inside])))


def _steps(times: F64, hit: Hits) -> tuple[F64, F64]:
    """Return the times of hits and the shares that need longer."""
    from statsmodels.duration.survfunc import SurvfuncRight

    if not hit.any():
        return np.empty(0), np.empty(0)
    found = SurvfuncRight(times, hit.astype(float))
    return np.asarray(found.surv_times, np.float64), np.asarray(found.surv_prob, np.float64)


def _median(times: F64, share: F64) -> float:
    """Return the first time with less than half left, or the middle of a stretch with exactly half; else NaN."""
    below = np.flatnonzero(share < HALF - ROUNDING)
    if not len(below):
        return math.nan
    at = int(below[0])
    if at and abs(share[at - 1] - HALF) <= ROUNDING:
        return float(times[at - 1] + times[at]) / 2
    return float(times[at])


def _checked_hits(name: str, hit: Hits, times: F64) -> Hits:
    hits = np.asarray(hit, np.bool_)
    if hits.shape != times.shape:
        raise UserError(name, f"must have the length of its times, {len(times)}, got shape {hits.shape}")
    if (times < 0).any():
        raise UserError(name, f"must have times from 0 on, got {times.min()}", fix="Rounds and bytes count from 0.")
    return hits


def _horizon(horizon: float | None, a: F64, hit_a: Hits, b: F64, hit_b: Hits) -> float:
    """Return the horizon of restricted means: a curve is known for ever where its longest time is a hit."""
    ends = [math.inf if hit[t == t.max()].all() else float(t.max()) for t, hit in ((a, hit_a), (b, hit_b))]
    known = min(ends)
    if horizon is None:
        return known if math.isfinite(known) else float(max(a.max(), b.max()))
    if not (0 < horizon <= known):
        allowed = f"positive and at most {known:g}, the longest time known of both arms"
        raise UserError("horizon", f"must be {allowed}, got {horizon:g}", fix="Leave it out to restrict means to that.")
    return horizon


def _pseudo_values(times: F64, hit: Hits, horizon: float) -> F64:
    """Return [n] what each run adds to the restricted mean: n times it, minus n - 1 times the one without the run."""
    if (hit | (times >= horizon)).all():
        return np.minimum(times, horizon)
    n, whole = len(times), restricted_mean(times, hit, horizon)
    if n == 1:
        return np.array([whole])
    without = [restricted_mean(np.delete(times, i), np.delete(hit, i), horizon) for i in range(n)]
    return n * whole - (n - 1) * np.asarray(without, np.float64)


def _log_rank(a: F64, hit_a: Hits, b: F64, hit_b: Hits, seed: int) -> float:
    """Return the p of the paired log-rank."""
    from scipy import stats
    from statsmodels.duration.survfunc import SurvfuncRight

    times, hits = np.concatenate((a, b)), np.concatenate((hit_a, hit_b))
    if not hits.any():
        return 1.0
    curve = SurvfuncRight(times, hits.astype(float))
    hazard = np.concatenate(([0.0], np.cumsum(curve.n_events / curve.n_risk)))
    scores: F64 = hits - hazard[np.searchsorted(curve.surv_times, times, side="right")]
    d: F64 = scores[len(a) :] - scores[: len(a)]
    d = np.where(np.abs(d) <= ROUNDING, 0.0, d)
    if len(d) < 2 or not d.any():  # one pair has two changes of sign, each as large
        return 1.0
    found = stats.permutation_test(
        (d,), lambda x, axis: np.sum(x, axis=axis), permutation_type="samples", vectorized=True,
        n_resamples=MOST_SIGNS, rng=seed,
    )  # fmt: skip
    return min(1.0, float(found.pvalue))


def _stratified(a: F64, hit_a: Hits, b: F64, hit_b: Hits) -> float:
    """Return the p of statsmodels' log-rank with a stratum for each pair; NaN where no pair tells its arms apart."""
    from statsmodels.duration.survfunc import survdiff

    tells = np.where(hit_a & hit_b, a != b, np.where(hit_a, a <= b, hit_b & (b <= a)))
    if not tells.any():
        return math.nan
    n = int(tells.sum())
    times = np.concatenate((a[tells], b[tells]))
    hits = np.concatenate((hit_a[tells], hit_b[tells])).astype(float)
    return float(survdiff(times, hits, np.repeat([0, 1], n), strata=np.tile(np.arange(n), 2))[1])
