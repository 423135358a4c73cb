"""Which scenarios share an engine: those whose clients do the same operations on the same shapes."""

from __future__ import annotations

from typing import Any

import pytest

from server.algorithms.build import build_algorithm, local_for
from server.algorithms.table import ALGORITHMS
from simulator.scenario.sections import Scenario, load_scenario
from simulator.studies.pinning import engine_group

SAME: list[dict[str, Any]] = [
    {"local.local_lr": 0.3},
    {"local.schedule": {"kind": "cosine", "rounds": 50}},
    {"algorithm.server_lr": 0.5},
    {"algorithm.weighting": "uniform"},
    {"algorithm.kind": "fedadam", "algorithm.tau": 0.1},
    {"algorithm.kind": "fedprox", "algorithm.mu": 0.0},
    {"faults.a": {"kind": "noise"}},
]
OTHER: list[dict[str, Any]] = [
    {"local.batch_size": 4},
    {"local.local_epochs": 2},
    {"local.optimizer": "adam"},
    {"local.momentum": 0.5, "local.optimizer": "momentum"},
    {"local.l2": 0.1},
    {"algorithm.cohort": 7},
    {"algorithm.kind": "fedprox"},
    {"algorithm.kind": "fedsgd", "local.local_epochs": None},
    {"model.hidden": [8]},
    {"partition.clients": 50},
    {"run.dtype": "float64"},
    {"run.rounds": 9},
    {"engine.kind": "plain"},
]


def scenario(**sets: Any) -> Scenario:
    return load_scenario("digits-label-skew", sets=sets)


@pytest.mark.parametrize("change", SAME, ids=str)
def test_change_of_numbers_alone_keeps_the_engine(change: dict[str, Any]) -> None:
    assert engine_group(scenario(**change)) == engine_group(scenario())


@pytest.mark.parametrize("change", OTHER, ids=str)
def test_change_of_work_or_shapes_has_an_engine_of_its_own(change: dict[str, Any]) -> None:
    assert engine_group(scenario(**change)) != engine_group(scenario())


def test_weights_of_a_rule_share_an_engine() -> None:
    for kind, key in (("fedprox", "mu"), ("feddyn", "alpha")):
        one, two = (engine_group(scenario(**{"algorithm.kind": kind, f"algorithm.{key}": v})) for v in (0.1, 0.2))
        assert one == two


def test_algorithms_that_share_an_engine_have_the_same_rule_and_local_work() -> None:
    """For every row of the table: a new algorithm that is put into a wrong group fails here."""
    groups: dict[str, set[tuple[str, Any]]] = {}
    for kind in ALGORITHMS:
        more = {"local.local_epochs": None} if kind == "fedsgd" else {}
        made = scenario(**{"algorithm.kind": kind, **more})
        rule = build_algorithm(made.algorithm, made.local).local_work.rule.name
        groups.setdefault(engine_group(made), set()).add((rule, local_for(made.algorithm, made.local)))
    assert all(len(found) == 1 for found in groups.values()), groups
    assert len(groups) < len(list(ALGORITHMS))
