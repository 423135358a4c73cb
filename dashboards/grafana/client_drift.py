"""The dashboard Client drift: bands over clients, directions, worst clients, layers, beside the loss."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as board

from dashboards.grafana.frame import Row, runs_dashboard
from dashboards.grafana.panels import Band, heat_panel, series_panel, trend_panel
from dashboards.grafana.parts import Query
from dashboards.grafana.promql import a_run, focus, last, runs, this_round
from dashboards.grafana.tables import against_panel, table_panel

BANDS = (Band("0.95", "0.05"), Band("0.75", "0.25"))
_ROUND_BY_ROUND = "Each column is a round: the number of clients of the cohort in each bucket."


def client_drift() -> board.Dashboard:
    """Return the dashboard."""
    why = (
        "The spread and direction of clients' updates: bands over clients, cosines, worst clients, layers, "
        "beside the loss."
    )
    rows = [_overview(), _bands(), _directions(), _worst(), _layers()]
    return runs_dashboard("fedscape-client-drift", "Client drift", why, rows)


def _overview() -> Row:
    x = runs("round")
    loss = Query(a_run(runs("loss", split="validation")), "validation loss")
    return Row("All selected runs", (
        trend_panel("Client drift", "Mean over clients of the mean squared distance from the broadcast model during "
                    "local work.", [Query(runs("client_drift_mean"))], x=x),
        trend_panel("Update dispersion", "Weighted mean squared distance of the updates from their mean.",
                    [Query(runs("update_dispersion"))], x=x),
        against_panel("Drift against loss", "Each point is a round. Where drift grows and the loss does not fall, "
                      "clients drift apart without progress.", loss, Query(a_run(runs("client_drift_mean")),
                      "client drift")),
        series_panel("Drift with events", "Client drift on a time axis (one second is one round), with marks for "
                     "verdicts and jumps of client drift.", [Query(runs("client_drift_mean"))]),
        trend_panel("Gradient diversity", "Weighted squared norms of updates over the squared norm of their sum: "
                    "small where clients agree (Yin et al. 2018).", [Query(runs("gradient_diversity"))], x=x),
        trend_panel("Gradient dissimilarity", "Of clients' true gradients at the broadcast model, in the rounds that "
                    "measure it.", [Query(runs("gradient_dissimilarity"))], x=x),
    ))  # fmt: skip


def _bands() -> Row:
    x = focus("round")
    quantile = "{{quantile}}"
    return Row("Bands over the clients of the selected run", (
        trend_panel("Client drift of $focus", "Exact quantiles over the clients of each round.",
                    [Query(focus("client_drift"), quantile)], x=x, bands=BANDS, low=0),
        trend_panel("Distance from the mean update", "Exact quantiles over the clients of each round.",
                    [Query(focus("update_distance"), quantile)], x=x, bands=BANDS, low=0),
        trend_panel("Norm of updates", "Exact quantiles over the clients of each round.",
                    [Query(focus("update_norm"), quantile)], x=x, bands=BANDS, low=0),
        trend_panel("Drift beside loss", "Client drift (left axis) and validation loss (right axis).",
                    [Query(focus("client_drift_mean"), "client drift"),
                     Query(focus("loss", split="validation"), "validation loss")],
                    x=x, right={"validation loss": "none"}),
        heat_panel("Client drift by bucket", _ROUND_BY_ROUND,
                   Query(this_round(focus("client_drift_distribution_bucket")), "{{le}}")),
        heat_panel("Distance by bucket", _ROUND_BY_ROUND,
                   Query(this_round(focus("update_distance_distribution_bucket")), "{{le}}")),
    ))  # fmt: skip


def _directions() -> Row:
    x = focus("round")
    return Row("Direction of updates", (
        heat_panel("Cosine with the aggregate, $focus", "Clients by the cosine of their update with the aggregate: "
                   "1 is the same direction, below 0 opposed. " + _ROUND_BY_ROUND,
                   Query(this_round(focus("update_cosine_distribution_bucket")), "{{le}}"), height=10),
        trend_panel("Cosine, quantiles", "Exact quantiles over the clients of each round.",
                    [Query(focus("update_cosine"), "{{quantile}}")], x=x, bands=BANDS, low=-1, high=1, height=10),
        trend_panel("Mean cosine of every run", "Unweighted mean over the clients of each round.",
                    [Query(runs("update_cosine_mean"))], x=runs("round"), low=-1, high=1),
        trend_panel("Mean norm and distance of updates", "Unweighted means over the clients of each round.",
                    [Query(focus("update_norm_mean"), "norm"), Query(focus("update_distance_mean"), "distance")],
                    x=x, low=0),
    ))  # fmt: skip


def _worst() -> Row:
    x = focus("round")
    rank = "rank {{rank}}"
    by_rank = "max by (rank) ({})"
    columns = (("Drift", "top_client_drift"), ("Distance", "top_update_distance"), ("Cosine", "lowest_update_cosine"))
    queries = []
    for name, metric in columns:
        queries.append(Query(by_rank.format(last(focus(f"{metric}_client"))), f"{name}: client"))
        queries.append(Query(by_rank.format(last(focus(metric))), name, decimals=4))
    return Row("Worst clients of the selected run", (
        table_panel("Worst clients in the newest round", "By rank, 1 the worst: the client's index in the population "
                    "and its value. The folder clients/ of the run has names and every round.", queries, key="rank",
                    renamed={"rank": "Rank"}, height=8),
        trend_panel("Largest drifts", "Values by rank, whichever client has them.",
                    [Query(focus("top_client_drift"), rank)], x=x, low=0),
        trend_panel("Clients that drift most", "Index of the client of each rank: a level row of dots is a client that "
                    "keeps its rank.", [Query(focus("top_client_drift_client"), rank)], x=x,
                    points=("rank .*",)),
        trend_panel("Largest distances", "Of an update from the weighted mean update, by rank.",
                    [Query(focus("top_update_distance"), rank)], x=x, low=0),
        trend_panel("Lowest cosines", "Of an update with the aggregate, by rank: below 0 it is opposed.",
                    [Query(focus("lowest_update_cosine"), rank)], x=x, low=-1, high=1),
    ))  # fmt: skip


def _layers() -> Row:
    layer = "{{layer}}"
    return Row("Layers of the selected run", (
        series_panel("Dispersion by layer", "Update dispersion within each layer; the layers add up to the whole.",
                     [Query(focus("layer_update_dispersion"), layer)], stacked=True, low=0),
        trend_panel("Pseudo-gradient norm by layer", "Norm of the aggregated update within each layer.",
                    [Query(focus("layer_pseudo_gradient_norm"), layer)], x=focus("round"), scale="log"),
    ))  # fmt: skip
