"""What is tuned is read from texts and tables, and every mistake is found before a run."""

from __future__ import annotations

from typing import Any

import pytest

from clients.core.errors import UserError
from simulator.scenario.sections import load_scenario
from simulator.tuning.parameters import Parameter, applies, own_values, parameters_of


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("local_lr=log:0.001:1", Parameter("local.local_lr", 0.001, 1, is_log=True)),
        ("local.local_lr=0.25:1:0.25", Parameter("local.local_lr", 0.25, 1, step=0.25)),
        ("local.local_epochs=1:8", Parameter("local.local_epochs", 1, 8, is_whole=True)),
        ("local.local_epochs=log:1:64", Parameter("local.local_epochs", 1, 64, is_log=True, is_whole=True)),
        ("algorithm.kind=fedavg,scaffold", Parameter("algorithm.kind", choices=("fedavg", "scaffold"))),
        ("model.hidden=[16],[32,32]", Parameter("model.hidden", choices=("[16]", "[32,32]"))),
    ],
)
def test_text_is_read_as_a_range_or_choices(given: str, wanted: Parameter) -> None:
    (found,) = parameters_of([given], load_scenario("digits-label-skew"))
    assert found == wanted
    assert parameters_of([str(found)], load_scenario("digits-label-skew")) == (found,)


def test_table_is_read_as_the_text_of_the_same_meaning() -> None:
    scenario = load_scenario("digits-label-skew")
    table: dict[str, Any] = {
        "local.local_lr": {"from": 0.001, "to": 1, "scale": "log"},
        "local.local_epochs": {"from": 2, "to": 8, "step": 2},
        "model.hidden": [[16], [32, 32]],
        "algorithm.server_momentum": [0.0, 0.9],
        "algorithm.kind": ["fedavgm", "fedavg"],
    }
    texts = ["local_lr=log:0.001:1", "local_epochs=2:8:2", "model.hidden=[16],[32,32]"]
    assert parameters_of(dict(list(table.items())[:3]), scenario) == parameters_of(texts, scenario)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "params: names nothing to tune"),
        ("local_lr=0:1", "params: must be a list of texts"),
        (["local_lr"], "params: must be KEY=RANGE or KEY=CHOICES, got 'local_lr'"),
        (["local_lr=1:0.1"], "local.local_lr: must have a low end below its high end, got 1:0.1"),
        (["local_lr=log:0:1"], "local.local_lr: must have a low end above 0 on a logarithmic scale, got 0"),
        (["local_lr=log:x:1"], "local.local_lr: must be LOW:HIGH"),
        (["local_lr=0.1:1:2"], "local.local_lr: must have a step above 0"),
        (["local_lr=0.1"], "local.local_lr: must have two choices or more"),
        (["local_lr=-1:1"], "local.local_lr: must be >"),
        (["local_epochs=0.5:8"], "local.local_epochs: takes whole numbers alone"),
        (["local_lr=0.1:1", "local.local_lr=0.2:1"], "local.local_lr: is a parameter twice"),
        (["algorithm.mu=log:0.01:1"], "algorithm.mu: 'mu' is not a key of [algorithm] of kind 'fedavg'"),
        (["algorithm.kind=fedavg,fedprx"], "algorithm.kind: 'fedprx' is not"),
        (["no_such_key=0:1"], "'no_such_key' is not a key of any section"),
        ({"local.local_lr": {"from": 0.1, "until": 1}}, "local.local_lr: has the unknown key"),
        ({"local.local_lr": {"from": 0.1, "to": 1, "scale": "cubic"}}, "scale: must be linear or log, got 'cubic'"),
        ({"local.local_lr": {"from": 0.1, "to": "high"}}, "local.local_lr.to: must be a number, got 'high'"),
        ({"local.local_lr": 0.1}, "local.local_lr: must be a range or a list of choices, got 0.1"),
    ],
)
def test_mistake_names_the_key_and_what_is_allowed(given: Any, words: str) -> None:
    with pytest.raises(UserError) as error:
        parameters_of(given, load_scenario("digits-label-skew"))
    assert str(error.value).startswith(words) or words in str(error.value)


def test_key_of_another_kind_is_found_under_an_earlier_choice() -> None:
    scenario = load_scenario("digits-label-skew")
    kind, mu = parameters_of(["algorithm.kind=fedavg,fedprox", "algorithm.mu=log:0.01:1"], scenario)
    assert not applies(mu, scenario)
    assert applies(mu, load_scenario(scenario, sets=[f"{kind.key}=fedprox"]))


def test_own_values_are_those_of_the_scenario_where_all_are_in_range() -> None:
    scenario = load_scenario("digits-label-skew", sets=["local.local_lr=0.05", "model.hidden=[16]"])
    texts = ["local_lr=0.01:1", "model.hidden=[16],[32]", "algorithm.kind=fedprox,fedavg", "algorithm.mu=0:1"]
    found = own_values(parameters_of(texts, scenario), scenario)
    assert found == {"local.local_lr": 0.05, "model.hidden": "[16]", "algorithm.kind": "fedavg"}
    assert own_values(parameters_of(["local_lr=0.1:1"], scenario), scenario) == {}
    assert own_values(parameters_of(["local_lr=0.01:0.81:0.2"], scenario), scenario) == {}


def test_place_in_a_range_follows_its_scale() -> None:
    assert Parameter("k", 0.01, 1, is_log=True).within(0.1) == pytest.approx(0.5)
    assert Parameter("k", 0, 4).within(1) == pytest.approx(0.25)
