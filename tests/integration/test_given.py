"""Objects of the wrong type from Python: the error names the argument, its type and the allowed type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAvg, Krum
from run_folders import digits
from torch import nn
from torch.utils.data import TensorDataset

import fedscape as fs
from clients.core.errors import DataError, RunFolderError, ScenarioError, StrategyError, UserError


class Silent:
    """Has no method of an observer: the name of its only one is misspelt."""

    def round_finish(self, line: dict[str, Any]) -> None:
        raise AssertionError


class Listener:
    def round_finished(self, line: dict[str, Any]) -> None:
        pass


class Lost(nn.Module):
    """A user's module that fails with an error other than ValueError or RuntimeError."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight  # there is no such attribute


def failing(ours: object) -> Any:
    raise LookupError("no such wrapper")


WRONG: dict[str, tuple[dict[str, Any], type[UserError], str]] = {
    "strategy class": (
        {"strategy": FedAvg}, StrategyError, "strategy: must be a strategy, got the class FedAvg. Pass FedAvg(...).",
    ),
    "another strategy class": ({"strategy": Krum}, StrategyError, "got the class Krum. Pass Krum(...)."),
    "strategy name": (
        {"strategy": "fedavg"}, StrategyError,
        "strategy: must be a Flower strategy, got the text 'fedavg'. Pass an object such as FedAvg()",
    ),
    "wrapper that raises": (
        {"strategy": failing}, StrategyError,
        "strategy: failing raised LookupError when given ours to wrap: no such wrapper.",
    ),
    "list of arrays": (
        {"data": [np.zeros((3, 2)), np.zeros(3)]}, DataError,
        "data: must be a population, got a list of 2. Make one from your clients' data: fs.custom_population(",
    ),
    "torch dataset": (
        {"data": TensorDataset(torch.zeros(3, 2))}, DataError, "data: must be a population, got a TensorDataset.",
    ),
    "name of data": ({"data": "digits"}, DataError, "data: must be a population, got the text 'digits'."),
    "model class": (
        {"model": nn.Flatten}, UserError,
        "model: must be a torch.nn.Module, got the class Flatten. Pass an object of it: Flatten(...).",
    ),
    "function for a model": (
        {"model": torch.relu}, UserError, "model: must be a torch.nn.Module, got the function relu.",
    ),
    "lazy model": (
        {"model": nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 10))}, UserError,
        "model: has parameters without a shape yet (0.weight, 0.bias). Call it once on a batch of examples first",
    ),
    "model that fails": (
        {"model": Lost()}, UserError, "model: fails on features of shape (64,): AttributeError: 'Lost' object has no",
    ),
    "client app": (
        {"client_app": FedAvg()}, StrategyError, "client_app: must be a flwr.clientapp.ClientApp, got a FedAvg.",
    ),
    "grid": ({"grid": ArrayRecord()}, StrategyError, "grid: must be a flwr.serverapp.Grid, got an ArrayRecord"),
    "one observer": (
        {"observers": Listener()}, UserError,
        "observers: must be a list of observers, got a Listener. Pass objects in a list: observers=[...].",
    ),
    "observer class": (
        {"observers": [Listener(), Listener]}, UserError,
        "observers[1]: must be an object, got the class Listener. Pass Listener(",
    ),
    "observer without methods": (
        {"observers": [Silent()]}, UserError,
        "observers[0]: has none of an observer's methods: attached, run_started, recorded_before, round_finished,",
    ),
    "stop": ({"stop_asked": True}, UserError, "stop_asked: must be a function that returns True to stop, got True."),
    "seed": ({"seed": "seven"}, UserError, "seed: must be a whole number, got 'seven'."),
    "half a seed": ({"seed": 0.5}, UserError, "seed: must be a whole number, got 0.5."),
    "out": ({"out": 7}, UserError, "out: must be a folder's path, got 7."),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_object_of_the_wrong_kind_is_named(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, kind, message = WRONG[what]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        fs.simulate(digits(), **given)
    assert type(error.value) is kind
    assert str(error.value).startswith(message) or (message.startswith("got") and message in str(error.value))
    assert not any(tmp_path.iterdir()), "the mistake created a folder"


def test_original_error_is_chained() -> None:
    with pytest.raises(StrategyError) as error:
        fs.simulate(digits(), strategy=failing, record=False)
    assert isinstance(error.value.__cause__, LookupError)
    with pytest.raises(UserError) as failed:
        fs.simulate(digits(), model=Lost(), record=False)
    assert isinstance(failed.value.__cause__, AttributeError)


def test_out_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    with pytest.raises(RunFolderError) as error:
        fs.simulate(digits(), out=file)
    assert (
        str(error.value)
        == f"out: must be a folder, new or empty, got the file {str(file)!r}. Name another folder with out= (--out)."
    )
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fs.simulate(["digits-iid"]), "scenario: must be a scenario, a table, a file's path or a bui"),  # type: ignore[arg-type]
        (lambda: fs.load_scenario(7), "scenario: must be a scenario, a table, a file's path or a built-in's name, got"),  # type: ignore[arg-type]
        (lambda: fs.load_scenario(sets="run.rounds=3"), "sets: must be a list of changes, got the text 'run."),
    ],
)  # fmt: skip
def test_scenario_of_the_wrong_kind_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        call()
    assert str(error.value).startswith(message)


def test_other_entry_points_check_the_same_arguments(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data: must be a population, got a list of 0"):
        fs.describe_data(digits(), data=[])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"model: must be a torch.nn.Module, got the class Linear"):
        fs.resume(tmp_path, model=nn.Linear)  # type: ignore[arg-type]
    fs.simulate("quadratic-two-clients", out=tmp_path / "run")
    with pytest.raises(UserError, match=r"model: must be a torch.nn.Module, got the class Linear"):
        fs.open_run(tmp_path / "run").model(nn.Linear)  # type: ignore[arg-type]


def test_valid_arguments_are_accepted() -> None:
    seeded = fs.simulate(digits("run.rounds=1"), seed=np.int64(3), record=False)  # type: ignore[arg-type]
    assert seeded.session.scenario.run.seed == 3
    module = nn.Sequential(nn.LazyLinear(10))
    module(torch.zeros(2, 64))
    assert (
        fs.simulate(digits("run.rounds=1"), model=module, observers=(Listener(),), record=False).rounds["round"][-1]
        == 1
    )


# custom_population's own arguments.


def client(k: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full((3, 2), float(k)), np.arange(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "regresion"}, "task: 'regresion' is not a task. Nearest: 'regression'. All: classification, regress"),
        ({"client": [1, 2]}, "client: must be a function of a client's index, got list. Pass client=lambda k:"),
        ({"client_test": 3, "client_test_sizes": [1, 1]}, "client_test: must be a function of a client's index, got i"),
        ({"outputs": 2.5}, "outputs: must be a whole number, at least 1, got 2.5."),
        ({"outputs": "3"}, "outputs: must be a whole number, at least 1, got '3'."),
        ({"outputs": 0}, "outputs: must be a whole number, at least 1, got 0."),
        ({"sizes": ["a", "b"]}, "sizes: must be whole numbers >= 0, one a client, got ['a', 'b']."),
        ({"client": lambda k: [1, 2]}, "client 0: must be (features, targets), got list."),
        (
            {"client": lambda k: (["a"] * 3, np.arange(3))},
            "client 0: features must be real numbers, got an array of <U1",
        ),
        ({"client": lambda k: ([[1], [1, 2]], np.arange(2))}, "client 0: features must be an array or a tensor: "),
    ],
)
def test_population_of_the_wrong_kind_is_refused(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"client": client, "sizes": [3, 3], "outputs": 3} | change
    with pytest.raises(UserError) as error:
        fs.custom_population(**arguments)
    assert str(error.value).startswith(message)


def test_client_that_raises_is_named_and_its_error_chained() -> None:
    def broken(k: int) -> tuple[np.ndarray, np.ndarray]:
        if k == 2:
            raise FileNotFoundError("site-2.csv")
        return client(k)

    population = fs.custom_population(broken, [3, 3, 3, 3], outputs=3)
    sets = ["algorithm.cohort=", "evaluation.baselines=false", "run.rounds=2", "engine.threads=1"]
    with pytest.raises(DataError) as error:
        fs.simulate(fs.load_scenario("digits-iid", sets=sets), model=nn.Linear(2, 3), data=population, record=False)
    assert str(error.value) == "client 2: broken(2) raised FileNotFoundError: site-2.csv."
    assert isinstance(error.value.__cause__, FileNotFoundError)
    with pytest.raises(DataError, match=r"client 0: <lambda>\(0\) raised ZeroDivisionError: integer div"):
        fs.custom_population(lambda k: 1 // 0, [3], outputs=3)  # type: ignore[arg-type,return-value]
