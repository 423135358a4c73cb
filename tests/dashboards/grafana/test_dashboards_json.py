"""The committed dashboards: they equal what the code builds, use metrics that exist, and are readable."""

import copy
import json
import re
from typing import Any

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana.build import DASHBOARDS, FOLDER, NOT_SHOWN, built, text_of
from dashboards.grafana.promql import focus, live, runs
from server.metrics.table import METRICS, series_names

MODELS = {name: json.loads((FOLDER / f"{name}.json").read_text("utf-8")) for name in DASHBOARDS}
PANELS = [
    pytest.param(model, panel, id=f"{name}: {panel['title']}")
    for name, model in MODELS.items()
    for panel in model["panels"]
    if panel["type"] != "row"
]
NOT_OURS = {"up", "ALERTS"}
"""Series that Prometheus itself adds."""


@pytest.mark.parametrize("name", DASHBOARDS)
def test_committed_json_equals_what_the_code_builds(name):
    assert (FOLDER / f"{name}.json").read_text("utf-8") == text_of(built(name)), "run `make dashboards`"


def test_folder_has_no_other_file():
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.json" for name in DASHBOARDS}


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    """Return the paths that `after` lacks or has with another value; additional keys are ignored."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            part
            for key, value in before.items()
            for part in (lost(value, after[key], f"{path}.{key}") if key in after else [f"{path}.{key}"])
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [part for i, (a, b) in enumerate(zip(before, after, strict=True)) for part in lost(a, b, f"{path}[{i}]")]
    return [] if before == after else [path]


def round_trip(model: dict[str, Any]) -> dict[str, Any]:
    plugins.register_default_plugins()
    again: dict[str, Any] = json.loads(JSONEncoder().encode(Dashboard.from_json(model)))
    return again


@pytest.mark.parametrize("name", DASHBOARDS)
def test_models_of_grafana_know_every_key(name):
    assert MODELS[name]["id"] is None
    assert lost(MODELS[name], round_trip(MODELS[name])) == [".id"]  # null, which the models leave out


def test_round_trip_finds_a_misspelt_key():
    model = copy.deepcopy(MODELS["convergence"])
    panel = next(panel for panel in model["panels"] if panel["type"] == "trend")
    panel["options"]["xfield"] = panel["options"].pop("xField")
    panel["targets"][1]["legend"] = "x"
    found = lost(model, round_trip(model))
    assert len(found) == 3
    assert any(path.endswith("options.xfield") for path in found)
    assert any(path.endswith("targets[1].legend") for path in found)


def expressions(model: dict[str, Any]) -> list[str]:
    """Return every query of a dashboard: panels', annotations' and variables'."""
    of_panels = [target["expr"] for panel in model["panels"] for target in panel.get("targets", ())]
    of_notes = [note["expr"] for note in model["annotations"].get("list", ()) if "expr" in note]
    return of_panels + of_notes + [v["query"] for v in model["templating"]["list"] if v["type"] == "query"]


def metrics_in(expression: str) -> set[str]:
    """Return the names of the series that an expression selects."""
    return set(re.findall(r"\b([a-zA-Z_:][\w:]*)\{", expression))


KNOWN = {name for metric in METRICS.values() for name in series_names(metric)}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_queried_metric_exists(name):
    queried = {metric for expression in expressions(MODELS[name]) for metric in metrics_in(expression)}
    assert queried
    assert queried - KNOWN <= NOT_OURS


def test_every_metric_is_shown_or_listed_as_not_shown():
    queried = {metric for model in MODELS.values() for e in expressions(model) for metric in metrics_in(e)}
    missing = {m.full_name for m in METRICS.values() if not queried & set(series_names(m))}
    assert missing == set(NOT_SHOWN)
    assert all(NOT_SHOWN.values())


@pytest.mark.parametrize("bad", ["losses", "loss_bucket", "client_drift_distribution"])
def test_build_refuses_a_metric_that_does_not_exist(bad):
    with pytest.raises(AssertionError, match="not in the metric table"):
        runs(bad)


def test_build_refuses_an_unscraped_metric_on_a_live_dashboard():
    assert live("round")
    with pytest.raises(AssertionError, match="not on /metrics"):
        live("layer_update_dispersion")


def test_build_refuses_a_label_that_the_metric_lacks():
    with pytest.raises(AssertionError, match="has the labels"):
        focus("loss", phase="train")


@pytest.mark.parametrize(("model", "panel"), PANELS)
def test_panel_has_a_description_a_unit_and_queries(model, panel):
    assert len(panel["description"]) > 15
    assert panel["description"][-1] == "."
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    assert panel["interval"] == "1s"
    assert panel["maxDataPoints"] < 11_000


@pytest.mark.parametrize(("model", "panel"), PANELS)
def test_panel_queries_the_chosen_data_source_for_the_chosen_runs(model, panel):
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["datasource"] == source
    names = {variable["name"] for variable in model["templating"]["list"]}
    for target in panel["targets"]:
        assert target["datasource"] == source
        assert set(re.findall(r"\$\{?(\w+)", target["expr"])) - {"__range", "__rate_interval"} <= names
        for metric, labels in re.findall(r"(fedscape_\w+)\{([^}]*)\}", target["expr"]):
            chosen = 'run_id=~"$run"' in labels or 'run_id="$focus"' in labels
            assert chosen, f"{metric} is not restricted to the chosen runs"
            on_rounds = "fedscape-runs" in model["tags"]
            assert ('clock="round"' in labels) == on_rounds, f"{metric} has the wrong clock"


@pytest.mark.parametrize(("model", "panel"), [p for p in PANELS if p.values[1]["type"] == "trend"])
def test_trend_joins_its_queries_on_the_round(model, panel):
    assert panel["targets"][0]["legendFormat"] == panel["options"]["xField"] == "round"
    assert panel["transformations"] == [{"id": "joinByField", "options": {"byField": "Time", "mode": "outer"}}]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_dashboard_has_tags_and_links(name):
    model = MODELS[name]
    assert model["uid"] == f"fedscape-{name.replace('_', '-')}"
    assert "fedscape" in model["tags"]
    assert model["links"]
    for link in model["links"]:
        known = {other["uid"] for other in MODELS.values()}
        assert link["type"] == "dashboards" or re.match(r"/d/([\w-]+)", link["url"])[1] in known
    by_name = {variable["name"]: variable for variable in model["templating"]["list"]}
    assert {"datasource", "scenario", "algorithm", "run"} <= set(by_name)
    assert by_name["datasource"]["type"] == "datasource"
    assert all(by_name[v]["multi"] and by_name[v]["includeAll"] for v in ("scenario", "algorithm", "run"))
    numbers = [panel["id"] for panel in model["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_events_are_annotated():
    assert {"Fault begins", "Concept drift begins"} <= {note["name"] for note in MODELS["city"]["annotations"]["list"]}
    for name in ("convergence", "client_drift", "city"):
        notes = {note["name"]: note for note in MODELS[name]["annotations"]["list"]}
        assert {"Converged", "Diverged", "Jump of client drift"} <= set(notes)
        assert all(note["step"] == "1s" for note in notes.values() if "expr" in note)
        assert any(panel["type"] == "timeseries" for panel in MODELS[name]["panels"])  # where they can be drawn


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_do_not_overlap(name):
    taken: set[tuple[int, int]] = set()
    for panel in MODELS[name]["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize(("model", "panel"), [p for p in PANELS if p.values[1]["type"] == "table"])
def test_table_columns_have_the_names_of_the_data_source(model, panel):
    """The column of one query is `Value`, those of several are `Value #A` and so on; each is renamed or left out."""
    organize = next(step["options"] for step in panel["transformations"] if step["id"] == "organize")
    several = len(panel["targets"]) > 1
    columns = {f"Value #{target['refId']}" if several else "Value" for target in panel["targets"]}
    renamed = {name for name in organize["renameByName"] if name.startswith("Value")}
    dropped = {name for name in organize["excludeByName"] if name.startswith("Value")}
    assert renamed | dropped == columns
    assert not renamed & dropped
    for target in panel["targets"]:  # rows are joined on common labels, so a query must not return the metric's name
        assert re.match(r"(max|min|count|quantile) by \(|time\(\) - max by \(", target["expr"])
