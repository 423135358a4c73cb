"""Names of arms: only what differs, in words."""

from __future__ import annotations

import tomllib

import pytest

from dashboards.report.arm_names import arm_names, differing_keys, flat_scenario
from simulator.scenario.sections import load_scenario, to_toml


def flat(name: str, **sets: object) -> dict[str, object]:
    changes = {key.replace("__", "."): value for key, value in sets.items()}
    return flat_scenario(tomllib.loads(to_toml(load_scenario(name, sets=changes))))


def test_kind_is_its_value_alone() -> None:
    arms = [flat("digits-iid", algorithm__kind=kind) for kind in ("fedavg", "scaffold", "fedprox")]
    assert arm_names(arms) == ["fedavg", "scaffold", "fedprox"]


def test_keys_have_their_last_word_and_a_short_number() -> None:
    arms = [flat("digits-iid", local__local_lr=lr) for lr in (0.05, 0.001)]
    assert arm_names(arms) == ["local_lr 0.05", "local_lr 0.001"]


def test_numbers_that_differ_late_stay_apart() -> None:
    arms = [flat("digits-iid", local__local_lr=lr) for lr in (0.05, 0.0500001)]
    assert len(set(arm_names(arms))) == 2


def test_keys_that_end_alike_have_their_section() -> None:
    arms = [{"data.clients": 3, "partition.clients": 4}, {"data.clients": 5, "partition.clients": 6}]
    assert arm_names(arms) == ["data.clients 3, partition.clients 4", "data.clients 5, partition.clients 6"]


def test_fault_is_the_name_of_its_section() -> None:
    stuck = flat("city-traffic", faults__stuck_sensors={"kind": "stuck_at", "severity": 1.0, "share": 0.8})
    assert arm_names([flat("city-traffic"), stuck]) == ["without faults", "stuck sensors"]


def test_twins_of_the_built_in_scenarios_are_named_by_their_faults() -> None:
    names = ("city-traffic", "city-traffic-stuck", "city-traffic-kmh", "city-traffic-roadworks")
    assert arm_names([flat(name) for name in names]) == ["without faults and drifts", "frozen", "kmh", "roadworks"]


def test_same_fault_of_other_severity_names_the_severity() -> None:
    faults = [{"kind": "stuck_at", "severity": severity} for severity in (0.2, 1.0)]
    arms = [flat("city-traffic", faults__stuck=fault) for fault in faults]
    assert arm_names(arms) == ["stuck severity 0.2", "stuck severity 1"]


def test_clean_arm_beside_two_severities_keeps_all_apart() -> None:
    faults = [{"kind": "stuck_at", "severity": severity} for severity in (0.2, 1.0)]
    arms = [flat("city-traffic"), *(flat("city-traffic", faults__stuck=fault) for fault in faults)]
    assert arm_names(arms) == ["without faults", "stuck, severity 0.2", "stuck, severity 1"]


def test_engine_names_an_arm_only_where_nothing_else_differs() -> None:
    one, two = {"engine.tile": 5, "local.local_lr": 0.1}, {"engine.tile": 20, "local.local_lr": 0.2}
    assert arm_names([one, two]) == ["local_lr 0.1", "local_lr 0.2"]
    assert arm_names([{"engine.tile": 5}, {"engine.tile": 20}]) == ["tile 5", "tile 20"]


def test_keys_of_another_kind_are_no_difference_of_their_own() -> None:
    arms = [flat("digits-iid", algorithm__kind="fedavg"), flat("digits-iid", algorithm__kind="fedprox")]
    assert differing_keys(arms) == ["algorithm.kind"]


@pytest.mark.parametrize("seed", [1, 2])
def test_seed_and_title_distinguish_no_arms(seed: int) -> None:
    arms = [flat("digits-iid"), flat("digits-iid", run__seed=seed, title="other")]
    assert arm_names(arms) == ["the scenario", "the scenario"]
