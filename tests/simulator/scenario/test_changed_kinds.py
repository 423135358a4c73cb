"""A change of `kind` drops the keys that the new kind does not have, and states which."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from clients.core.errors import ScenarioError
from server.algorithms.table import ALGORITHMS
from server.record.jsonlines import from_json
from simulator.runs.record import open_run
from simulator.runs.run import resume, simulate
from simulator.scenario.sections import load_scenario, to_toml
from simulator.scenario.unread import unread_keys

FEDPROX = {"algorithm": {"kind": "fedprox", "mu": 0.1, "weighting": "uniform", "cohort": 5}}
NOTICE = "algorithm.kind is now 'scaffold': dropped mu = 0.1, weighting = 'uniform' (of 'fedprox'); kept cohort = 5"


def test_new_algorithm_drops_keys_that_it_does_not_have() -> None:
    scenario = load_scenario(FEDPROX, sets=["algorithm.kind=scaffold"])
    assert scenario.algorithm.kind == "scaffold"
    assert scenario.algorithm.cohort == 5
    assert scenario.notices == (NOTICE,)


def test_new_algorithm_that_has_every_key_drops_nothing() -> None:
    scenario = load_scenario(FEDPROX, sets=["algorithm.kind=fednova"])
    assert scenario.notices == ()
    assert scenario.algorithm == load_scenario({"algorithm": {**FEDPROX["algorithm"], "kind": "fednova"}}).algorithm


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(ALGORITHMS, 2)))
def test_every_algorithm_can_replace_every_other(one: str, other: str) -> None:
    """A sweep over `algorithm.kind` needs no special cases."""
    base = load_scenario("digits-label-skew", sets=[f"algorithm.kind={one}"])
    for scenario in (base, {"algorithm": {"kind": one, "cohort": 3}, "local": {"local_epochs": 5}}):
        sets = [] if one != "fedsgd" or scenario is base else ["local_epochs="]
        assert load_scenario(scenario, sets=[*sets, f"algorithm.kind={other}"]).algorithm.kind == other


def test_key_that_was_set_for_the_old_kind_is_a_mistake() -> None:
    with pytest.raises(ScenarioError, match=r"algorithm\.mu: 'mu' is not a key of \[algorithm\] of kind 'scaffold'"):
        load_scenario(FEDPROX, sets=["algorithm.kind=scaffold", "algorithm.mu=0.2"])


def test_mistake_in_a_file_stays_a_mistake() -> None:
    with pytest.raises(ScenarioError, match=r"algorithm\.mu: 'mu' is not a key of \[algorithm\] of kind 'scaffold'"):
        load_scenario({"algorithm": {"kind": "scaffold", "mu": 0.1}})


def test_new_partition_model_and_data_drop_keys() -> None:
    sets = ["partition.kind=iid", "model.kind=softmax", "data.kind=synthetic"]
    base = {
        "data": {"kind": "digits", "rare_classes": [3]},
        "partition": {"kind": "dirichlet", "clients": 10, "concentration": 0.3},
        "model": {"kind": "mlp", "hidden": [8]},
    }
    notices = load_scenario(base, sets=sets).notices
    assert len(notices) == 3
    assert "partition.kind is now 'iid': dropped concentration = 0.3 (of 'dirichlet'); kept clients = 10" in notices
    assert "model.kind is now 'softmax': dropped hidden = [8] (of 'mlp')" in notices
    assert "data.kind is now 'synthetic': dropped rare_classes = [3] (of 'digits')" in notices


def test_value_that_the_new_kind_does_not_take_is_dropped() -> None:
    scenario = load_scenario({"data": {"kind": "traffic", "task": "congestion"}}, sets=["data.kind=meters"])
    assert scenario.notices == ("data.kind is now 'meters': dropped task = 'congestion' (of 'traffic')",)


def test_new_kinds_of_faults_drop_keys() -> None:
    base = {"faults": {"bad": {"kind": "label_class_dependent", "rates": [0.1, 0.2], "severity": 0.5}}}
    scenario = load_scenario(base, sets=["faults.bad.kind=label_symmetric"])
    dropped = "faults.bad.kind is now 'label_symmetric': dropped rates = [0.1, 0.2] (of 'label_class_dependent')"
    assert scenario.notices == (f"{dropped}; kept severity = 0.5",)


def test_notice_is_a_comment_whatever_the_name_of_the_fault_is(tmp_path: Path) -> None:
    base = {"faults": {"a\nb\0": {"kind": "label_class_dependent", "rates": [0.1, 0.2]}}}
    scenario = load_scenario(base, sets={"faults.a\nb\0.kind": "label_symmetric"})
    assert scenario.notices
    (tmp_path / "scenario.toml").write_text(to_toml(scenario))
    assert load_scenario(tmp_path / "scenario.toml").faults == scenario.faults


def test_key_that_the_new_kind_needs_is_named_with_an_example() -> None:
    base = {"partition": {"kind": "iid", "clients": 4}}
    with pytest.raises(ScenarioError, match=r"partition\.concentration: is missing in .*concentration=0\.3"):
        load_scenario(base, sets=["partition.kind=dirichlet"])


def test_algorithm_that_fixes_local_work_drops_it() -> None:
    scenario = load_scenario("digits-label-skew", sets=["algorithm.kind=fedsgd"])
    words = "algorithm.kind is now 'fedsgd', which takes one full-batch step a round: dropped batch_size = 8, "
    assert scenario.notices == (f"{words}local_epochs = 5 of [local]",)
    with pytest.raises(ScenarioError, match=r"local\.local_epochs: is 3 in digits-label-skew, and fedsgd takes one"):
        load_scenario("digits-label-skew", sets=["algorithm.kind=fedsgd", "local_epochs=3"])


def test_data_with_their_own_clients_drop_the_partition() -> None:
    scenario = load_scenario("digits-label-skew", sets=["data.kind=traffic"])
    assert scenario.partition is None
    assert scenario.notices == (
        "data.kind is now 'traffic', which brings its own clients: dropped [partition] 'dirichlet'",
    )
    kept = load_scenario("digits-label-skew", sets=["data.kind=traffic", "partition.clients=3"])
    assert kept.partition is not None
    other = load_scenario("digits-label-skew", sets=["data.kind=images", "data.path=x.npz"])
    assert other.partition is not None
    assert other.notices == ()


def test_dropped_keys_stand_in_the_record_also_of_a_resumed_run(tmp_path: Path) -> None:
    base = load_scenario("quadratic-two-clients", sets={"algorithm": FEDPROX["algorithm"] | {"cohort": 2}})
    scenario = load_scenario(base, sets=["algorithm.kind=scaffold", "convergence.stop=never", "run.rounds=4"])
    (notice,) = scenario.notices
    seen: list[list[str]] = []

    class Header:
        def run_started(self, facts: dict[str, object]) -> None:
            seen.append(list(facts.get("notices", ())))  # type: ignore[call-overload]

    calls = iter([False, True])
    simulate(scenario, out=tmp_path / "run", observers=[Header()], stop_asked=lambda: next(calls))
    recorded = from_json((tmp_path / "run" / "environment.json").read_bytes())["run"]["notices"]
    assert recorded == [notice]
    assert (tmp_path / "run" / "scenario.toml").read_text().startswith(f"# {notice}\n")
    resume(tmp_path / "run", observers=[Header()])
    assert seen == [[notice], [notice]]


def test_run_whose_algorithm_fixes_local_work_can_be_read_and_resumed(tmp_path: Path) -> None:
    sets = ["algorithm.kind=fedsgd", "rounds=4", "convergence.stop=never", "evaluation.baselines=false", "clients=10"]
    sets += ["cohort=4", "engine.kind=plain", "engine.threads=1", "engine.workers=1"]
    scenario = load_scenario("digits-iid", sets=sets)
    calls = iter([False, True])
    simulate(scenario, out=tmp_path / "run", stop_asked=lambda: next(calls))
    record = open_run(tmp_path / "run")
    assert (record.scenario.local.batch_size, record.scenario.local.local_steps) == ("full", 1)
    assert to_toml(record.scenario) == to_toml(scenario).partition("\n")[2]
    assert resume(tmp_path / "run").verdict.headline == "Stopped at round 4"


@pytest.mark.parametrize("value", [0.9, 0.5])
def test_constant_that_the_optimiser_does_not_read_is_stated(value: float) -> None:
    """0.9 is the default: the person who writes it still expects momentum."""
    few = ["rounds=1", "baselines=false", "engine.kind=plain"]
    words = f"local.momentum = {value} has no effect: optimizer 'gd' does not read it; 'momentum', 'nesterov' do"
    scenario = load_scenario("quadratic-two-clients", sets=[*few, f"momentum={value}"])
    facts: list[dict[str, Any]] = []

    class Header:
        def run_started(self, started: dict[str, Any]) -> None:
            facts.append(started)

    simulate(scenario, record=False, observers=[Header()])
    assert list(facts[0]["notices"]).count(words) == 1
    read = load_scenario("quadratic-two-clients", sets=[*few, f"momentum={value}", "optimizer=momentum"])
    assert read.notices == ()
    assert unread_keys(read) == []
