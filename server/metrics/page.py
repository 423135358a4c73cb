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
- `pseudo_gradient_norm` is the norm of the aggregate, also where its coefficients do not sum to 1 (FedNova, unbiased
  weights). Under your own Flower strategy it is the norm of the mean update by examples. Norms, cosines and distances
  of updates leave out the updates that are not aggregated.
- `gradient_norm` and `gradient_dissimilarity` are of the objective that the run minimises, sum q_k F_k plus the
  penalties `l2` and `l1`: the norm is 0 at the algorithm's fixed point. q_k are the weights that the algorithm
  gives to clients (equal under SCAFFOLD, FedDyn and uniform weighting). FedProx's and FedDyn's own terms are no part of
  it: they vanish at the broadcast model.
- `client_spread` sums up the clients' scores. The scores themselves are rows by round and client in the run's folder
  `scores/` (Parquet): `fs.open_run(path).scores["accuracy"]`.
- `optimality_gap` and `distance_to_optimum` are of f = sum p_k F_k of the data, without penalties, whatever the
  algorithm. Where the two objectives differ, the run's header says so.

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
