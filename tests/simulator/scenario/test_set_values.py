"""`--set` takes values as people type them in a shell, finds keys without their section, and collects lists."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from clients.core.errors import ScenarioError
from simulator.scenario.kinds import hints_of
from simulator.scenario.sections import Scenario, load_scenario
from simulator.scenario.shell import interpret, split

AIR, DIGITS = "air-beijing", "digits-label-skew"


def value(scenario: Scenario, key: str) -> Any:
    """Return the value of a key."""
    found: Any = scenario
    for step in key.split("."):
        found = found[step] if isinstance(found, dict) else getattr(found, step)
    return found


def refused(*sets: str, scenario: str = DIGITS) -> str:
    """Return the message that refuses changes."""
    with pytest.raises(ScenarioError) as error:
        load_scenario(scenario, sets=sets)
    return str(error.value)


@pytest.mark.parametrize(
    ("scenario", "sets", "key", "expected"),
    [
        (AIR, ["data.features=['TEMP']"], "data.features", ("TEMP",)),
        (AIR, ["data.features=[TEMP]"], "data.features", ("TEMP",)),  # the shell has eaten the quotes
        (AIR, ["data.features=[TEMP, PRES]"], "data.features", ("TEMP", "PRES")),
        (AIR, ["data.features=TEMP,PRES"], "data.features", ("TEMP", "PRES")),
        (AIR, ["data.features=TEMP"], "data.features", ("TEMP",)),
        (AIR, ["data.features=TEMP", "data.features=PRES"], "data.features", ("TEMP", "PRES")),
        (AIR, ["features=TEMP", "data.features=PRES"], "data.features", ("TEMP", "PRES")),
        (DIGITS, ["model.hidden=[64,32]"], "model.hidden", (64, 32)),
        (DIGITS, ["hidden=(64, 32)"], "model.hidden", (64, 32)),
        (DIGITS, ["hidden=64,32"], "model.hidden", (64, 32)),
        (DIGITS, ["hidden=32"], "model.hidden", (32,)),
        (DIGITS, ["hidden=64", "hidden=32"], "model.hidden", (64, 32)),
        (DIGITS, ["hidden=[]"], "model.hidden", ()),
        (DIGITS, ["rounds=[5]"], "run.rounds", 5),
        (DIGITS, ["rounds=1_000"], "run.rounds", 1000),
        (DIGITS, ["rounds=64.0"], "run.rounds", 64),
        (DIGITS, ["rounds=1e3"], "run.rounds", 1000),
        (DIGITS, ["seed=3"], "run.seed", 3),
        (DIGITS, ["clients=50"], "partition.clients", 50),
        (DIGITS, ["local_lr=0.1"], "local.local_lr", 0.1),
        (DIGITS, ["local_lr=.5"], "local.local_lr", 0.5),
        (DIGITS, ["local_lr=1e-3"], "local.local_lr", 1e-3),
        (DIGITS, [" run.rounds = 5 "], "run.rounds", 5),
        (DIGITS, ["batch_size=full"], "local.batch_size", "full"),
        (DIGITS, ["title=5"], "title", "5"),
        (DIGITS, ["title=2020-01-01"], "title", "2020-01-01"),
        (DIGITS, ["title='quoted'"], "title", "quoted"),
        (DIGITS, ["title=a=b"], "title", "a=b"),
        (DIGITS, ["baselines=False"], "evaluation.baselines", False),
        (DIGITS, ["baselines=no"], "evaluation.baselines", False),
        (DIGITS, ["baselines=1"], "evaluation.baselines", True),
        (DIGITS, ["cohort=None"], "algorithm.cohort", None),
        (DIGITS, ["algorithm.cohort=null"], "algorithm.cohort", None),
        (DIGITS, ["cohort="], "algorithm.cohort", None),
        (DIGITS, ["normalise=none"], "features.normalise", "none"),
        (DIGITS, ["plateau={metric=validation_loss,patience=5}"], "convergence.plateau.patience", 5),
        (DIGITS, ["plateau={metric: validation_loss, patience: 5}"], "convergence.plateau.metric", "validation_loss"),
        (DIGITS, ["plateau.patience=4"], "convergence.plateau.patience", 4),
        (DIGITS, ["schedule.kind=cosine", "schedule.rounds=9"], "local.schedule.rounds", 9),
        (DIGITS, ["mu=0.1", "algorithm.kind=fedprox"], "algorithm.mu", 0.1),  # in any order
        (DIGITS, ["faults.bad={kind=label_symmetric,severity=0.5}"], "faults.bad.severity", 0.5),
        (DIGITS, ["faults.bad.kind=label_symmetric", "severity=0.5"], "faults.bad.severity", 0.5),
        ("blank", ["data.kind=digits", "model.kind=mlp", "hidden=8", "cohort=2"], "model.hidden", (8,)),
        ("blank", ["data.kind=images", "path=2020"], "data.path", "2020"),
    ],
)  # fmt: skip
def test_set_takes_values_as_typed(scenario: str, sets: list[str], key: str, expected: Any) -> None:
    found = value(load_scenario(scenario, sets=sets), key)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["local_lr=0.1f"], "local.local_lr: must be a number, got '0.1f'."),
        (["hidden=[64,x]"], "model.hidden: must be a list of whole numbers, got [64, 'x']."),
        (["hidden=64,x"], "model.hidden: must be a list of whole numbers, got [64, 'x']."),
        (["rounds=None"], "run.rounds: must be a whole number, got 'None'."),
        (["rounds=[5,6]"], "run.rounds: must be a whole number, got [5, 6]."),
        (["checkpoint_seconds=nan"], "run.checkpoint_seconds: must be > 0, got nan."),
        (["batch_size=half"], "local.batch_size: must be a whole number or 'full', got 'half'."),
        (["baselines=maybe"], "evaluation.baselines: must be true or false, got 'maybe'."),
        (["optimizer=Adam"], "local.optimizer: must be 'gd', 'sgd',"),
        (["rounds"], "--set: must be section.key=value, got 'rounds'. Write the key, = and the value without spaces"),
        (["=5"], "--set: must be section.key=value, got '=5'."),
        (["kind=x"], "kind: is a key of several sections: data.kind, partition.kind, model.kind, algorithm.kind,"),
        (
            ["patience=3"],
            "patience: is a key of several sections: convergence.plateau.patience, ",
        ),
        (["locl_lr=2"], "--set: 'locl_lr' is not a key of any section. Nearest: local.local_lr."),
        (["qqqq=2"], "--set: 'qqqq' is not a key of any section. Write section.key=value."),
        (["mu=0.1"], "algorithm.mu: 'mu' is not a key of [algorithm] of kind 'fedavg'."),
        (["hidden=" + "[" * 2000], "model.hidden: "),
    ],
)
def test_set_that_cannot_be_read_is_refused(sets: list[str], words: str) -> None:
    assert refused(*sets).startswith(words)


def test_key_of_other_kinds_names_them() -> None:
    assert "It is a key of fedprox, fednova (--set algorithm.kind=fedprox)." in refused("mu=0.1")


def test_wrong_name_has_its_nearest() -> None:
    assert refused("optimizer=Adam").endswith("Nearest: 'adam'.")


def test_value_set_twice_is_the_last_with_a_notice() -> None:
    scenario = load_scenario(sets=["rounds=5", "run.rounds=6"])
    assert scenario.run.rounds == 6
    assert scenario.notices == ("run.rounds was set 2 times: 6 is used, the last value",)
    assert load_scenario(sets=["rounds=5", "rounds=5"]).notices == ()


def test_list_in_brackets_replaces_an_earlier_one() -> None:
    scenario = load_scenario(sets=["hidden=[64,32]", "hidden=[16]"])
    assert scenario.notices == ("model.hidden was set 2 times: [16] is used, the last value",)


def test_changes_from_python_are_a_table_of_values() -> None:
    scenario = load_scenario(sets={"local_lr": 0.2, "model.hidden": (8, 4), "cohort": None, "title": "x=[1]"})
    assert (scenario.local.local_lr, scenario.algorithm.cohort, scenario.title) == (0.2, None, "x=[1]")
    assert value(scenario, "model.hidden") == (8, 4)


@pytest.mark.parametrize("sets", ["run.rounds=5", 5, [5], [None], {3: 4}])
def test_changes_of_another_form_are_refused(sets: Any) -> None:
    with pytest.raises(ScenarioError):
        load_scenario(sets=sets)


def test_text_is_split_outside_of_brackets_and_quotes() -> None:
    assert split("a,(b,c),{d=1,e=2},'f,g',") == ["a", "(b,c)", "{d=1,e=2}", "'f,g'", ""]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1, 2]", [1, 2]),
        ("[[1, 0], [0, 1]]", [[1, 0], [0, 1]]),
        ("x", "x"),
        ("5", 5),
        ("true", True),
        ("1\nb = 2", "1\nb = 2"),  # no second key
    ],
)
def test_value_of_an_unknown_key_is_toml_or_text(text: str, expected: Any) -> None:
    assert interpret(text, None) == expected


@pytest.mark.parametrize(
    ("text", "hint", "expected"),
    [
        (",", str, ","),
        ("#", str, "#"),
        ("5 # five", str, "5 # five"),
        ("a,b.csv", str, "a,b.csv"),
        ("[x]", str, "[x]"),
        ("none", Literal["none", "all"], "none"),
        ("?,n/a", tuple[str, ...], ["?", "n/a"]),
        ("-999", tuple[str, ...], "-999"),  # the reader makes it a list of one
        ("Date,Time", str | tuple[str, ...], ["Date", "Time"]),
        ("Date", str | tuple[str, ...], "Date"),
        ("1,2", int | tuple[int, ...] | None, [1, 2]),
        ("1", int | tuple[int, ...] | None, 1),
        ("null", int | None, None),
        ("[1,[2,3]]", tuple[float | tuple[float, ...], ...], [1, [2, 3]]),
        ("{n=10,by=label}", dict[str, str | int], {"n": 10, "by": "label"}),
    ],
)
def test_type_of_the_key_decides_how_a_text_is_read(text: str, hint: Any, expected: Any) -> None:
    assert interpret(text, hint) == expected


def test_single_values_in_a_file_are_lists_where_lists_are_meant() -> None:
    scenario = load_scenario({"model": {"kind": "mlp", "hidden": 32}, "run": {"rounds": [7]}})
    assert value(scenario, "model.hidden") == (32,)
    assert scenario.run.rounds == 7


def test_notices_are_no_key() -> None:
    assert "notices" not in hints_of(Scenario)
    with pytest.raises(ScenarioError, match="'notices' is not a key of a scenario"):
        load_scenario({"notices": ["x"]})
