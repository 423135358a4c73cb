"""Writes docs/metrics.md from the metric table: `python -m server.metrics.page`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from server.metrics.readers import MOST_CLASSES, MOST_DISTRICTS, MOST_DRIFTS, MOST_FAULTS, MOST_LAYERS, MOST_RANKS
from server.metrics.table import EXPORTER, OUTCOME, ROUND, RUN, Metric, series_names

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
_HEAD = f"""# Metrics

Written by `python -m server.metrics.page` from `server/metrics/table.py`; a test keeps it current.

Every series has the label `run_id`. Samples that carry their own time (remote write, OpenMetrics files) also have
`clock`:

- `round`: round r is r seconds after 2000-01-01T00:00:00Z,
- `simulated`: the fleet's simulated seconds after the same moment,
- `wall`: the time of day.

Facts of a run are labels of one series, `fedscape_run_info`. Join them to others:
`fedscape_loss * on (run_id) group_left (scenario, algorithm) fedscape_run_info`.

The number of labels is bounded, whatever the number of clients:

| label | most values |
|---|--:|
| `quantile` | 9 |
| `rank` | {MOST_RANKS} |
| `layer` | {MOST_LAYERS}; further layers are combined as `rest` |
| `class` | {MOST_CLASSES}; none for data with more classes |
| `fault` | {MOST_FAULTS} |
| `drift` | {MOST_DRIFTS} |
| `district` | {MOST_DISTRICTS} |

Of faults, drifts and districts, those that appear first in the record get a label. The record has all.

- `split` says which examples a loss or score is measured on: `train` (local training of the cohort), `validation`
  (central examples) or `federated` (examples that clients hold out).
- Quantiles are exact, over the cohort of the round. Distributions add up over the run.
- Scores of clients are accuracies, or errors of a regression.

The last column of the tables:

- *live*: `/metrics` has it. It shows the newest round, and the last value of what that round did not measure.
- *clock*: it depends on the machine's speed, so two equal runs differ.

Remote write and OpenMetrics files have all metrics for all rounds, and only what a round measured. TensorBoard has the
same without states and indices of clients; its histograms are of one round.
"""
_PARTS: Sequence[tuple[str, str, Sequence[Metric]]] = (
    ("Facts of a run", "`environment.json`, under `run`", RUN),
    ("A round", "a line of `rounds.jsonl`; `so_far` adds up its lines, and bounds their names", ROUND),
    ("Results of a run", "`outcome.json`", OUTCOME),
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
