"""A run as OpenMetrics text with the times of its rounds, for `promtool tsdb create-blocks-from openmetrics`."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from server.metrics.run_stream import Moment, Series
from server.metrics.samples import Labels
from server.metrics.table import METRICS, Metric, series_names

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


@dataclass
class _Points:
    """The samples of one series, 16 bytes each."""

    times: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))


def openmetrics(moments: Iterable[Moment], labels: Labels) -> Iterator[str]:
    """Yield the lines of an OpenMetrics text, metric by metric and series by series.

    The ends of series are left out: the format has no way to write them.

    Args:
        moments: a run's moments, in order.
        labels: labels that every series has.

    Example:
        >>> from server.metrics.samples import Sample
        >>> moment = Moment(946_684_801_000, [Sample("fedscape_round", (), 1.0)])
        >>> for line in openmetrics([moment], (("run_id", "a"),)):
        ...     print(line)
        # HELP fedscape_round Newest finished round; 0 is the initial model.
        # TYPE fedscape_round gauge
        fedscape_round{run_id="a"} 1.0 946684801.000
        # EOF
    """
    found: dict[Series, _Points] = {}
    for moment in moments:
        for name, own, value in moment.samples:
            points = found.get((name, own))
            if points is None:
                points = found[name, own] = _Points()
            points.times.append(moment.at)
            points.values.append(value)
    by_name: dict[str, list[Series]] = {}
    for series in found:
        by_name.setdefault(series[0], []).append(series)
    for metric in METRICS.values():
        names = [name for name in series_names(metric) if name in by_name]
        if names:
            yield from described(metric)
        written = [_lines(series, labels, found[series]) for name in names for series in by_name[name]]
        if metric.kind == "histogram":  # its buckets, sum and count stay together, time by time
            yield from chain.from_iterable(zip(*written, strict=True))
        else:
            yield from chain.from_iterable(written)
    yield "# EOF"


def family(metric: Metric) -> str:
    """Return the name that OpenMetrics declares for a metric, without the suffix of its samples."""
    ending = {"counter": "_total", "info": "_info"}.get(metric.kind, "")
    return metric.full_name.removesuffix(ending)


def described(metric: Metric) -> Iterator[str]:
    """Yield the lines that declare a metric."""
    name = family(metric)
    yield f"# HELP {name} {metric.help.translate(_ESCAPES)}"
    yield f"# TYPE {name} {metric.kind}"
    if metric.unit:
        yield f"# UNIT {name} {metric.unit}"


def number(value: float) -> str:
    """Return a number as OpenMetrics writes it; read back, it is the same.

    Example:
        >>> number(0.1), number(math.nan), number(-math.inf)
        ('0.1', 'NaN', '-Inf')
    """
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def _lines(series: Series, shared: Labels, points: _Points) -> Iterator[str]:
    name, own = series
    words = ",".join(f'{label}="{word.translate(_ESCAPES)}"' for label, word in sorted((*own, *shared)) if word)
    for at, value in zip(points.times, points.values, strict=True):
        yield f"{name}{{{words}}} {number(value)} {at // 1000}.{at % 1000:03d}"
