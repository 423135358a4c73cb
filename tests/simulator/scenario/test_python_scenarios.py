"""Scenarios from Python: tables, option classes, and mistakes that read like those of a file."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedscape as fs
from clients.core.errors import ScenarioError
from fedscape.options import (
    DigitsOptions,
    FedProxOptions,
    FedSgdOptions,
    IidOptions,
    LocalOptions,
    MlpOptions,
    TableOptions,
)
from simulator.scenario.sections import Scenario, load_scenario, to_toml

TABLE: dict[str, Any] = {
    "data": {"kind": "digits"},
    "partition": {"kind": "iid", "clients": 12},
    "model": {"kind": "mlp", "hidden": [8]},
    "algorithm": {"kind": "fedprox", "mu": 0.5, "cohort": 3},
    "evaluation": {"baselines": False},
    "engine": {"kind": "plain", "threads": 1},
    "run": {"rounds": 2, "seed": 3},
}
OPTIONS: dict[str, Any] = {
    **TABLE,
    "data": DigitsOptions(),
    "partition": IidOptions(clients=12),
    "model": MlpOptions(hidden=(8,)),
    "algorithm": FedProxOptions(mu=0.5, cohort=3),
}


def test_table_and_option_classes_describe_the_same_scenario(tmp_path: Path) -> None:
    (tmp_path / "scenario.toml").write_text(to_toml(load_scenario(TABLE)))
    scenario = load_scenario(tmp_path / "scenario.toml")
    assert load_scenario(TABLE) == load_scenario(OPTIONS) == scenario
    assert Scenario(**OPTIONS, name="scenario") == scenario
    assert load_scenario(types.MappingProxyType(TABLE)) == scenario
    assert load_scenario(scenario) is scenario


def test_table_is_not_changed_by_changes() -> None:
    load_scenario(TABLE, sets=["rounds=9", "algorithm.kind=scaffold"], seed=5)
    assert TABLE["run"] == {"rounds": 2, "seed": 3}
    assert TABLE["algorithm"]["mu"] == 0.5


def test_scenario_can_be_changed_again() -> None:
    scenario = load_scenario(load_scenario(OPTIONS), sets=["rounds=9"], seed=4)
    assert scenario == load_scenario(OPTIONS, sets=["rounds=9", "seed=4"])


def test_tables_run_and_are_described() -> None:
    run = fs.simulate(TABLE, record=False)
    assert run.session.scenario.name == "scenario"
    assert len(run.rounds["train_loss"]) == 3
    assert fs.population(OPTIONS).num_clients == 12
    assert fs.describe_data(TABLE).clients == 12
    assert fs.population(load_scenario(TABLE), sets=["clients=7"]).num_clients == 7


def test_blank_scenario_has_defaults_alone() -> None:
    blank = load_scenario({})
    assert blank == dataclasses.replace(load_scenario("blank"), name="scenario")
    assert blank == Scenario(name="scenario")
    assert blank.data is None


def test_values_of_numpy_and_paths_are_plain() -> None:
    table = {
        "data": TableOptions(path=Path("readings.csv"), features=np.array(["a", "b"])),
        "model": {"kind": "mlp", "hidden": np.array([4, 2])},
        "run": {"rounds": np.int64(5)},
        "local": {"local_lr": np.float32(0.5)},
    }
    scenario = load_scenario(table)
    assert scenario == Scenario(**table, name="scenario")
    assert scenario.data == TableOptions(path="readings.csv", features=("a", "b"))
    assert type(scenario.run.rounds) is int
    assert load_scenario(scenario, sets=["seed=1"]).data == scenario.data


def test_options_with_defaults_do_not_conflict_with_fixed_local_work() -> None:
    table = {"local": LocalOptions(local_lr=0.5), "algorithm": FedSgdOptions()}
    assert load_scenario(table) == Scenario(**table, name="scenario")
    with pytest.raises(ScenarioError, match=r"local\.local_epochs: is 3 in the scenario passed from Python"):
        Scenario(local=LocalOptions(local_epochs=3), algorithm=FedSgdOptions())


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"algorithm": {"kind": "fedaveg"}}, "algorithm.kind: 'fedaveg' is not an algorithm. Nearest: 'fedavg'."),
        ({"algorithm": {"cohort": 5}}, "algorithm.kind: is missing in the scenario passed from Python."),
        ({"algorithm": DigitsOptions()}, "algorithm.kind: 'digits' is not an algorithm."),
        ({"algorithm": FedProxOptions}, "algorithm: must be a section (a table of keys), got the class FedProx"),
        ({"algorithm": "fedprox"}, "algorithm: must be a section (a table of keys), got 'fedprox'."),
        ({"algorithm": FedProxOptions(weighting="equal")}, "algorithm.weighting: must be 'examples', 'uniform' or"),
        ({"run": {"rounds": "5"}}, "run.rounds: must be a whole number, got '5'. In the scenario passed from Python."),
        ({"run": {"rounds": None}}, "run.rounds: must be a whole number, got None."),
        ({"run": {"rounds": object}}, "run.rounds: must be a whole number, got <class 'object'>."),
        ({"run": {"rounds": True}}, "run.rounds: must be a whole number, got true."),
        ({"run": {"round": 5}}, "run.round: 'round' is not a key of [run]. Nearest: 'rounds'."),
        ({"faults": {"kind": "bias"}}, "faults: must hold named tables in the scenario passed from Python, such as"),
    ],
)  # fmt: skip
def test_mistake_in_a_table_reads_like_one_in_a_file(table: dict[str, Any], words: str) -> None:
    with pytest.raises(ScenarioError) as error:
        load_scenario(table)
    assert str(error.value).startswith(words)
    with pytest.raises(ScenarioError) as error:
        Scenario(**table)
    assert str(error.value).startswith(words)


def test_table_with_itself_inside_is_refused() -> None:
    table: dict[str, Any] = {"run": {}}
    table["run"]["seed"] = table
    with pytest.raises(ScenarioError, match="run: has more than 20 tables and lists inside each other"):
        load_scenario(table)


@pytest.mark.parametrize("scenario", [5, [1], object(), {1: 2}, True])
def test_other_objects_are_refused(scenario: Any) -> None:
    with pytest.raises(ScenarioError, match=r"^scenario: "):
        load_scenario(scenario)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"run.rounds": 5},
            'run.rounds: is a dotted key in the table of a scenario. Write {"run": {"rounds": ...}}, or',
        ),
        ({"convergence": {"plateau.patience": 3}}, "is a dotted key in the table of [convergence]. Write"),
        ({"data": "digits"}, "got 'digits'. Write data.kind = 'digits'."),
    ],
)
def test_table_that_is_written_flat_is_answered_with_its_form(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        load_scenario(table)
    assert message in str(error.value)
