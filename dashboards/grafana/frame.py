"""The frame of every dashboard: variables, time range, links and annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.models import common as shared
from grafana_foundation_sdk.models import dashboard as model

from dashboards.grafana.names import LIVE_UID, RUNS_UID, TAG
from dashboards.grafana.parts import SOURCE
from dashboards.grafana.promql import ROUND_0, runs

RANGES = (50, 200, 600, 3600, 10_000)
"""Ranges of rounds in the time picker; a dashboard opens with 600."""


@dataclass(frozen=True)
class Row:
    """A heading with panels under it."""

    title: str
    panels: tuple[Any, ...]


def runs_dashboard(
    uid: str, title: str, why: str, rows: Sequence[Row], *, focus: bool = True, annotated: bool = True,
    notes: Sequence[board.AnnotationQuery] = (),
) -> board.Dashboard:  # fmt: skip
    """Return a dashboard over recorded rounds, on the round clock.

    Args:
        uid: fixed, for links.
        title: a few words.
        why: its description.
        rows: from the top.
        focus: whether some panels show a single run.
        annotated: whether events are drawn into panels with a time axis.
        notes: events that only this dashboard has.
    """
    frame = _frame(uid, title, why, "runs").time(_moment(0), _moment(600)).refresh("")
    frame = frame.timepicker(_rounds_picker())
    for variable in _variables("fedscape runs", RUNS_UID, clock='clock="round"', focus=focus):
        frame = frame.with_variable(variable)
    for note in (*(_annotations() if annotated else ()), *notes):
        frame = frame.annotation(note)
    frame = frame.link(
        board.DashboardLink("Dashboards").type(model.DashboardLinkType.DASHBOARDS).tags([f"{TAG}-runs"])
        .icon("external link").tooltip("The same runs in other dashboards").include_vars(True).keep_time(True)
    )  # fmt: skip
    frame = frame.link(_link("Live health", "/d/fedscape-federation-health?${run:queryparam}", "Runs in progress"))
    return _filled(frame, rows)


def live_dashboard(uid: str, title: str, why: str, rows: Sequence[Row]) -> board.Dashboard:
    """Return a dashboard over scraped runs, on wall time."""
    frame = _frame(uid, title, why, "live").time("now-15m", "now").refresh("5s")
    for variable in _variables("fedscape live", LIVE_UID, clock="", focus=False):
        frame = frame.with_variable(variable)
    for name, words in (("fedscape-convergence", "Convergence"), ("fedscape-client-drift", "Client drift")):
        frame = frame.link(_link(words, f"/d/{name}?${{run:queryparam}}", "The same runs by round"))
    return _filled(frame, rows)


def _frame(uid: str, title: str, why: str, role: str) -> board.Dashboard:
    tags = [TAG, f"{TAG}-{role}"]
    frame = board.Dashboard(f"fedscape: {title}").uid(uid).description(why).tags(tags).timezone("utc")
    return frame.tooltip(model.DashboardCursorSync.CROSSHAIR).editable().preload(False)


def _filled(frame: board.Dashboard, rows: Sequence[Row]) -> board.Dashboard:
    """Lay the panels out, numbered so that links can name them."""
    number = 0
    for row in rows:
        number += 1
        frame = frame.with_row(board.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            frame = frame.with_panel(panel.id(number))
    return frame


def _variables(source: str, uid: str, *, clock: str, focus: bool) -> list[Any]:
    """Return the variables: each narrows the next."""
    chosen = model.VariableOption(selected=True, text=source, value=uid)
    database = board.DatasourceVariable("datasource").label("Data source").type("prometheus").current(chosen)
    narrowed = ",".join(filter(None, (clock, 'scenario=~"$scenario"', 'algorithm=~"$algorithm"')))
    found: list[Any] = [
        database,
        _variable("scenario", "Scenario", f"label_values(fedscape_run_info{{{clock}}}, scenario)"),
        _variable(
            "algorithm",
            "Algorithm",
            f'label_values(fedscape_run_info{{{clock}{"," * bool(clock)}scenario=~"$scenario"}}, algorithm)',
        ),
        _variable("run", "Runs", f"label_values(fedscape_run_info{{{narrowed}}}, run_id)"),
    ]
    if focus:
        query = 'label_values(fedscape_round{clock="round",run_id=~"$run"}, run_id)'
        found.append(_variable("focus", "Selected run", query, several=False))
    return found


def _variable(name: str, label: str, query: str, *, several: bool = True) -> board.QueryVariable:
    """Return a variable whose choices come from the database."""
    variable = board.QueryVariable(name).label(label).query(query).datasource(SOURCE)
    variable = variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(model.VariableSort.NATURAL_ASC)
    if several:
        everything = model.VariableOption(selected=True, text=["All"], value=["$__all"])
        variable = variable.multi(True).include_all(True).current(everything)
    return variable


def _annotations() -> list[board.AnnotationQuery]:
    """Return the annotations of panels with a time axis: neighbouring rounds become a region."""
    drift = runs("client_drift_mean")
    usual = f"avg_over_time({drift}[9500ms] offset 1s)"
    return [
        marked("Converged", "green", f"{runs('run_state', state='converged')} == 1", "run {{run_id}}"),
        marked("Diverged", "red", f"{runs('run_state', state='diverged')} == 1", "run {{run_id}}"),
        marked("Jump of client drift", "orange", f"{drift} > 1.5 * {usual}", "client drift of run {{run_id}}"),
        _pushed("Notes of runs", "blue"),
    ]


def marked(name: str, colour: str, expr: str, text: str, *labels: str) -> board.AnnotationQuery:
    """Return an annotation wherever a query gives a value above 0, tagged with the run and other labels."""
    note = board.AnnotationQuery().name(name).enable(True).icon_color(colour).datasource(SOURCE)
    return note.expr(expr).step("1s").title_format(name).text_format(text).tag_keys(",".join(("run_id", *labels)))


def _pushed(name: str, colour: str) -> board.AnnotationQuery:
    """Return the annotations that `fedscape dashboards push --run` made for the chosen runs."""
    grafana = shared.DataSourceRef(type_val="grafana", uid="-- Grafana --")
    target: Any = board.AnnotationTarget().limit(100).match_any(True).tags(["$run"]).type("tags")
    note = board.AnnotationQuery().name(name).enable(True).icon_color(colour).datasource(grafana)
    return note.type("tags").target(target)


def _rounds_picker() -> board.TimePicker:
    """Offer ranges in rounds."""
    choices: list[Any] = [
        board.TimeOption().display(f"{n:,} rounds").from_val(_moment(0)).to(_moment(n)) for n in RANGES
    ]
    return board.TimePicker().quick_ranges(choices)


def _moment(round_index: int) -> str:
    """Return the moment of a round, in the time picker's format.

    Example:
        >>> _moment(600)
        '2000-01-01T00:10:00.000Z'
    """
    moment = datetime.fromtimestamp(ROUND_0 + round_index, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _link(title: str, url: str, why: str) -> board.DashboardLink:
    return board.DashboardLink(title).type(model.DashboardLinkType.LINK).url(url).icon("dashboard").tooltip(why)
