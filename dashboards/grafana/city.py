"""What went wrong with the data, where and when, and did drift and loss feel it?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as board

from dashboards.grafana.frame import Row, marked, runs_dashboard
from dashboards.grafana.panels import series_panel, tiles_panel, trend_panel
from dashboards.grafana.parts import Ask
from dashboards.grafana.promql import a_run, begins, focus, last, runs
from dashboards.grafana.tables import against_panel, table_panel

FAULT, DRIFT, DISTRICT = "{{fault}}", "{{drift}}", "{{district}}"
_ON_THE_RIGHT = {"client drift": "short", "validation loss": "none"}
"""Units that differ give each an axis of its own."""


def city() -> board.Dashboard:
    """Return the dashboard."""
    why = "Faults realised in the data against client drift and loss, concept drift, and how each district fares."
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
    asks = [Ask(by_fault.format(last(focus(metric))), name, unit, digits) for name, metric, unit, digits in columns]
    loss, drift = (
        Ask(focus("loss", split="validation"), "validation loss"),
        Ask(focus("client_drift_mean"), "client drift"),
    )
    return Row("Faults of the run looked at closely", (
        trend_panel("Faults against drift and loss, $focus", "Share of the cohort's readings or labels that each fault "
                    "changed (left), with client drift and validation loss (right), round by round.",
                    [Ask(focus("fault_changed_share"), FAULT), drift, loss], x=x, unit="percentunit",
                    right=_ON_THE_RIGHT, low=0, width=24, height=10),
        series_panel("Drift and loss with what happened", "The same on a time axis (a second is a round): where a "
                     "fault or a concept drift begins is marked.", [drift, loss], right={"validation loss": "none"}),
        trend_panel("Clients touched", "Clients of the cohort whose data each fault changed, and (dots) all of it that "
                    "answered.", [Ask(focus("fault_clients"), FAULT), Ask(focus("respondents"), "respondents")], x=x,
                    points=("respondents",), low=0),
        trend_panel("Effect", "Each fault's own measure of what it did, mean over the clients it touched: compare a "
                    "fault with itself, not with others.", [Ask(focus("fault_effect"), FAULT)], x=x),
        table_panel("Faults in the newest round", "As the last round that had them realised them.", asks, key="fault",
                    renamed={"fault": "Fault"}, width=12),
    ))  # fmt: skip


def _concept_drift() -> Row:
    x = focus("round")
    level = Ask(focus("concept_drift_level"), DRIFT)
    return Row("Concept drift of the run looked at closely", (
        trend_panel("Level, $focus", "0: the data are as at the start; 1: they have changed as far as they will. Mean "
                    "over the cohort.", [level], x=x, low=0, high=1),
        trend_panel("Clients reached", "Clients of the cohort whose data have begun to change.",
                    [Ask(focus("concept_drift_clients"), DRIFT)], x=x, low=0),
        trend_panel("Level beside accuracy", "Level (left) and validation accuracy (right): whether it falls as the "
                    "data move, and comes back.",
                    [level, Ask(focus("accuracy_ratio", split="validation"), "validation accuracy")], x=x, low=0,
                    high=1, right={"validation accuracy": "percentunit"}),
        trend_panel("Level beside loss", "Level (left) and validation loss (right).",
                    [level, Ask(focus("loss", split="validation"), "validation loss")], x=x, low=0,
                    right={"validation loss": "none"}),
    ))  # fmt: skip


def _districts() -> Row:
    tile = "A row a district, a tile a round; blank: nobody of it answered."
    by_district = "max by (district) ({})"
    columns = (("Respondents", "district_respondents", "", None), ("Training loss", "district_train_loss", "", 4),
               ("Client drift", "district_client_drift", "", 4),
               ("Share changed", "district_changed_share", "percentunit", 2))  # fmt: skip
    asks = [Ask(by_district.format(last(focus(metric))), name, unit, digits) for name, metric, unit, digits in columns]
    return Row("Districts of the run looked at closely", (
        tiles_panel("Client drift by district, $focus", f"Mean over its clients. {tile}",
                    Ask(focus("district_client_drift"), DISTRICT), low=0),
        tiles_panel("Share changed by faults", f"Of the readings of its clients. {tile}",
                    Ask(focus("district_changed_share"), DISTRICT), unit="percentunit", low=0, high=1),
        tiles_panel("Training loss by district", f"Mean over its clients. {tile}",
                    Ask(focus("district_train_loss"), DISTRICT)),
        series_panel("Respondents by district", "Clients whose update came back: a gap is a district that an outage or "
                     "a power cut took away.", [Ask(focus("district_respondents"), DISTRICT)], stacked=True, low=0),
        table_panel("Districts as they were last", "In the last round in which anyone of a district answered.", asks,
                    key="district", renamed={"district": "District"}),
    ))  # fmt: skip


def _every_run() -> Row:
    x = runs("round")
    return Row("All chosen runs", (
        against_panel("Faults against drift", "Each point is a round: share changed by the fault that changed most, "
                      "and client drift. Runs with and without a fault lie apart where it matters.",
                      Ask(a_run(runs("fault_changed_share")), "share changed"),
                      Ask(a_run(runs("client_drift_mean")), "client drift")),
        trend_panel("Client drift of every run", "Mean over the clients of each round.",
                    [Ask(runs("client_drift_mean"))], x=x),
        trend_panel("Validation loss of every run", "On held-out examples.", [Ask(runs("loss", split="validation"))],
                    x=x),
        trend_panel("Largest share changed", "By the fault that changed most.",
                    [Ask(a_run(runs("fault_changed_share")))], x=x, unit="percentunit", low=0, high=1),
    ))  # fmt: skip
