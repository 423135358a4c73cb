"""Study files: what they say, and what they say wrongly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from scenario_pairs import pairs

from clients.core.errors import ScenarioError
from simulator.studies.arms import make_arms
from simulator.studies.factors import factor_values
from simulator.studies.plan import StudyPlan
from simulator.studies.reading import Changes, builtin_studies, read_study

SMALL: Mapping[str, Any] = {"scenario": "quadratic-two-clients", "seeds": 2}


def write(folder: Path, text: str) -> Path:
    file = folder / "my-study.toml"
    file.write_text(text)
    return file


def test_study_file_of_the_documentation_is_read(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
        title = "Does SCAFFOLD need fewer rounds?"
        scenario = "digits-label-skew"
        seeds = 10
        [set]
        "convergence.stop" = "never"
        [factors]
        "algorithm.kind" = ["fedavg", "scaffold"]
        "local.local_lr" = [0.02, 0.05]
        [answer]
        compare = "algorithm.kind"
        measure = "rounds_to_target"
        """,
    )
    options = read_study(file)
    assert options.name == "my-study"
    assert options.seeds == tuple(range(10))
    arms = make_arms(options)
    assert [arm.name for arm in arms] == [
        "fedavg, local_lr 0.02", "fedavg, local_lr 0.05", "scaffold, local_lr 0.02", "scaffold, local_lr 0.05",
    ]  # fmt: skip
    assert {arm.scenario.convergence.stop for arm in arms} == {"never"}
    assert arms[3].values == {"algorithm.kind": "scaffold", "local.local_lr": 0.05}
    assert arms[3].scenario.local.local_lr == 0.05


def test_scenario_is_a_study_of_one_arm() -> None:
    options = read_study("digits-iid", Changes(seeds=[3, 5]))
    (arm,) = make_arms(options)
    assert arm.name == "digits-iid"
    assert options.seeds == (3, 5)


def test_scenario_of_a_study_is_found_beside_its_file(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(
        '[data]\nkind = "digits"\n[partition]\nkind = "iid"\nclients = 7\n[model]\nkind = "mlp"\n'
    )
    options = read_study(write(tmp_path, 'scenario = "base.toml"\n'))
    assert make_arms(options)[0].scenario.partition.clients == 7  # type: ignore[union-attr]


def test_keys_without_quotes_are_the_same_keys(tmp_path: Path) -> None:
    file = write(tmp_path, "[set]\nlocal.local_lr = 0.5\n[factors]\nalgorithm.kind = ['fedavg', 'fedprox']\n")
    options = read_study(file)
    assert options.set == {"local.local_lr": 0.5}
    assert options.factors == {"algorithm.kind": ("fedavg", "fedprox")}
    assert {arm.scenario.algorithm.cohort for arm in make_arms(options)} == {20}, "the rest of the section is kept"


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"from": 0.01, "to": 1, "steps": 5, "scale": "log"}, (0.01, 0.0316228, 0.1, 0.316228, 1.0)),
        ({"from": 1, "to": 9, "steps": 5}, (1, 3, 5, 7, 9)),
        ({"from": 0, "to": 1, "steps": 3}, (0.0, 0.5, 1.0)),
        ({"from": 8, "to": 1, "steps": 4, "scale": "log"}, (8, 4, 2, 1)),
    ],
)
def test_range_has_both_ends_and_even_steps(given: dict[str, Any], values: tuple[float, ...]) -> None:
    (found,) = factor_values({"local.local_lr": given}).values()
    assert found == values
    assert {type(value) for value in found} == {type(value) for value in values}


def test_zipped_factors_go_together() -> None:
    table = {**SMALL, "factors": {"zip": True, "local.local_lr": [0.1, 0.2], "local.local_steps": [5, 3]}}
    arms = make_arms(read_study(table))
    assert [(arm.scenario.local.local_lr, arm.scenario.local.local_steps) for arm in arms] == [(0.1, 5), (0.2, 3)]


def test_listed_arms_have_names_values_and_scenarios_of_their_own() -> None:
    table = {
        "scenario": "city-traffic", "seeds": 2,
        "arms": [{"name": "clean"}, {"name": "stuck", "scenario": "city-traffic-stuck"},
                 {"name": "half", "scenario": "city-traffic-stuck", "against": "stuck", "faults.frozen.severity": 0.5}],
    }  # fmt: skip
    clean, stuck, half = make_arms(read_study(table))
    assert not clean.scenario.faults
    assert [arm.scenario.faults["frozen"].severity for arm in (stuck, half)] == [1.0, 0.5]
    assert half.against == "stuck"
    assert [arm.values["faults.frozen.severity"] for arm in (clean, stuck, half)] == [None, 1.0, 0.5]


def test_empty_text_removes_a_key_of_an_arm() -> None:
    table = {**SMALL, "scenario": "digits-label-skew", "arms": {}}
    arms = [{"name": "with"}, {"name": "without", "convergence.target": ""}]
    found = make_arms(read_study({**table, "arms": arms}))
    assert found[0].scenario.convergence.target is not None
    assert found[1].scenario.convergence.target is None


def test_target_and_rounds_of_the_study_reach_every_arm() -> None:
    target = {"metric": "validation_accuracy", "at_least": 0.5}
    table = {**SMALL, "scenario": "digits-iid", "factors": {"algorithm.kind": ["fedavg", "fedprox"]},
             "answer": {"target": target, "measure": "rounds_to_target"}, "budget": {"rounds": 7}}  # fmt: skip
    for arm in make_arms(read_study(table)):
        assert arm.scenario.convergence.target is not None
        assert arm.scenario.convergence.target.at_least == 0.5
        assert arm.scenario.run.rounds == 7


@pytest.mark.parametrize("name", builtin_studies())
def test_built_in_study_makes_its_arms(name: str) -> None:
    options = read_study(name)
    arms = make_arms(options)
    assert options.title
    assert len({arm.name for arm in arms}) == len(arms) > 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"scenrio": "digits-iid"}, r"'scenrio' is not a key of a study\. Nearest: 'scenario'"),
        ({"factors": {"local_lr": [1]}, "local": {}}, r"local: 'local' is not a key of a study.*belong to \[set\]"),
        ({"scenario": "digits-idd"}, r"'digits-idd' is not a scenario file.*'digits-iid'"),
        ({"scenario": 3}, r"scenario: must be the name of a built-in scenario or the path of a file, got 3"),
        ({"seeds": 0}, r"seeds: must be 1 to 100000 seeds or a list of them, got 0"),
        ({"seeds": "ten"}, r"seeds: must be a number of seeds or a list of them, got 'ten'"),
        ({"seeds": [1, 1]}, r"seeds: must differ from each other, got 1 twice"),
        ({"seeds": [-1]}, r"seeds: must be whole numbers from 0 to 2\*\*63 - 1, got -1"),
        ({"seeds": [0.5]}, r"seeds: must be a number of seeds or a list of them, got \[0\.5\]"),
        ({"title": 3}, r"title: must be text, got 3"),
        ({"factors": []}, r"factors: must be a table of keys, got \[\]"),
        ({"factors": {"local.local_lr": 0.1}}, r"local\.local_lr: must be a list of values, got 0\.1\. One"),
        ({"factors": {"local.local_lr": []}}, r"factors\.local\.local_lr: must be a list of values, got \[\]"),
        ({"factors": {"local.local_lr": [1, 1]}}, r"must have different values, got 1 twice"),
        ({"factors": {"local_lr": {"from": 1, "to": 2}}}, r"factors\.local_lr\.steps: is missing"),
        ({"factors": {"local_lr": {"from": 1, "to": 2, "steps": 1}}}, r"must be a whole number from 2 to 10000, got 1"),
        ({"factors": {"local_lr": {"from": 0, "to": 2, "steps": 3, "scale": "log"}}}, r"must be positive on a log"),
        ({"factors": {"local_lr": {"from": 1, "to": 2, "steps": 3, "scale": "lgo"}}}, r"'lgo' is not a scale"),
        ({"factors": {"local_lr": {"from": 1, "to": 2, "step": 3}}}, r"'step' is not a key of a range\. Nearest"),
        ({"factors": {"local_lr": {"from": "a", "to": 2, "steps": 3}}}, r"local_lr\.from: must be a number, got 'a'"),
        ({"factors": {"zip": True, "local_lr": [1, 2], "local_steps": [1]}}, r"equally many values; local_lr has 2, "),
        ({"factors": {"zip": "yes"}}, r"factors\.zip: must be true or false, got 'yes'"),
        ({"factors": {"local_lr": [1, 2]}, "arms": [{"name": "a"}]}, r"arms: and factors are both given"),
        ({"factors": {"local_rl": [1, 2]}}, r"factors: 'local_rl' is not a key of any section.*Nearest: local"),
        ({"factors": {"algorithm.kind": ["fedavg", "scafold"]}}, r"'scafold'.*arm algorithm\.kind = 'scafold'"),
        ({"factors": {"run.seed": [1, 2]}}, r"run\.seed: is no factor.*Seeds belong to `seeds`"),
        ({"set": {"local.local_lr": "fast"}}, r"local\.local_lr: must be .*got 'fast' \(in \[set\]\)"),
        ({"arms": "fedavg"}, r"arms: must be a list of tables, got 'fedavg'"),
        ({"arms": [{"name": "a"}, {"name": "a"}]}, r"arms\.name: must differ from each other, got 'a' twice"),
        ({"arms": [{"name": "a"}, {"name": "b", "against": "c"}]}, r"arms\.2\.against: 'c' is not another arm"),
        ({"arms": [{"name": "a"}, {"name": "b", "against": "b"}]}, r"arms\.2\.against: 'b' is not another arm"),
        ({"arms": [{"name": 3}]}, r"arms\.1\.name: must be text, got 3"),
        ({"answer": {"measure": "accuracy"}}, r"answer\.measure: 'accuracy' is not a measure\. Nearest"),
        ({"answer": {"mesure": "x"}}, r"answer\.mesure: 'mesure' is not a key of \[answer\]\. Nearest: 'measure'"),
        ({"answer": {"compare": "local.local_lr"}}, r"answer\.compare: .*The study has no factors"),
        ({"answer": {"measure": "rounds_to_target"}}, r"is 'rounds_to_target', and arm .* has no convergence"),
        ({"answer": {"target": 0.9}}, r"answer\.target: must be a table of keys, got 0\.9"),
        ({"budget": {"rounds": 0}}, r"budget\.rounds: must be at least 1, got 0"),
        ({"budget": {"hours": 1}}, r"'hours' is not a key of \[budget\]"),
        ({"early": {"kind": "halving"}}, r"must be 'off', 'successive_halving' or 'racing', got 'halving'"),
        ({"early": {"kind": "racing", "seeds": 2}}, r"early\.seeds: must be at least 3, which racing needs"),
        ({"early": {"keep": 1}}, r"early\.keep: must be between 0 and 1, got 1"),
    ],
)  # fmt: skip
def test_mistake_names_field_value_and_what_is_allowed(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        make_arms(read_study({"scenario": "quadratic-two-clients", **table}))


def test_budget_of_runs_leaves_out_whole_seeds() -> None:
    table = {**SMALL, "seeds": 5, "factors": {"algorithm.kind": ["fedavg", "scaffold"]}, "budget": {"runs": 7}}
    plan = StudyPlan.of(read_study(table))
    assert plan.seeds == (0, 1, 2)
    assert len(plan.runs) == 6
    with pytest.raises(ScenarioError, match=r"budget\.runs: must be at least the number of arms, 2, got 1"):
        StudyPlan.of(read_study({**table, "budget": {"runs": 1}}))


def test_texts_of_a_command_line_are_read_as_the_keys_want_them() -> None:
    changes = Changes(
        factors=["algorithm.kind=fedavg,scaffold", "hidden=[8],[8,4]"], set=["rounds=5", "convergence.target="]
    )
    options = read_study("digits-label-skew", changes)
    assert options.factors == {"algorithm.kind": ("fedavg", "scaffold"), "model.hidden": ([8], [8, 4])}
    assert options.set == {"run.rounds": 5, "convergence.target": ""}
    arms = make_arms(options)
    assert {(arm.scenario.run.rounds, arm.scenario.convergence.target) for arm in arms} == {(5, None)}
    with pytest.raises(ScenarioError, match=r"--factor: must be section\.key=value,value, got 'algorithm\.kind'"):
        read_study("digits-iid", Changes(factors=["algorithm.kind"]))


def test_identity_of_a_run_is_its_scenario_and_seed_alone() -> None:
    def key(seed: int = 1, **sets: Any) -> str:
        changes = {name.replace("__", "."): value for name, value in sets.items()}
        return make_arms(read_study("digits-iid", Changes(set=changes)))[0].key(seed)

    same = [key(), key(title="other"), key(name="other"), key(run__checkpoint_rounds=3), key(run__checkpoint_seconds=1)]
    assert len(set(same)) == 1
    assert len(key()) == 16
    others = [
        key(seed=2),
        key(run__rounds=7),
        key(local__local_lr=0.3),
        key(engine__tile=3),
        key(faults__a={"kind": "noise"}),
    ]
    assert len({*same, *others}) == 6


def test_arms_are_grouped_by_what_they_are_compared_with() -> None:
    arms = [{"name": "a"}, {"name": "x"}, {"name": "b", "against": "a"}, {"name": "y", "against": "x"},
            {"name": "c", "against": "b"}, {"name": "alone"}]  # fmt: skip
    for number, arm in enumerate(arms, 1):
        arm["run.rounds"] = number  # type: ignore[assignment]
    plan = StudyPlan.of(read_study({"scenario": "quadratic-two-clients", "arms": arms}))
    assert plan.groups == [["a", "b", "c"], ["x", "y"], ["alone"]]
    plan = StudyPlan.of(read_study({"scenario": "quadratic-two-clients", "factors": {"run.rounds": [1, 2]}}))
    assert plan.groups == [["rounds 1", "rounds 2"]], "arms that name nothing are compared with each other"


def test_builtin_study_has_every_pair_of_scenarios() -> None:
    plan = StudyPlan.of(read_study("what-faults-do"))
    scenarios = {arm.name: arm.scenario.name for arm in plan.arms}
    assert {scenarios[second]: scenarios[first] for first, second in plan.pairs} == pairs()
    assert len(plan.groups) == len({*pairs().values()})
    assert all(scenarios[group[0]] in pairs().values() for group in plan.groups), "the clean arm is first"
