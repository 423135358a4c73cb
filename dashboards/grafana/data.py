"""What do the clients have, how unequal are they, and who is served badly?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as board

from dashboards.grafana.convergence import COLUMNS, FOCUSED
from dashboards.grafana.frame import Row, runs_dashboard
from dashboards.grafana.panels import Band, number_panel, trend_panel
from dashboards.grafana.parts import Ask
from dashboards.grafana.promql import a_run, focus, last, runs
from dashboards.grafana.tables import table_panel

BANDS = (Band("1", "0"), Band("0.75", "0.25"))
FACTS = ("scenario", "data", "partition", "model", "algorithm", "seed")


def data() -> board.Dashboard:
    """Return the dashboard."""
    why = "The partition and its skew by label and quantity, scores by class, and scores over clients with the worst."
    rows = [_partition(), _classes(), _clients()]
    return runs_dashboard("fedscape-data", "Data", why, rows, annotated=False)


def _partition() -> Row:
    names = COLUMNS | {"data": "Data", "partition": "Partition", "model": "Model"}
    asks = [
        Ask(f"max by (run_id, {', '.join(FACTS)}) ({last(runs('run_info'))})", ""),
        Ask(a_run(last(runs("population_clients"))), "Clients"),
        Ask(a_run(last(runs("population_examples"))), "Examples"),
        Ask(a_run(last(runs("client_examples", quantile="0"))), "Smallest client"),
        Ask(a_run(last(runs("client_examples", quantile="0.5"))), "Median client"),
        Ask(a_run(last(runs("client_examples", quantile="1"))), "Largest client"),
        Ask(a_run(last(runs("label_emd"))), "Label EMD", decimals=3),
        Ask(a_run(last(runs("label_js"))), "Label JS, bits", decimals=3),
        Ask(a_run(last(runs("model_parameters"))), "Parameters"),
    ]
    why = "How examples lie on clients. Label EMD is 0 for equal label shares and 2 at most; Jensen-Shannon 0 to 1."
    return Row("Partition", (
        table_panel("Partitions", why, asks, renamed=names, links=FOCUSED, height=8),
        number_panel("Label skew of $focus", "Mean earth mover's distance of a client's label shares from the whole's.",
                     Ask(last(focus("label_emd")), "EMD"), decimals=3, width=8),
        number_panel("Quantity skew of $focus", "Examples of the largest client over those of the median one.",
                     Ask(f"{last(focus('client_examples', quantile='1'))} / on (run_id) "
                         f"{last(focus('client_examples', quantile='0.5'))}", "ratio"), decimals=2, width=8),
        number_panel("Clients of $focus", "In the population.", Ask(last(focus("population_clients")), "clients"),
                     width=8),
    ))  # fmt: skip


def _classes() -> Row:
    x = focus("round")
    return Row("Classes of the run looked at closely", (
        trend_panel("Accuracy by class", "Share of each class's held-out examples predicted right (of at most 32 "
                    "classes): a class that few clients hold comes late.", [Ask(focus("class_accuracy_ratio"),
                    "class {{class}}")], x=x, unit="percentunit", low=0, high=1),
        trend_panel("Worst and best class", "The spread that the mean accuracy hides.", [
            Ask(f"min({focus('class_accuracy_ratio')})", "worst class"),
            Ask(f"max({focus('class_accuracy_ratio')})", "best class"),
            Ask(focus("accuracy_ratio", split="validation"), "all examples")],
            x=x, unit="percentunit", low=0, high=1, bands=(Band("best class", "worst class"),)),
        trend_panel("Balanced accuracy", "Mean of the accuracies by class, which common classes cannot hide: on the "
                    "validation examples, and on the clients' own where these are evaluated.", [
            Ask(focus("balanced_accuracy_ratio"), "{{split}}"), Ask(focus("macro_f1"), "macro-F1, {{split}}")],
            x=x, unit="percentunit", low=0, high=1),
        trend_panel("Balanced accuracy over clients", "Mean accuracy over the classes that a client has: exact "
                    "quantiles.", [Ask(focus("client_balanced_accuracy"), "{{quantile}}")], x=x, unit="percentunit",
                    bands=BANDS),
    ))  # fmt: skip


def _clients() -> Row:
    x, every = focus("round"), runs("round")
    quantile, rank = "{{quantile}}", "rank {{rank}}"
    asked = "Measured in the rounds that a scenario asks for a federated evaluation."
    return Row("Clients", (
        trend_panel("Score over clients, $focus", f"Accuracy, or the error of a regression: exact quantiles. {asked}",
                    [Ask(focus("client_score"), quantile)], x=x, bands=BANDS),
        trend_panel("Loss over clients, $focus", f"On each client's own examples: exact quantiles. {asked}",
                    [Ask(focus("client_loss"), quantile)], x=x, bands=BANDS),
        trend_panel("Worst scores, $focus", f"Of the worst clients, by rank. {asked}",
                    [Ask(focus("worst_client_score"), rank)], x=x),
        trend_panel("Who is worst, $focus", "Index of the client of each rank: a level row of dots is a client that "
                    "is served badly again and again.", [Ask(focus("worst_client_score_client"), rank)], x=x,
                    points=("rank .*",)),
        trend_panel("Variance over clients", f"Of the score, for every chosen run: 0 is fair. {asked}",
                    [Ask(runs("client_score_variance"))], x=every, low=0),
        trend_panel("Scores on clients, on average", f"Accuracy on the clients' own examples. {asked}",
                    [Ask(runs("accuracy_ratio", split="federated"))], x=every, unit="percentunit"),
        trend_panel("Errors on clients, on average", f"Of a regression, root mean squared. {asked}",
                    [Ask(runs("error", split="federated"))], x=every),
        trend_panel("Clients evaluated", "How many clients these are over.", [Ask(runs("evaluated_clients"))], x=every,
                    low=0),
    ))  # fmt: skip
