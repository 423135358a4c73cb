"""How far do clients drift apart, which ones, in which layers, and does the loss feel it?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as board

from dashboards.grafana.frame import Row, runs_dashboard
from dashboards.grafana.panels import Band, heat_panel, series_panel, trend_panel
from dashboards.grafana.parts import Ask
from dashboards.grafana.promql import a_run, focus, last, runs, this_round
from dashboards.grafana.tables import against_panel, table_panel

BANDS = (Band("0.95", "0.05"), Band("0.75", "0.25"))
_ROUND_BY_ROUND = "Each column is a round: how many clients of the cohort lie in each bucket."


def client_drift() -> board.Dashboard:
    """Return the dashboard."""
    why = (
        "How clients' updates spread and point apart: bands over clients, cosines, worst clients, layers, against loss."
    )
    rows = [_overview(), _bands(), _directions(), _worst(), _layers()]
    return runs_dashboard("fedscape-client-drift", "Client drift", why, rows)


def _overview() -> Row:
    x = runs("round")
    loss = Ask(a_run(runs("loss", split="validation")), "validation loss")
    return Row("All chosen runs", (
        trend_panel("Client drift", "Mean over clients of the mean squared distance from the broadcast model during "
                    "local work.", [Ask(runs("client_drift_mean"))], x=x),
        trend_panel("Update dispersion", "Weighted mean squared distance of the updates from their mean.",
                    [Ask(runs("update_dispersion"))], x=x),
        against_panel("Drift against loss", "Each point is a round: where drift grows while the loss stands still, "
                      "clients pull apart for nothing.", loss, Ask(a_run(runs("client_drift_mean")), "client drift")),
        series_panel("Drift with what happened", "Client drift on a time axis (a second is a round), with verdicts "
                     "and jumps by half marked.", [Ask(runs("client_drift_mean"))]),
        trend_panel("Gradient diversity", "Weighted squared norms of updates over the squared norm of their sum: "
                    "small where clients agree (Yin et al. 2018).", [Ask(runs("gradient_diversity"))], x=x),
        trend_panel("Gradient dissimilarity", "Of clients' true gradients at the broadcast model; measured in the "
                    "rounds that a scenario asks for.", [Ask(runs("gradient_dissimilarity"))], x=x),
    ))  # fmt: skip


def _bands() -> Row:
    x = focus("round")
    quantile = "{{quantile}}"
    return Row("Bands over the clients of the run looked at closely", (
        trend_panel("Client drift of $focus", "Exact quantiles over the clients of each round.",
                    [Ask(focus("client_drift"), quantile)], x=x, bands=BANDS, low=0),
        trend_panel("Distance from the mean update", "Exact quantiles over the clients of each round.",
                    [Ask(focus("update_distance"), quantile)], x=x, bands=BANDS, low=0),
        trend_panel("Norm of updates", "Exact quantiles over the clients of each round.",
                    [Ask(focus("update_norm"), quantile)], x=x, bands=BANDS, low=0),
        trend_panel("Drift beside loss", "Drift at the left, validation loss at the right.",
                    [Ask(focus("client_drift_mean"), "client drift"),
                     Ask(focus("loss", split="validation"), "validation loss")],
                    x=x, right={"validation loss": "none"}),
        heat_panel("Client drift by bucket", _ROUND_BY_ROUND,
                   Ask(this_round(focus("client_drift_distribution_bucket")), "{{le}}")),
        heat_panel("Distance by bucket", _ROUND_BY_ROUND,
                   Ask(this_round(focus("update_distance_distribution_bucket")), "{{le}}")),
    ))  # fmt: skip


def _directions() -> Row:
    x = focus("round")
    return Row("Do updates point the same way?", (
        heat_panel("Cosine with the aggregate, $focus", "Clients by the cosine of their update with the aggregate: "
                   "1 pulls with the others, below 0 against them. " + _ROUND_BY_ROUND,
                   Ask(this_round(focus("update_cosine_distribution_bucket")), "{{le}}"), height=10),
        trend_panel("Cosine, quantiles", "Exact quantiles over the clients of each round.",
                    [Ask(focus("update_cosine"), "{{quantile}}")], x=x, bands=BANDS, low=-1, high=1, height=10),
        trend_panel("Mean cosine of every run", "Unweighted mean over the clients of each round.",
                    [Ask(runs("update_cosine_mean"))], x=runs("round"), low=-1, high=1),
        trend_panel("Mean norm and distance of updates", "Unweighted means over the clients of each round.",
                    [Ask(focus("update_norm_mean"), "norm"), Ask(focus("update_distance_mean"), "distance")],
                    x=x, low=0),
    ))  # fmt: skip


def _worst() -> Row:
    x = focus("round")
    rank = "rank {{rank}}"
    by_rank = "max by (rank) ({})"
    columns = (("Drift", "top_client_drift"), ("Distance", "top_update_distance"), ("Cosine", "lowest_update_cosine"))
    asks = []
    for name, metric in columns:
        asks.append(Ask(by_rank.format(last(focus(f"{metric}_client"))), f"{name}: client"))
        asks.append(Ask(by_rank.format(last(focus(metric))), name, decimals=4))
    return Row("Worst clients of the run looked at closely", (
        table_panel("Worst clients in the newest round", "By rank, 1 the worst: the client's index in the population, "
                    "and its value. Names and every round are in the run's folder, clients/.", asks, key="rank",
                    renamed={"rank": "Rank"}, height=8),
        trend_panel("Largest drifts", "Values by rank, whoever they belong to.",
                    [Ask(focus("top_client_drift"), rank)], x=x, low=0),
        trend_panel("Who drifts most", "Index of the client of each rank: a level row of dots is a client that is "
                    "the worst again and again.", [Ask(focus("top_client_drift_client"), rank)], x=x,
                    points=("rank .*",)),
        trend_panel("Largest distances", "Of an update from the weighted mean update, by rank.",
                    [Ask(focus("top_update_distance"), rank)], x=x, low=0),
        trend_panel("Lowest cosines", "Of an update with the aggregate, by rank: below 0 it pulls the other way.",
                    [Ask(focus("lowest_update_cosine"), rank)], x=x, low=-1, high=1),
    ))  # fmt: skip


def _layers() -> Row:
    layer = "{{layer}}"
    return Row("Layers of the run looked at closely", (
        series_panel("Dispersion by layer", "Which layers clients disagree about; the layers add up to the whole.",
                     [Ask(focus("layer_update_dispersion"), layer)], stacked=True, low=0),
        trend_panel("Pseudo-gradient norm by layer", "Which layers still move.",
                    [Ask(focus("layer_pseudo_gradient_norm"), layer)], x=focus("round"), scale="log"),
    ))  # fmt: skip
