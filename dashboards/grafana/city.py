"""The dashboard City: faults, concept drift and districts beside client drift and loss."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as board

from dashboards.grafana.frame import Row, marked, runs_dashboard
from dashboards.grafana.panels import series_panel, tiles_panel, trend_panel
from dashboards.grafana.parts import Query
from dashboards.grafana.promql import a_run, begins, focus, last, runs
from dashboards.grafana.tables import against_panel, table_panel

FAULT, DRIFT, DISTRICT = "{{fault}}", "{{drift}}", "{{district}}"
_ON_THE_RIGHT = {"client drift": "short", "validation loss": "none"}
"""Two series with different units each get their own axis."""


def city() -> board.Dashboard:
    """Return the dashboard."""
    why = "Faults in the data beside client drift and loss, concept drift, and the districts."
    rows = [_faults(), _concept_drift(), _districts(), _every_run()]
    notes = [
        marked("Fault begins", "purple", begins(runs("fault_changed_share")), "{{fault}}, run {{run_id}}", "fault"),
        marked("Concept drift begins", "yellow", begins(runs("concept_drift_level")), "{{drift}}, run {{run_id}}",
               "drift"),
    ]  # fmt: skip
    return runs_dashboard("fedscape-city", "City", why, rows, notes=notes)


def _faults() -> Row:
    x = focus("round")
    by_fault = "max by (fault) ({})"
    columns = (("Share changed", "fault_changed_share", "percentunit", 2), ("Clients", "fault_clients", "", None),
               ("Effect", "fault_effect", "", 3))  # fmt: skip
    queries = [
        Query(by_fault.format(last(focus(metric))), name, unit, digits) for name, metric, unit, digits in columns
    ]
    loss, drift = (
        Query(focus("loss", split="validation"), "validation loss"),
        Query(focus("client_drift_mean"), "client drift"),
    )
    return Row("Faults of the selected run", (
        trend_panel("Faults against drift and loss, $focus", "Share of the cohort's readings or labels that each fault "
                    "changed (left), with client drift and validation loss (right), round by round.",
                    [Query(focus("fault_changed_share"), FAULT), drift, loss], x=x, unit="percentunit",
                    right=_ON_THE_RIGHT, low=0, width=24, height=10),
        series_panel("Drift and loss with events", "The same on a time axis (one second is one round), with "
                     "marks where a fault or a concept drift begins.", [drift, loss],
                     right={"validation loss": "none"}),
        trend_panel("Changed clients", "Clients of the cohort whose data each fault changed, and (dots) all its "
                    "respondents.", [Query(focus("fault_clients"), FAULT), Query(focus("respondents"),
                    "respondents")], x=x, points=("respondents",), low=0),
        trend_panel("Effect", "Each fault's own measure, mean over the clients it changed. Compare a fault with "
                    "itself, not with other faults.", [Query(focus("fault_effect"), FAULT)], x=x),
        table_panel("Faults in the newest round", "In the last round that had these faults.", queries, key="fault",
                    renamed={"fault": "Fault"}, width=12),
    ))  # fmt: skip


def _concept_drift() -> Row:
    x = focus("round")
    level = Query(focus("concept_drift_level"), DRIFT)
    return Row("Concept drift of the selected run", (
        trend_panel("Level, $focus", "0: the data as they were at the start; 1: the full change. Mean over the "
                    "cohort.", [level], x=x, low=0, high=1),
        trend_panel("Clients with drift", "Clients of the cohort whose data have begun to change.",
                    [Query(focus("concept_drift_clients"), DRIFT)], x=x, low=0),
        trend_panel("Level beside accuracy", "Level (left axis) and validation accuracy (right axis): whether it "
                    "falls as the data change, and recovers.",
                    [level, Query(focus("accuracy_ratio", split="validation"), "validation accuracy")], x=x, low=0,
                    high=1, right={"validation accuracy": "percentunit"}),
        trend_panel("Level beside loss", "Level (left axis) and validation loss (right axis).",
                    [level, Query(focus("loss", split="validation"), "validation loss")], x=x, low=0,
                    right={"validation loss": "none"}),
    ))  # fmt: skip


def _districts() -> Row:
    tile = "One row per district, one tile per round; blank: no client of it responded."
    by_district = "max by (district) ({})"
    columns = (("Respondents", "district_respondents", "", None), ("Training loss", "district_train_loss", "", 4),
               ("Client drift", "district_client_drift", "", 4),
               ("Share changed", "district_changed_share", "percentunit", 2))  # fmt: skip
    queries = [
        Query(by_district.format(last(focus(metric))), name, unit, digits) for name, metric, unit, digits in columns
    ]
    return Row("Districts of the selected run", (
        tiles_panel("Client drift by district, $focus", f"Mean over its clients. {tile}",
                    Query(focus("district_client_drift"), DISTRICT), low=0),
        tiles_panel("Share changed by faults", f"Of the readings of its clients. {tile}",
                    Query(focus("district_changed_share"), DISTRICT), unit="percentunit", low=0, high=1),
        tiles_panel("Training loss by district", f"Mean over its clients. {tile}",
                    Query(focus("district_train_loss"), DISTRICT)),
        series_panel("Respondents by district", "Clients whose update arrived. A gap is a district without any, as in "
                     "an "
                     "outage or a power cut.", [Query(focus("district_respondents"), DISTRICT)], stacked=True, low=0),
        table_panel("Last values by district", "In the last round in which a client of the district responded.",
                    queries, key="district", renamed={"district": "District"}),
    ))  # fmt: skip


def _every_run() -> Row:
    x = runs("round")
    return Row("All selected runs", (
        against_panel("Faults against drift", "Each point is a round: the share changed by the strongest fault, and "
                      "client drift. Runs with and without a fault separate where the fault matters.",
                      Query(a_run(runs("fault_changed_share")), "share changed"),
                      Query(a_run(runs("client_drift_mean")), "client drift")),
        trend_panel("Client drift of every run", "Mean over the clients of each round.",
                    [Query(runs("client_drift_mean"))], x=x),
        trend_panel("Validation loss of every run", "On the validation examples.", [Query(runs("loss",
                    split="validation"))], x=x),
        trend_panel("Largest share changed", "By the fault that changed the most.",
                    [Query(a_run(runs("fault_changed_share")))], x=x, unit="percentunit", low=0, high=1),
    ))  # fmt: skip
