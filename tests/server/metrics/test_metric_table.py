"""The metric table has names by Prometheus' conventions, bounded labels, and a value of every metric in some run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from run_folders import digits

import fedscape as fs
from clients.sources.custom import custom_population
from server.metrics.page import PAGE, page
from server.metrics.readers import (
    MOST_CLASSES,
    MOST_DISTRICTS,
    MOST_LAYERS,
    MOST_RANKS,
    by_class,
    by_layer,
    criterion_state,
    ranked,
)
from server.metrics.samples import RunFold, Sample, exporter_samples, held, outcome_samples, round_samples, run_samples
from server.metrics.table import EXPORTER, METRICS, OUTCOME, ROUND, RUN, Metric, series_names
from simulator.scenario.sections import Scenario, load_scenario
from tests.support.made_records import city_of

ALL = (*RUN, *ROUND, *OUTCOME, *EXPORTER)
BOUNDED = {
    *("bound", "class", "criterion", "direction", "layer", "le", "quantile", "rank", "sink", "split", "state"),
    *("statistic", "engine", "tile", "compiled", "scenario", "algorithm", "seed", "version", "model", "data"),
    *("partition", "fault", "drift", "district", "worker", "condition", "study", "arm"),
}


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_names_follow_the_conventions(metric: Metric) -> None:
    assert re.fullmatch(r"fedscape_[a-z][a-z0-9_]*[a-z0-9]", metric.full_name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.name.endswith("_info") == (metric.kind == "info")
    assert metric.name.removesuffix("_total").endswith(metric.unit)
    assert metric.unit in ("", "bytes", "seconds", "ratio")
    assert set(metric.labels) <= BOUNDED
    assert metric.help.endswith(".")
    for suffix in ("seconds", "bytes", "ratio"):
        if metric.unit != suffix:
            assert not metric.name.removesuffix("_total").endswith(f"_{suffix}")


def test_no_two_metrics_share_a_series() -> None:
    names = [name for metric in METRICS.values() for name in series_names(metric)]
    families = [metric.full_name.removesuffix("_total").removesuffix("_info") for metric in METRICS.values()]
    assert len(set(names)) == len(names)
    assert len(set(families)) == len(families)
    twice = [metric for metric in ALL if METRICS[metric.full_name] is not metric]
    assert [metric.name for metric in twice] == ["run_state"]


def test_page_is_current() -> None:
    if not PAGE.parent.is_dir():
        pytest.skip("docs/ is not installed beside the package")
    assert PAGE.read_text("utf-8") == page(), "run python -m server.metrics.page"


class _Facts:
    def run_started(self, facts: dict[str, Any]) -> None:
        self.facts = facts


def samples_of(scenario: Scenario, **given: Any) -> list[Sample]:
    kept = _Facts()
    run = fs.simulate(scenario, record=False, observers=[kept], **given)
    fold, found = RunFold(), run_samples(kept.facts)
    for line in run.rounds.lines:
        found += round_samples(fold.observe(line))
    return found + outcome_samples(run.outcome)


@pytest.fixture(scope="module")
def given_by_runs() -> list[Sample]:
    """Return all samples of a classification, a regression, an objective and a GAN with every measurement on."""
    classification = digits(
        "run.rounds=26",
        "local.local_lr=0.3",
        "evaluation.baselines=true",
        "evaluation.gradient_every=5",
        "evaluation.objective_every=5",
        "evaluation.test_every=5",
        "convergence.gap.below=0.1",
        "convergence.error_free.hold=3",
        "convergence.target.at_least=0.2",
        "engine.workers=2",
    )

    def client(k: int) -> tuple[np.ndarray, np.ndarray]:
        x = np.random.default_rng(k).normal(size=(20, 3))
        return x, x @ np.array([[1.0], [-1.0], [0.5]]) + k

    six = [client(k) for k in range(6)]
    regression = fs.custom_population(client, [20] * 4, outputs=1, task="regression", validation=six[4], test=six[5])
    changes = ["data=", "model.kind=linear", "model.start=", "run.rounds=4", "local.local_lr=0.01"]
    scenario = load_scenario("quadratic-two-clients", sets=changes)
    return [
        *samples_of(classification),
        *samples_of(scenario, data=regression),
        *samples_of(load_scenario("quadratic-two-clients")),
        *samples_of(load_scenario("digits-gan", sets=["run.rounds=4", "evaluation.test_every=4"])),
        *round_samples(RunFold().observe({"round": 1, "rejected": 2, "late_replies": 1, "repeats": 3})),
        *(sample for r in range(16) for sample in round_samples(RunFold().observe({"round": r} | city_of(r)))),
    ]


def test_metric_has_samples_in_some_run(given_by_runs: list[Sample]) -> None:
    expected = {name for metric in METRICS.values() if metric.source != "exporter" for name in series_names(metric)}
    assert expected - {sample.name for sample in given_by_runs} == set()


def test_no_metric_is_always_zero(given_by_runs: list[Sample]) -> None:
    moved = {sample.name for sample in given_by_runs if sample.value != 0}
    assert {sample.name for sample in given_by_runs} - moved <= {
        "fedscape_failures",
        "fedscape_client_failures_total",
        "fedscape_overfitting",
    }


def test_exporters_metrics_are_read_by_sink() -> None:
    state = {"sent": {"a": 5}, "refused": {"a": 4}, "dropped": {"a": 3}, "failed": {"a": 2}, "waiting": {"a": 1}}
    found = exporter_samples(state | {"memory": 7})
    assert {sample.name for sample in found} == {metric.full_name for metric in EXPORTER}
    assert sorted(sample.value for sample in found) == [1, 2, 3, 4, 5, 7]
    assert all(sample.labels == (("sink", "a"),) for sample in found if sample.value != 7)


def values(read: Callable[[Any], Iterable[tuple[tuple[str, ...], float]]], value: Any) -> dict[str, float]:
    return {words[0]: number for words, number in read(value)}


def test_deep_models_keep_their_sums_and_no_more_than_16_layers() -> None:
    layers = {f"l{i}": {"update_dispersion": float(i), "aggregate_norm": float(i)} for i in range(40)}
    dispersion = values(by_layer("update_dispersion"), layers)
    norms = values(by_layer("aggregate_norm", squared=True), layers)
    assert len(dispersion) == len(norms) == MOST_LAYERS
    assert sum(dispersion.values()) == sum(range(40))
    assert np.isclose(sum(n**2 for n in norms.values()), sum(i**2 for i in range(40)))
    assert "rest" not in values(by_layer("aggregate_norm"), dict(list(layers.items())[:MOST_LAYERS]))


def test_ranks_and_classes_are_bounded() -> None:
    worst = [{"client": k, "name": str(k), "value": float(-k)} for k in range(9)]
    assert values(ranked("value"), worst) == {str(k + 1): float(-k) for k in range(MOST_RANKS)}
    assert values(ranked("client"), worst)["2"] == 1.0
    assert len(values(by_class, [0.5] * 100)) == MOST_CLASSES
    assert values(by_class, [0.5, None, 0.25]) == {"0": 0.5, "2": 0.25}


def of_a_city(name: str, samples: Iterable[Sample]) -> dict[str, float]:
    return {sample.labels[0][1]: sample.value for sample in samples if sample.name == f"fedscape_{name}"}


def test_named_values_of_a_round_are_read_by_name() -> None:
    found = round_samples(RunFold().observe({"round": 15} | city_of(15)))
    assert of_a_city("fault_changed_share", found) == {"stuck": 0.25, "noise.db": 0.115}
    assert of_a_city("fault_clients", found) == {"stuck": 2.0, "noise.db": 5.0}
    assert of_a_city("fault_effect", found) == {"stuck": 0.75, "noise.db": 12.5}
    assert of_a_city("concept_drift_level", found) == {"seasons": 0.25}
    assert of_a_city("concept_drift_clients", found) == {"seasons": 5.0}
    assert of_a_city("district_respondents", found) == {f"district {d}": 3.0 + d for d in range(4)}
    assert of_a_city("district_client_drift", found) == {f"district {d}": (1.0 + d) / 25.0 for d in range(4)}
    assert of_a_city("district_changed_share", found) == {f"district {d}": 0.25 * (d % 2) for d in range(4)}
    assert list(of_a_city("district_train_loss", found)) == [f"district {d}" for d in range(4)]


def test_line_without_faults_has_no_fault_samples() -> None:
    names = {sample.name for sample in round_samples(RunFold().observe({"round": 3, "train_loss": 1.0}))}
    assert not [name for name in names if "fault" in name or "district" in name or "concept" in name]


def test_districts_stay_bounded_and_keep_the_first_names() -> None:
    fold, shown = RunFold(), set()
    for r, first in enumerate((0, 20, 40, 10)):  # 30 of 70 districts respond in each round
        line = {"round": r, "districts": {f"d{i}": {"clients": i + 1} for i in range(first, first + 30)}}
        found = of_a_city("district_respondents", round_samples(fold.observe(line)))
        assert all(value == float(name[1:]) + 1 for name, value in found.items())
        shown |= set(found)
    assert shown == {f"d{i}" for i in range(MOST_DISTRICTS)}  # the first districts in the run are kept


@pytest.mark.parametrize(
    ("threshold", "held_rounds", "holds", "state"),
    [(float("nan"), 0, False, 0), (0.9, 0, False, 1), (0.9, 2, False, 2), (0.9, 3, True, 3)],
)
def test_criterion_has_four_states(threshold: float, held_rounds: int, holds: bool, state: float) -> None:
    status = {"threshold": threshold, "held": held_rounds, "holds": holds}
    assert values(criterion_state, {"target": status}) == {"target": state}


def test_fit_without_a_trend_does_not_show_an_earlier_fit() -> None:
    fitted = {"round": 5, "rate": {"factor": 0.9, "low": 0.8, "high": 1.0, "limit": 0.5}, "rounds_to_go": {"low": 1.0}}
    known = held(fitted, {"round": 10, "rate": {"no_trend": "it rises"}})
    found = {sample.name: sample.value for sample in round_samples(known)}
    assert np.isnan(found["fedscape_rate_factor"])
    assert np.isnan(found["fedscape_rounds_to_go"])
    unfitted = held(fitted, {"round": 6, "train_loss": 1.0})
    assert {s.labels[0][1]: s.value for s in round_samples(unfitted) if s.name == "fedscape_rate_factor"} == {
        "low": 0.8,
        "estimate": 0.9,
        "high": 1.0,
    }


def test_population_without_labels_has_no_label_skew() -> None:
    population = custom_population(lambda k: (np.ones((2, 1)), np.ones((2, 1))), [2, 2], outputs=1, task="regression")
    assert population.clients.label_counts is None
    names = {s.name for s in run_samples({"clients": 2, "label_emd": None})}
    assert "fedscape_label_emd" not in names
    assert "fedscape_population_clients" in names
