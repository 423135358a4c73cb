"""Writes docs/metrics.md from the metric table: `python -m server.metrics.page`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from server.metrics.readers import MOST_CLASSES, MOST_DISTRICTS, MOST_DRIFTS, MOST_FAULTS, MOST_LAYERS, MOST_RANKS
from server.metrics.table import EXPORTER, OUTCOME, ROUND, RUN, Metric, series_names

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
_HEAD = f"""# Metrics

Written by `python -m server.metrics.page` from `server/metrics/table.py`; a test keeps it current.

Every series has the label `run_id`. Samples with their own timestamps (remote write, OpenMetrics files) also have
`clock`: `round` (round r lies r seconds after 2000-01-01T00:00:00Z), `simulated` (simulated seconds after the same
moment) or `wall`. Facts of a run are labels of `fedscape_run_info` only. Join them:
`fedscape_loss * on (run_id) group_left (scenario, algorithm) fedscape_run_info`.

The number of label values is bounded and does not grow with the number of clients:

| label | most values | |
|---|---|---|
| `quantile` | 9 | exact, over this round's cohort |
| `rank` | {MOST_RANKS} | 1 is the worst |
| `layer` | {MOST_LAYERS} | further layers are added up as `rest` |
| `class` | {MOST_CLASSES} | absent for data with more classes |
| `fault` | {MOST_FAULTS} | the first in the run; the record has all |
| `drift` | {MOST_DRIFTS} | the first in the run; the record has all |
| `district` | {MOST_DISTRICTS} | the first in the run; the record has all |
| `split` | 3 | `train` (local training), `validation` (central examples), `federated` (clients' examples) |

Distributions add up over the run. Scores of clients are accuracies, or errors of a regression.

Exporters differ in what they have:

- `/metrics` has the metrics marked *live*, for the newest round. A value that this round did not measure is the last
  measured one.
- Remote write and OpenMetrics files have all metrics of all rounds, and only values that a round measured.
- TensorBoard has the same without run states and client indices. Each of its histograms covers one round.

A metric marked *clock* depends on the speed of the machine, so two equal runs differ in it.
"""
_PARTS: Sequence[tuple[str, str, Sequence[Metric]]] = (
    ("Facts of a run", "`environment.json`, under `run`", RUN),
    ("A round", "a line of `rounds.jsonl`; `so_far` has sums over its lines, with bounded names", ROUND),
    ("Outcome of a run", "`outcome.json`", OUTCOME),
    ("Exporters", "the process, live only", EXPORTER),
)


def page() -> str:
    """Return the page's text."""
    return "\n".join([_HEAD, *(line for part in _PARTS for line in _table(*part))])


def _table(title: str, source: str, metrics: Sequence[Metric]) -> Iterator[str]:
    yield f"## {title}\n\nRead from {source}.\n"
    yield "| series | kind | labels | what | read from | |\n|---|---|---|---|---|---|"
    for metric in metrics:
        names = " ".join(f"`{name}`" for name in series_names(metric))
        marks = ", ".join(word for word, marked in (("live", metric.live), ("clock", metric.wall)) if marked)
        cells = (names, metric.kind, ", ".join(metric.labels), metric.help, f"`{metric.key}`" if metric.key else "")
        yield "| " + " | ".join((*(cell.replace("|", "\\|") for cell in cells), marks)) + " |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
