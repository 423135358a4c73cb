"""Writes docs/metrics.md from the metric table: `python -m server.metrics.page`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from server.metrics.readers import MOST_CLASSES, MOST_DISTRICTS, MOST_DRIFTS, MOST_FAULTS, MOST_LAYERS, MOST_RANKS
from server.metrics.table import EXPORTER, OUTCOME, ROUND, RUN, Metric, series_names

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
_HEAD = f"""# Metrics

Written by `python -m server.metrics.page` from `server/metrics/table.py`; a test keeps it current.

Every series has `run_id`. What is sent with times of its own (remote write, OpenMetrics files) also has `clock`:
`round` (round r lies r seconds after 2000-01-01T00:00:00Z), `simulated` (the fleet's seconds after the same moment) or
`wall`. Facts stand once, on `fedscape_run_info`; join them:
`fedscape_loss * on (run_id) group_left (scenario, algorithm) fedscape_run_info`.

Labels are bounded, whatever the number of clients: `quantile` has at most 9 values, `rank` {MOST_RANKS}, `layer`
{MOST_LAYERS} (the rest of a deeper model is `rest`), `class` {MOST_CLASSES} (none for data with more classes); `fault`
{MOST_FAULTS}, `drift` {MOST_DRIFTS} and `district` {MOST_DISTRICTS} (those that a run's lines tell of first; its record
has all). A `split` is what a loss or score is of: `train` (the cohort's local training), `validation` (central
examples), `federated` (examples of the clients'). Quantiles are exact, over this round's cohort; distributions add up
over the run. Scores of clients are accuracies, or errors of a regression.

`/metrics` has those marked *live*: the newest round, and of what it did not measure the last value. Remote write and
OpenMetrics files have all rounds of all of them, and only what a round measured; so has TensorBoard, states and indices
of clients left out, its histograms of one round. *Clock*: depends on the machine's speed; two equal runs differ.
"""
_PARTS: Sequence[tuple[str, str, Sequence[Metric]]] = (
    ("Facts of a run", "`environment.json`, under `run`", RUN),
    ("A round", "a line of `rounds.jsonl`; `so_far` adds up its lines, and bounds their names", ROUND),
    ("What a run came to", "`outcome.json`", OUTCOME),
    ("What exporters say of themselves", "the process, live only", EXPORTER),
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
