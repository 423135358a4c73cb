"""A key that was set and has no effect is stated once: from a file, after --set, and in option classes from Python."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import fedscape as fs
from clients.core.errors import UserError
from clients.training.options import LocalOptions
from clients.training.schedule_options import ScheduleOptions
from simulator.cli.main import main
from simulator.runs.describing import describe_data, look_at
from simulator.scenario.sections import Scenario, builtin_names, load_scenario
from simulator.scenario.unread import late_keys, unread_keys

FEW = ["rounds=1", "baselines=false", "engine.kind=plain", "partition.clients=8", "cohort=2"]


def notices(scenario: Any) -> list[str]:
    """Return the notices of a run."""
    found: list[str] = []

    class Header:
        def run_started(self, facts: dict[str, Any]) -> None:
            found.extend(facts.get("notices", ()))

    fs.simulate(scenario, record=False, observers=[Header()])
    return found


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["schedule.decay=0.5"], "local.schedule.decay = 0.5 has no effect: schedule 'constant' does not read it"),
        (["optimizer=gd", "batch_size=8"], "local.batch_size = 8 has no effect: optimizer 'gd' takes all examples"),
        (["optimizer=gd", "batch_size=16"], "local.batch_size = 16 has no effect: optimizer 'gd' takes all examples"),
        (
            ["local_epochs=1", "local.partial_work=0.9"],
            "local.partial_work = 0.9 has no effect: a client's work is one",
        ),
        (["buffers=server"], "local.buffers = 'server' has no effect: the model has no buffers"),
        (["algorithm.partial_work=drop"], "algorithm.partial_work = 'drop' has no effect: no client does less"),
        (["convergence.stop=never", "min_rounds=5"], "convergence.min_rounds = 5 has no effect: with stop 'never'"),
        (["weights_from=client"], "local.weights_from = 'client' has no effect: class_weights 'none' does not read it"),
        (["convergence.min_rounds=9"], "convergence.min_rounds = 9: the last round is 1, so no criterion ends the run"),
        (["plateau.patience=2"], "convergence.plateau.patience = 2: the last round is 1, so it cannot be met"),
        (["target.hold=3"], "convergence.target.hold = 3: the last round is 1, so it cannot be met"),
        (["federated_every=2"], "evaluation.federated_every = 2: the last round is 1, so clients evaluate the final"),
        (["gradient_every=2"], "evaluation.gradient_every = 2: the last round is 1, so only round 0 is measured"),
        (["test_every=2"], "evaluation.test_every = 2: the last round is 1, so only round 0 and the last are"),
        (["objective_every=2"], "evaluation.objective_every = 2: the last round is 1, so only round 0 and the last"),
        (["keep_parameters_every=2"], "run.keep_parameters_every = 2: the last round is 1, so only round 0 and the"),
        (["schedule={kind=cosine,rounds=9}"], "local.schedule.rounds = 9: the last round is 1, where the factor is 1"),
    ],
)
def test_key_without_an_effect_is_stated_once(sets: list[str], words: str) -> None:
    found = notices(load_scenario("digits-label-skew", sets=[*FEW, *sets]))
    assert sum(notice.startswith(words) for notice in found) == 1, found


def test_defaults_are_not_stated() -> None:
    assert unread_keys(load_scenario("blank", sets=["data.kind=digits", "partition={kind=iid,clients=3}"])) == []
    for name in builtin_names():
        assert unread_keys(load_scenario(name)) == []
        assert late_keys(load_scenario(name)) == []


def test_short_trial_of_a_built_in_scenario_states_nothing() -> None:
    for name in builtin_names():
        assert late_keys(load_scenario(name, sets=["run.rounds=2"])) == []
    assert late_keys(load_scenario("digits-iid", sets=["run.rounds=1", "target.at_least=0.5"])) == []


def test_criteria_that_need_more_rounds_than_the_run_has_are_stated_together() -> None:
    criteria = {
        "target": {"metric": "validation_loss", "at_most": 1.0, "hold": 5},
        "settled": {"below": 0.1, "hold": 6},
    }
    table = {"convergence": {**criteria, "plateau": {"metric": "validation_loss"}}, "run": {"rounds": 4}}
    assert late_keys(load_scenario(table)) == [
        "convergence.plateau.patience = 5 and convergence.settled.hold = 6: the last round is 4, so they cannot be met"
    ]


def test_never_acts_without_criteria_since_growth_then_ends_no_run() -> None:
    sets = ["data.kind=digits", "partition={kind=iid,clients=3}", "convergence.stop=never"]
    assert unread_keys(load_scenario("blank", sets=sets)) == []
    off = [*sets, "convergence.divergence={loss_factor=0,spike=0}"]
    assert unread_keys(load_scenario("blank", sets=off)) == [
        "convergence.stop = 'never' has no effect: [convergence] has no criterion"
    ]


def test_option_classes_from_python_are_read_alike() -> None:
    schedule = ScheduleOptions(kind="cosine", rounds=5, decay=0.5)
    local = LocalOptions(optimizer="gd", batch_size=8, rho=0.5, schedule=schedule)
    assert unread_keys(Scenario(local=local)) == [
        "local.rho = 0.5 has no effect: optimizer 'gd' does not read it; 'rmsprop' does",
        "local.batch_size = 8 has no effect: optimizer 'gd' takes all examples of a client in each step",
        "local.schedule.decay = 0.5 has no effect: schedule 'cosine' does not read it; 'inverse_time' does",
    ]
    assert dataclasses.replace(local, optimizer="sgd").batch_size == "full"


def test_data_command_states_keys_of_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = ["--set", "partition={kind=quantity,clients=4,exponent=2.0}", "--set", "model=", "--set", "rho=0.5"]
    assert main(["data", "digits-iid", *sets, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "partition.exponent = 2.0 has no effect: law 'lognormal' does not read it; 'power' does" in shown
    assert "local.rho = 0.5" not in shown


def test_round_after_the_last_is_refused() -> None:
    scenario = load_scenario("quadratic-two-clients", sets=["rounds=3"])
    look_at(scenario, round_index=3)
    with pytest.raises(UserError, match="round: must be at most the last round, 3, got 4"):
        describe_data(scenario, round_index=4)
