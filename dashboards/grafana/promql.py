"""The PromQL of the dashboards: a few query shapes with the dashboards' variables.

    runs("loss", split="validation")  ->  fedscape_loss{run_id=~"$run",clock="round",split="validation"}

The build looks up every metric and label in the metric table, so the JSON has no name that does not exist.
"""

from __future__ import annotations

from server.metrics.table import METRICS, PREFIX, Metric, series_names
from server.metrics.timeline import EPOCH_MS

ROUND_0 = EPOCH_MS // 1000
"""The moment of round 0 on the round clock: 2000-01-01T00:00:00Z, in seconds since 1970; a round is a second."""

GROUP = "scenario, algorithm, study, arm"
"""The labels of `run_info` that the seeds of an experiment share; a run outside of studies has the first two alone."""

_OF_SERIES = {name: metric for metric in METRICS.values() for name in series_names(metric)}


def runs(metric: str, **labels: str) -> str:
    """Select a metric of every selected run, on the round clock.

    Args:
        metric: name without the prefix; a histogram's with `_bucket`, `_sum` or `_count`.
        labels: label -> the value it has.

    Example:
        >>> runs("loss", split="train")
        'fedscape_loss{run_id=~"$run",clock="round",split="train"}'
    """
    return _select(metric, {"run_id": "~$run", "clock": "round"} | labels)


def focus(metric: str, **labels: str) -> str:
    """Select a metric of the run that the variable `focus` names, on the round clock."""
    return _select(metric, {"run_id": "$focus", "clock": "round"} | labels)


def live(metric: str, **labels: str) -> str:
    """Select a metric of every selected run as it is scraped, on wall time."""
    assert declared(metric).live, f"{PREFIX}{metric} is not on /metrics"
    return _select(metric, {"run_id": "~$run"} | labels)


def last(selector: str) -> str:
    """Return each series' last value in the dashboard's time range.

    Example:
        >>> last(runs("round"))
        'last_over_time(fedscape_round{run_id=~"$run",clock="round"}[$__range])'
    """
    return f"last_over_time({selector}[$__range])"


def a_run(expression: str) -> str:
    """Drop every label but the run's, so that columns of a table join."""
    return f"max by (run_id) ({expression})"


def over_seeds(level: float, value: str, info: str) -> str:
    """Return a quantile over the runs of each group: of an arm of a study, else of a scenario and algorithm.

    Args:
        level: 0 to 1; 0.5 is the median.
        value: a selector, or `last` of one.
        info: a selector of `run_info`, or `last` of one, which has the labels of the groups.

    Example:
        >>> over_seeds(0.5, "a", "b").partition(" * ")[0]
        'quantile by (scenario, algorithm, study, arm) (0.5, max by (run_id) (a)'
    """
    labels = f"max by (run_id, {GROUP}) ({info})"
    joined = f"{a_run(value)} * on (run_id) group_left ({GROUP}) {labels}"
    return f"quantile by ({GROUP}) ({level:g}, {joined})"


def this_round(selector: str) -> str:
    """Return the increase of a sum over rounds in this round; the whole sum in its first round.

    `increase` would extrapolate; on the round clock the round before is exactly a second earlier.
    """
    return f"{selector} - ({selector} offset 1s or {selector} * 0)"


def begins(selector: str) -> str:
    """Return series above 0 now that were not in the ten rounds before, which skips the gaps of a small cohort.

    Example:
        >>> begins("a")
        'a > 0 unless max_over_time(a[9500ms] offset 1s) > 0'
    """
    return f"{selector} > 0 unless max_over_time({selector}[9500ms] offset 1s) > 0"


def round_number(selector: str) -> str:
    """Return the round's number where a selected series has a value: a strictly ascending x axis.

    Example:
        >>> round_number("a")
        'count(a) * 0 + time() - 946684800'
    """
    return f"count({selector}) * 0 + time() - {ROUND_0}"


def _select(metric: str, labels: dict[str, str]) -> str:
    """Return a selector; a value that starts with `~` is a pattern."""
    ours = ("run_id", "clock", *declared(metric).labels)
    assert set(labels) <= set(ours), f"{metric} has the labels {ours}, not {set(labels) - set(ours)}"
    parts = (
        f'{key}{"=~" if value.startswith("~") else "="}"{value.removeprefix("~")}"' for key, value in labels.items()
    )
    return f"{PREFIX}{metric}{{{','.join(parts)}}}"


def declared(metric: str) -> Metric:
    """Return the metric with a series of this name, given without the prefix."""
    found = _OF_SERIES.get(PREFIX + metric)
    assert found is not None, f"{PREFIX}{metric} is not in the metric table"
    return found
