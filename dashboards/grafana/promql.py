"""The PromQL of the dashboards: a few shapes over metrics that exist, with the dashboards' variables in them.

    runs("loss", split="validation")  ->  fedscape_loss{run_id=~"$run",clock="round",split="validation"}

Every metric and label is looked up in the metric table while the dashboards are built, so a name that is not there
never gets into the JSON.
"""

from __future__ import annotations

from server.metrics.table import METRICS, PREFIX, Metric, series_names
from server.metrics.timeline import EPOCH_MS

ROUND_0 = EPOCH_MS // 1000
"""Where round 0 lies on the round clock: 2000-01-01T00:00:00Z, in seconds since 1970; a round is a second."""

_OF_SERIES = {name: metric for metric in METRICS.values() for name in series_names(metric)}


def runs(metric: str, **labels: str) -> str:
    """Select a metric of every chosen run, on the round clock.

    Args:
        metric: name without the prefix; a histogram's with `_bucket`, `_sum` or `_count`.
        labels: label -> value it must have.

    Example:
        >>> runs("loss", split="train")
        'fedscape_loss{run_id=~"$run",clock="round",split="train"}'
    """
    return _select(metric, {"run_id": "~$run", "clock": "round"} | labels)


def focus(metric: str, **labels: str) -> str:
    """Select a metric of the one run that is looked at closely, on the round clock."""
    return _select(metric, {"run_id": "$focus", "clock": "round"} | labels)


def live(metric: str, **labels: str) -> str:
    """Select a metric of every chosen run as it is scraped, on wall time."""
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


def this_round(selector: str) -> str:
    """Return what a sum over rounds grew by in this round: all of it in the first round it is there.

    An `increase` would extrapolate; on the round clock the round before is exactly a second ago.
    """
    return f"{selector} - ({selector} offset 1s or {selector} * 0)"


def begins(selector: str) -> str:
    """Return what is above 0 now and was not in the ten rounds before, so that a small cohort's gaps do not count.

    Example:
        >>> begins("a")
        'a > 0 unless max_over_time(a[9500ms] offset 1s) > 0'
    """
    return f"{selector} > 0 unless max_over_time({selector}[9500ms] offset 1s) > 0"


def round_number(selector: str) -> str:
    """Return the round's number, where any of the selected series has a value: a strictly ascending x axis.

    Example:
        >>> round_number("a")
        'count(a) * 0 + time() - 946684800'
    """
    return f"count({selector}) * 0 + time() - {ROUND_0}"


def _select(metric: str, labels: dict[str, str]) -> str:
    """Write a selector; a value that starts with `~` is a pattern."""
    ours = ("run_id", "clock", *declared(metric).labels)
    assert set(labels) <= set(ours), f"{metric} has the labels {ours}, not {set(labels) - set(ours)}"
    parts = (
        f'{key}{"=~" if value.startswith("~") else "="}"{value.removeprefix("~")}"' for key, value in labels.items()
    )
    return f"{PREFIX}{metric}{{{','.join(parts)}}}"


def declared(metric: str) -> Metric:
    """Return the metric that has a series of this name, given without the prefix."""
    found = _OF_SERIES.get(PREFIX + metric)
    assert found is not None, f"{PREFIX}{metric} is not in the metric table"
    return found
