"""Every query of the dashboards, on a real Prometheus with real runs: it returns the values of the record.

The runs are in the database by remote write; one of them also as an OpenMetrics file converted into blocks.
Skipped where Prometheus is not installed (Debian, Ubuntu: apt install prometheus).
"""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import pytest
from needs import needs_prometheus
from prometheus_servers import free_port
from promql_truth import Answers
from record_truth import Truth, Values

from clients.core.population import Population
from clients.sources.custom import custom_population
from dashboards.grafana import promql
from dashboards.grafana.build import DASHBOARDS, FOLDER
from dashboards.grafana.promql import ROUND_0
from dashboards.prometheus import Role, running, runs
from server.sinks.export import read_recorded, to_remote_write, write_openmetrics
from simulator.runs.run import simulate
from simulator.scenario.sections import load_scenario
from tests.support.made_records import city_of, rewrite

pytestmark = needs_prometheus

MODELS = {name: json.loads((FOLDER / f"{name}.json").read_text("utf-8")) for name in DASHBOARDS}
RUNS_MODELS = {name: model for name, model in MODELS.items() if "fedscape-runs" in model["tags"]}
QUERIES = [
    pytest.param(target, id=f"{name}: {panel['title']}: {target['refId']}")
    for name, model in RUNS_MODELS.items()
    for panel in model["panels"]
    for target in panel.get("targets", ())
] + [
    pytest.param(note, id=f"{name}: annotation {note['name']}")
    for name, model in RUNS_MODELS.items()
    for note in model["annotations"].get("list", ())
    if "expr" in note
]

DIGITS = (
    "run.rounds=12", "engine.kind=stacked", "model.kind=softmax", "model.hidden=", "model.activation=",
    "model.initialisation=", "model.dropout=", "model.norm=", "model.groups=", "partition.clients=12",
    "algorithm.cohort=6", "local.local_epochs=1", "evaluation.federated_every=1", "evaluation.gradient_every=2",
    "evaluation.objective_every=4", "evaluation.test_every=5",
    "convergence.stop=any", "convergence.min_rounds=12", "convergence.target.at_least=0.3", "convergence.target.hold=1",
    "convergence.agreement.at_least=0.5", "convergence.agreement.hold=2", "convergence.error_free.hold=2",
    "evaluation.baselines=false",
)  # fmt: skip
REGRESSION = (
    "run.rounds=12", "engine.kind=stacked", "model.kind=linear", "model.hidden=", "model.activation=",
    "model.initialisation=", "model.dropout=", "model.norm=", "model.groups=", "algorithm.cohort=4",
    "local.local_epochs=1", "evaluation.federated_every=3", "convergence.target.metric=validation_loss",
    "convergence.target.at_least=", "convergence.target.at_most=0.4", "convergence.plateau=", "convergence.agreement=",
    "convergence.gap.below=0.0001",
)  # fmt: skip


def linear() -> Population:
    """Return small linear regressions with the same solution."""

    def examples(k: int, n: int = 16) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng((5, k))
        x = random.normal(size=(n, 3)) * (1 + 0.1 * k)
        return x, x @ np.array([[1.0], [-2.0], [0.5]]) + 0.05 * random.normal(size=(n, 1))

    held_out = {"validation": examples(3, 64), "test": examples(4, 64)}
    return custom_population(examples, [16] * 6, outputs=1, task="regression", feature_shape=(3,), **held_out)


def in_a_city(folder: Path, copy: Path) -> None:
    """Copy a run's folder, and add faults, drifts and districts to its rounds."""
    shutil.copytree(folder, copy)
    rewrite(
        copy / "environment.json",
        lambda facts: (
            facts
            | {
                "run": facts["run"]
                | {"run_id": facts["run"]["run_id"] + "-city", "study": {"name": "study", "arm": "city"}}
            }
        ),
    )
    rewrite(copy / "rounds.jsonl", lambda line: line | city_of(line["round"]))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Run five scenarios, and copy one run with the values of a city: together they measure every metric."""
    root = tmp_path_factory.mktemp("runs")
    simulate(load_scenario("digits-label-skew", sets=DIGITS), out=root / "digits")
    simulate(load_scenario("quadratic-two-clients", sets=["run.rounds=20"]), out=root / "quadratic")
    simulate(load_scenario("digits-gan", sets=["run.rounds=5", "evaluation.test_every=2"]), out=root / "drawn")
    for name, rate in (("slow", 0.02), ("diverges", 1.0)):
        scenario = load_scenario("digits-label-skew", sets=[*REGRESSION, f"local.local_lr={rate}"])
        simulate(scenario, data=linear(), out=root / name)
    in_a_city(root / "digits", root / "city")
    assert {path.name for path in root.iterdir()} == {"digits", "quadratic", "drawn", "slow", "diverges", "city"}
    return sorted(root.iterdir())


@pytest.fixture(scope="module")
def truths(folders: list[Path]) -> list[Truth]:
    found = [Truth(folder) for folder in folders]
    assert {truth.outcome["outcome"] for truth in found} == {"converged", "diverged", "stopped"}
    return found


@pytest.fixture(scope="module", params=["remote write", "backfill"])
def database(
    request: pytest.FixtureRequest, folders: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Role]:
    """Start Prometheus in the role `runs` with the samples of all runs."""
    role, folder = runs(free_port()), tmp_path_factory.mktemp("prometheus")
    if request.param == "backfill":
        for path in folders:
            write_openmetrics(read_recorded(path), "round", folder / "openmetrics")
            made = ["promtool", "tsdb", "create-blocks-from", "openmetrics", folder / "openmetrics"]
            subprocess.run([*made, folder / "runs" / "data"], check=True, capture_output=True)
    with running([role], folder):
        if request.param == "remote write":
            for path in folders:
                to_remote_write(read_recorded(path), f"{role.url}/api/v1/write", "round")
        yield role


def query_api(role: Role, path: str, **parameters: object) -> list[Any]:
    """Return the result of a query; an error of the query raises."""
    with urlopen(f"{role.url}/api/v1/{path}?{urlencode(parameters)}", timeout=60) as response:
        found: list[Any] = json.load(response)["data"]["result"]
        return found


def by_labels(series: list[Any], points: str) -> dict[Any, Any]:
    """Return label sets, without the labels that no record has, and their points."""
    aside = ("__name__", "clock")
    return {frozenset((k, v) for k, v in one["metric"].items() if k not in aside): one[points] for one in series}


def given(role: Role, target: dict[str, Any], expr: str, last: int) -> dict[int, Values]:
    """Query as Grafana does, over the first ten minutes; return round -> label sets and values."""
    expr = expr.replace("$__range", "600s")
    if target.get("instant"):
        found = by_labels(query_api(role, "query", query=expr, time=ROUND_0 + 600), "value")
        return {last: {key: float(value) for key, (_, value) in found.items()}}
    series = query_api(role, "query_range", query=expr, start=ROUND_0, end=ROUND_0 + 600, step=1)
    rounds: dict[int, Values] = {r: {} for r in range(601)}
    for key, points in by_labels(series, "values").items():
        for moment, value in points:
            rounds[int(moment) - ROUND_0][key] = float(value)
    return rounds


def equal(found: Values, wanted: Values) -> bool:
    """Return whether all label sets and values agree up to rounding; nan equals nan."""
    return found.keys() == wanted.keys() and all(
        math.isclose(found[key], wanted[key], rel_tol=1e-12) or (math.isnan(found[key]) and math.isnan(wanted[key]))
        for key in wanted
    )


def filled(expr: str, truths: list[Truth]) -> Iterator[str]:
    """Fill in the dashboards' variables as Grafana does: all runs, and each of them as the selected run."""
    escaped = (re.sub(r"[|\\{}()*+?.^$\[\]]", r"\\\\\g<0>", truth.run_id) for truth in truths)
    expr = expr.replace("$run", f"({'|'.join(escaped)})")
    closely = [truth.run_id for truth in truths] if "$focus" in expr else [""]
    yield from (expr.replace("$focus", run_id) for run_id in closely)


@pytest.mark.parametrize("target", QUERIES)
def test_query_returns_the_values_of_the_record(database, truths, target):
    answers, anything, last = Answers(truths), False, max(truth.over for truth in truths)
    for expr in filled(target["expr"], truths):
        found = given(database, target, expr, last)
        rounds = (last,) if target.get("instant") else (1, 5, 10, last - 1, last)
        for r in rounds:
            wanted = answers.of(expr, r)
            assert equal(found[r], wanted), f"round {r} of {expr}"
        anything = anything or any(found.values())
    assert anything, "the query returns nothing for every run"


def test_arm_of_a_study_is_a_group_of_its_own(database, truths):
    """Two runs of one scenario, algorithm and seed are two groups, since one of them is of an arm."""
    loss, info = promql.runs("loss", split="validation"), promql.runs("run_info")
    (expr,) = filled(promql.over_seeds(0.5, loss, info), truths)
    groups = [key for key in given(database, {}, expr, 5)[5] if ("scenario", "digits-label-skew") in key]
    arms = [dict(key).get("arm") for key in groups if ("algorithm", "fedavg") in key]
    assert sorted(arms, key=str) == [None, "city"]


@pytest.mark.parametrize("name", RUNS_MODELS)
def test_variables_list_the_runs(database, truths, name):
    for variable in RUNS_MODELS[name]["templating"]["list"]:
        if variable["type"] != "query":
            continue
        selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]).groups()
        for other in ("scenario", "algorithm", "run"):
            selector = selector.replace(f"${other}", ".+")
        query = {"match[]": selector, "start": ROUND_0, "end": ROUND_0 + 600}
        with urlopen(f"{database.url}/api/v1/label/{label}/values?{urlencode(query)}") as response:
            offered = set(json.load(response)["data"])
        facts = "run_id" if label == "run_id" else label
        assert offered == {truth.facts[facts] for truth in truths}


def test_comparison_detects_a_wrong_value(database, truths):
    """The comparison finds a wrong value, a missing value and a value of another round."""
    expr = next(filled('fedscape_loss{run_id=~"$run",clock="round",split="validation"}', truths))
    found = given(database, {}, expr, 13)
    wanted = Answers(truths).of(expr, 5)
    assert len(wanted) >= 2
    assert equal(found[5], wanted)
    assert not equal(found[6], wanted)
    assert not equal(found[5], {key: value * (1 + 1e-9) for key, value in wanted.items()})
    assert not equal(found[5], dict(list(wanted.items())[1:]))
