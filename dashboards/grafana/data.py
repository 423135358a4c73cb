"""The dashboard Data: the partition, scores by class, scores over clients."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as board

from dashboards.grafana.convergence import COLUMNS, FOCUSED
from dashboards.grafana.frame import Row, runs_dashboard
from dashboards.grafana.panels import Band, number_panel, trend_panel
from dashboards.grafana.parts import Query
from dashboards.grafana.promql import a_run, focus, last, runs
from dashboards.grafana.tables import table_panel

BANDS = (Band("1", "0"), Band("0.75", "0.25"))
FACTS = ("scenario", "data", "partition", "model", "algorithm", "seed")


def data() -> board.Dashboard:
    """Return the dashboard."""
    why = (
        "The partition with its label and quantity skew, scores by class, and scores over clients with the worst "
        "clients."
    )
    rows = [_partition(), _classes(), _clients()]
    return runs_dashboard("fedscape-data", "Data", why, rows, annotated=False)


def _partition() -> Row:
    names = COLUMNS | {"data": "Data", "partition": "Partition", "model": "Model"}
    queries = [
        Query(f"max by (run_id, {', '.join(FACTS)}) ({last(runs('run_info'))})", ""),
        Query(a_run(last(runs("population_clients"))), "Clients"),
        Query(a_run(last(runs("population_examples"))), "Examples"),
        Query(a_run(last(runs("client_examples", quantile="0"))), "Smallest client"),
        Query(a_run(last(runs("client_examples", quantile="0.5"))), "Median client"),
        Query(a_run(last(runs("client_examples", quantile="1"))), "Largest client"),
        Query(a_run(last(runs("label_emd"))), "Label EMD", decimals=3),
        Query(a_run(last(runs("label_js"))), "Label JS, bits", decimals=3),
        Query(a_run(last(runs("model_parameters"))), "Parameters"),
    ]
    why = "Examples on clients. Label EMD: 0 for equal label shares, at most 2. Jensen-Shannon: 0 to 1."
    return Row("Partition", (
        table_panel("Partitions", why, queries, renamed=names, links=FOCUSED, height=8),
        number_panel("Label skew of $focus", "Mean earth mover's distance of a client's label shares from those of "
                     "all clients.", Query(last(focus("label_emd")), "EMD"), decimals=3, width=8),
        number_panel("Quantity skew of $focus", "Examples of the largest client over those of the median client.",
                     Query(f"{last(focus('client_examples', quantile='1'))} / on (run_id) "
                         f"{last(focus('client_examples', quantile='0.5'))}", "ratio"), decimals=2, width=8),
        number_panel("Clients of $focus", "In the population.", Query(last(focus("population_clients")), "clients"),
                     width=8),
    ))  # fmt: skip


def _classes() -> Row:
    x = focus("round")
    return Row("Classes of the selected run", (
        trend_panel("Accuracy by class", "Share of each class's validation examples predicted right (at most 32 "
                    "classes). A class that few clients hold is learnt late.", [Query(focus("class_accuracy_ratio"),
                    "class {{class}}")], x=x, unit="percentunit", low=0, high=1),
        trend_panel("Worst and best class", "The range of the accuracies by class, which the mean accuracy hides.", [
            Query(f"min({focus('class_accuracy_ratio')})", "worst class"),
            Query(f"max({focus('class_accuracy_ratio')})", "best class"),
            Query(focus("accuracy_ratio", split="validation"), "all examples")],
            x=x, unit="percentunit", low=0, high=1, bands=(Band("best class", "worst class"),)),
        trend_panel("Balanced accuracy", "Mean of the accuracies by class: on the validation examples, and on "
                    "the clients' own examples where these are evaluated.", [
            Query(focus("balanced_accuracy_ratio"), "{{split}}"), Query(focus("macro_f1"), "macro-F1, {{split}}")],
            x=x, unit="percentunit", low=0, high=1),
        trend_panel("Balanced accuracy over clients", "Mean accuracy over the classes that a client has: exact "
                    "quantiles.", [Query(focus("client_balanced_accuracy"), "{{quantile}}")], x=x, unit="percentunit",
                    bands=BANDS),
    ))  # fmt: skip


def _clients() -> Row:
    x, every = focus("round"), runs("round")
    quantile, rank = "{{quantile}}", "rank {{rank}}"
    when = "Measured in rounds with a federated evaluation."
    return Row("Clients", (
        trend_panel("Score over clients, $focus", f"Accuracy, or the error of a regression: exact quantiles. {when}",
                    [Query(focus("client_score"), quantile)], x=x, bands=BANDS),
        trend_panel("Loss over clients, $focus", f"On each client's own examples: exact quantiles. {when}",
                    [Query(focus("client_loss"), quantile)], x=x, bands=BANDS),
        trend_panel("Worst scores, $focus", f"Of the worst clients, by rank. {when}",
                    [Query(focus("worst_client_score"), rank)], x=x),
        trend_panel("Worst clients, $focus", "Index of the client of each rank: a level row of dots is a client "
                    "whose score is always bad.", [Query(focus("worst_client_score_client"), rank)], x=x,
                    points=("rank .*",)),
        trend_panel("Variance over clients", f"Variance of the score over clients, of every selected run: 0 is fair. "
                    f"{when}", [Query(runs("client_score_variance"))], x=every, low=0),
        trend_panel("Mean score on the clients", f"Accuracy on the clients' own examples. {when}",
                    [Query(runs("accuracy_ratio", split="federated"))], x=every, unit="percentunit"),
        trend_panel("Mean error on the clients", f"Of a regression, root mean squared. {when}",
                    [Query(runs("error", split="federated"))], x=every),
        trend_panel("Clients evaluated", "Number of clients that were evaluated.",
                    [Query(runs("evaluated_clients"))], x=every, low=0),
    ))  # fmt: skip
