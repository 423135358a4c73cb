"""Objects of the wrong type from Python: the error names the argument, its type and the allowed type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Context
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from flwr.common import ndarrays_to_parameters
from flwr.server.strategy import FedAdam as OldFedAdam
from flwr.server.strategy import FedAvg as OldFedAvg
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg, Krum
from run_folders import digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fedscape as fs
from clients.core.errors import DataError, RunFolderError, ScenarioError, StrategyError, UserError


class Silent:
    """Has no method of an observer: the name of its only one is misspelt."""

    def round_finish(self, line: dict[str, Any]) -> None:
        raise AssertionError


class Listener:
    def round_finished(self, line: dict[str, Any]) -> None:
        pass


class Deaf:
    def round_finished(self) -> None:
        raise AssertionError


class Waiting:
    async def snapshot_taken(self, snapshot: fs.Snapshot) -> None:
        raise AssertionError


class Lost(nn.Module):
    """A user's module that fails with an error other than ValueError or RuntimeError."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight  # there is no such attribute


def failing(ours: object) -> Any:
    raise LookupError("no such wrapper")


class DataFrame:
    """Has what identifies a data frame of pandas or polars."""

    columns = ("a", "label")

    def to_numpy(self) -> np.ndarray:
        return np.zeros((3, 2))


def failing_model() -> nn.Module:
    raise LookupError("no such layer")


# Parts of Flower's old API, as in tutorials before 2025.


OLD_PARAMETERS = ndarrays_to_parameters([np.zeros(2)])


class Mine(OldFedAvg):
    pass


class OldClient(NumPyClient):
    pass


def client_fn(context: Context) -> Any:
    return OldClient().to_client()


WRONG: dict[str, tuple[dict[str, Any], type[UserError], str]] = {
    "strategy class": (
        {"strategy": FedAvg}, StrategyError,
        "strategy: must be a Flower strategy, got the class FedAvg. Pass FedAvg(...).",
    ),
    "another strategy class": ({"strategy": Krum}, StrategyError, "got the class Krum. Pass Krum(...)."),
    "strategy name": (
        {"strategy": "fedavg"}, StrategyError,
        "strategy: must be a Flower strategy, got the text 'fedavg'. A built-in algorithm is named in the scenario: "
        'sets=["algorithm.kind=fedavg"]; a strategy is an object: from flwr.serverapp.strategy import FedAvg',
    ),
    "wrapper that raises": (
        {"strategy": failing}, StrategyError,
        "strategy: failing raised when given ours to wrap: LookupError: no such wrapper (at ",
    ),
    "old strategy": (
        {"strategy": OldFedAdam(initial_parameters=OLD_PARAMETERS)}, StrategyError,
        "strategy: must be a Flower strategy, got a FedAdam of Flower's old API. Use Flower's present strategies: "
        "from flwr.serverapp.strategy import FedAdam; strategy=FedAdam(...).",
    ),
    "old strategy class": (
        {"strategy": OldFedAdam}, StrategyError,
        "strategy: must be a Flower strategy, got the class FedAdam of Flower's old API. Use Flower's present",
    ),
    "subclass of an old strategy": (
        {"strategy": Mine()}, StrategyError,
        "strategy: must be a Flower strategy, got a Mine of Flower's old API. Use Flower's present strategies: from "
        "flwr.serverapp.strategy import FedAvg; strategy=FedAvg(...).",
    ),
    "algorithm as strategy": (
        {"strategy": fs.Algorithm("mine")}, StrategyError, "strategy: must be a Flower strategy, got an Algorithm. P",
    ),
    "list of arrays": (
        {"data": [np.zeros((3, 2)), np.zeros(3)]}, DataError,
        "data: must be clients with their data or pooled arrays, got a list of 2. Pass data=fs.arrays(x, y), which "
        "[partition] deals out; or data=fs.custom_population(lambda k: (x[k], y[k]), sizes, outputs=10)",
    ),
    "pair of arrays": (
        {"data": (np.zeros((3, 2)), np.zeros(3))}, DataError,
        "data: must be clients with their data or pooled arrays, got a tuple of 2. Pass data=fs.arrays(x, y), which "
        "[partition] deals out: data=fs.arrays(*data).",
    ),
    "clients by name": (
        {"data": {"a": (np.zeros((3, 2)), np.zeros(3))}}, DataError,
        "data: must be clients with their data or pooled arrays, got a dict of 1. Pass data=fs.custom_population("
        "list(data.values()).__getitem__, [len(y) for x, y in list(data.values())], outputs=10).",
    ),
    "list of clients": (
        {"data": [(np.zeros((3, 2)), np.zeros(3)), (np.zeros((1, 2)), np.zeros(1))]}, DataError,
        "data: must be clients with their data or pooled arrays, got a list of 2. Pass data=fs.custom_population("
        "data.__getitem__, [len(y) for x, y in data], outputs=10).",
    ),
    "array": (
        {"data": np.zeros((3, 2))}, DataError,
        "data: must be clients with their data or pooled arrays, got a ndarray. Pass its targets too: data=fs.arrays(",
    ),
    "data frame": (
        {"data": DataFrame()}, DataError,
        "data: must be clients with their data or pooled arrays, got a DataFrame. Pass data=fs.arrays(table[features]",
    ),
    "torch dataset": (
        {"data": TensorDataset(torch.zeros(3, 2))}, DataError,
        "data: must be clients with their data or pooled arrays, got a TensorDataset. Take its arrays, x = torch.stac",
    ),
    "data loader": (
        {"data": DataLoader(TensorDataset(torch.zeros(3, 2)))}, DataError,
        "data: must be clients with their data or pooled arrays, got a DataLoader. Take its arrays, x = torch.stack(",
    ),
    "function of a client": (
        {"data": lambda k: None}, DataError,
        "data: must be clients with their data or pooled arrays, got the function <lambda>. Pass data=fs.custom_popul",
    ),
    "name of data": (
        {"data": "digits"}, DataError,
        "data: must be clients with their data or pooled arrays, got the text 'digits'. Files and built-in sets are "
        "named in the scenario: [data] kind=digits;",
    ),
    "model class with arguments": (
        {"model": nn.Linear}, UserError,
        "model: must be a torch.nn.Module or a function that makes one, got the class Linear, which needs arguments "
        "(in_features, out_features). Pass model=lambda: Linear(...), whose initial values the seed covers, or an",
    ),
    "another class for a model": (
        {"model": dict}, UserError,
        "model: must be a torch.nn.Module or a function that makes one, got the class dict. Pass a torch.nn.Module, or",
    ),
    "function for a model": (
        {"model": torch.relu}, UserError,
        "model: must be a torch.nn.Module or a function that makes one, got the function relu. Pass a torch.nn.Module",
    ),
    "function of features for a model": (
        {"model": lambda x: x}, UserError,
        "model: must be a torch.nn.Module or a function that makes one, got the function <lambda>, which needs arg",
    ),
    "function that makes no model": (
        {"model": lambda: [nn.Linear(64, 10)]}, UserError,
        "model: is a function that returned a list of 1, not a torch.nn.Module. Return the module: def make(): return",
    ),
    "function that raises for a model": (
        {"model": failing_model}, UserError,
        "model: failing_model raised when it made the model: LookupError: no such layer (at ",
    ),
    "path of a model": (
        {"model": "model.pt"}, UserError,
        "model: must be a torch.nn.Module or a function that makes one, got the text 'model.pt'. Load it first: net =",
    ),
    "name of a model": (
        {"model": "mlp"}, UserError,
        "model: must be a torch.nn.Module or a function that makes one, got the text 'mlp'. A built-in model is named "
        'in the scenario: sets=["model.kind=mlp"].',
    ),
    "state dict for a model": (
        {"model": nn.Linear(2, 2).state_dict()}, UserError,
        "model: must be a torch.nn.Module or a function that makes one, got an OrderedDict of 2. A state dict has only",
    ),
    "layers for a model": (
        {"model": [nn.Linear(64, 10)]}, UserError,
        "model: must be a torch.nn.Module or a function that makes one, got a list of 1. Pass model=torch.nn.Seq",
    ),
    "optimizer for an algorithm": (
        {"algorithm": torch.optim.SGD([nn.Parameter(torch.zeros(1))])}, StrategyError,
        'algorithm: must be a fedscape.Algorithm, got a SGD. Clients take it from the scenario, sets=["local.opt',
    ),
    "optimizer class for an algorithm": (
        {"algorithm": torch.optim.Adam}, StrategyError,
        "algorithm: must be a fedscape.Algorithm, got the class Adam. Clients take it from the scenario",
    ),
    "name for an algorithm": (
        {"algorithm": "fedprox"}, StrategyError,
        "algorithm: must be a fedscape.Algorithm, got the text 'fedprox'. A built-in algorithm is named in the scenario"
        ': sets=["algorithm.kind=fedprox"].',
    ),
    "rule for an algorithm": (
        {"algorithm": fs.proximal(0.1)}, StrategyError,
        "algorithm: must be a fedscape.Algorithm, got a LocalRule. Pass algorithm=fs.Algorithm(\"proximal\", local=",
    ),
    "transform for an algorithm": (
        {"algorithm": fs.adam(0.1)}, StrategyError,
        "algorithm: must be a fedscape.Algorithm, got a ServerTransform. Pass algorithm=fs.Algorithm(\"mine\", server=",
    ),
    "strategy for an algorithm": (
        {"algorithm": FedAvg()}, StrategyError,
        "algorithm: must be a fedscape.Algorithm, got a FedAvg. A Flower strategy is passed as strategy=: from flwr.",
    ),
    "lazy model": (
        {"model": nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 10))}, UserError,
        "model: has parameters without a shape yet (0.weight, 0.bias). Call it once on a batch of examples first",
    ),
    "model that fails": (
        {"model": Lost()}, UserError, "model: fails on features of shape (64,): AttributeError: 'Lost' object has no",
    ),
    "client app": (
        {"client_app": FedAvg()}, StrategyError,
        "client_app: must be a flwr.clientapp.ClientApp, got a FedAvg. A strategy is passed as strategy=.",
    ),
    "client_fn": (
        {"client_app": client_fn}, StrategyError,
        "client_app: must be a flwr.clientapp.ClientApp, got the function client_fn. Write it as from flwr.clientapp "
        "import ClientApp; app = ClientApp(); write @app.train() over a function (message, context) -> Message",
    ),
    "old client": (
        {"client_app": OldClient()}, StrategyError,
        "client_app: must be a flwr.clientapp.ClientApp, got an OldClient of Flower's old API. Write it as from flwr.",
    ),
    "old client class": (
        {"client_app": OldClient}, StrategyError,
        "client_app: must be a flwr.clientapp.ClientApp, got the class OldClient of Flower's old API. Write it as",
    ),
    "app of a client_fn": (
        {"client_app": ClientApp(client_fn=client_fn)}, StrategyError,
        "client_app: is a ClientApp with a client_fn, Flower's old API: it takes other messages than those sent here. "
        "Write it as from flwr.clientapp import ClientApp",
    ),
    "server app": (
        {"client_app": ServerApp()}, StrategyError,
        "client_app: must be a flwr.clientapp.ClientApp, got a ServerApp. fedscape has its own server: pass the strat",
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
        "observers[0]: has none of an observer's methods: attached, run_started, recorded_before, progress, "
        "round_finished, snapshot_taken, event, run_finished; got a Silent. Rename 'round_finish' to 'round_finished'.",
    ),
    "function as observer": (
        {"observers": [print]}, UserError,
        "observers[0]: has none of an observer's methods: attached, run_started, recorded_before, progress, "
        "round_finished, snapshot_taken, event, run_finished; got the function print. Pass an object whose method",
    ),
    "observer whose method takes nothing": (
        {"observers": [Listener(), Deaf()]}, UserError,
        "observers[1].round_finished: must take one argument, and takes none. Write def round_finished(self, line).",
    ),
    "asynchronous observer": (
        {"observers": [Waiting()]}, UserError,
        "observers[0].snapshot_taken: is asynchronous, and nothing would wait for it. Write def, not async def.",
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
    with pytest.raises(DataError, match=r"data: must be clients with their data or pooled arrays, got a list of 0"):
        fs.describe_data(digits(), data=[])  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"data: must be clients with their data or pooled arrays, got a list of 0"):
        fs.population(digits(), data=[])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"model: must be .* got the class Linear, which needs arguments"):
        fs.resume(tmp_path, model=nn.Linear)
    run = fs.simulate("quadratic-two-clients", out=tmp_path / "run")
    with pytest.raises(UserError, match=r"model: must be .* got the class Linear, which needs arguments"):
        fs.open_run(tmp_path / "run").model(nn.Linear)
    for call in (fs.open_run, fs.resume):
        with pytest.raises(RunFolderError, match=r"path: must be the path of a run's folder, got a Run. Pass run.path"):
            call(run)  # type: ignore[arg-type]


def test_parts_and_runs_are_no_scenarios(tmp_path: Path) -> None:
    run = fs.simulate("quadratic-two-clients", out=tmp_path / "run")
    cases: list[tuple[Any, str]] = [
        (nn.Linear(2, 2), "got a Linear. Pass it as model=: fs.simulate(scenario, model=model)."),
        (fs.arrays(np.zeros((9, 2)), np.arange(9) % 3), "got a PooledArrays. Pass it as data="),
        (fs.Algorithm("mine"), "got an Algorithm. Pass it as algorithm=."),
        (FedAvg(), "got a FedAvg. Pass it as strategy=."),
        (run, "got a Run. Run its scenario again: fs.simulate(run.session.scenario); continue it: fs.resume(run.path)"),
        (fs.open_run(tmp_path / "run"), "got a Record. Run its scenario again: fs.simulate(record.scenario)"),
        (tmp_path / "run", f"It is a run's folder. Read it: fs.open_run('{tmp_path / 'run'}'); continue it: fs.res"),
    ]
    for value, message in cases:
        for call in (fs.simulate, fs.describe_data, fs.population):
            with pytest.raises(ScenarioError) as error:
                call(value)
            assert str(error.value).startswith("scenario: must be a scenario, a file's path or a built-in's name, got ")
            assert message in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fs.Algorithm("a", local=failing), "local: must be a LocalRule, got the function failing. Make it w"),
        (lambda: fs.Algorithm("a", local=fs.proximal), "local: must be a LocalRule, got the function proximal. Make"),
        (lambda: fs.Algorithm("a", server=torch.optim.SGD), "server: must be a ServerTransform, got the class SGD. "),
        (lambda: fs.Algorithm("a", server=fs.adam), "server: must be a ServerTransform, got the function adam. Make"),
        (lambda: fs.Algorithm("a", aggregation="median"), "aggregation: must be an Aggregation, got 'median'. Make "),
        (lambda: fs.Algorithm("a", uplink=0.1), "uplink: must be an Uplink, got 0.1. Make it with fs.top_k(0.1)."),
        (lambda: fs.Algorithm(fs.proximal(0.1)), 'name: must be text. Pass a name first: fs.Algorithm("mine", local'),
        (lambda: fs.chain(fs.clip_norm, fs.adam()), "chain[0]: must be a ServerTransform, got the function clip_nor"),
        (lambda: fs.chain(fs.adam(), [fs.adam()]), "chain[1]: must be a ServerTransform, got a list. Call it with i"),
        (lambda: fs.adam("0.1"), "server_lr: must be a number, got '0.1'."),
        (lambda: fs.momentum(1.0, None), "beta: must be a number, got None."),
        (lambda: fs.sgd(True), "server_lr: must be a number, got True."),
        (lambda: fs.yogi(tau="a"), "tau: must be a number, got 'a'."),
        (lambda: fs.adagrad(beta1="a"), "beta1: must be a number, got 'a'."),
        (lambda: fs.clip_norm(None), "norm: must be a number, got None."),
        (lambda: fs.clipped(1.0, 2.0), "aggregation: must be an Aggregation, got 1.0. Pass fs.clipped(fs.weighted_m"),
        (lambda: fs.clipped(fs.weighted_mean(), "2"), "norm: must be a number, got '2'."),
        (lambda: fs.weighted_mean("size"), "weighting: 'size' is not a weighting. All: examples, uniform, unbiased."),
        (lambda: fs.top_k("0.1"), "fraction: must be a number, got '0.1'."),
        (lambda: fs.proximal("0.1"), "mu: must be a number, got '0.1'."),
        (lambda: fs.to_toml("digits-iid"), "scenario: must be a Scenario, got str. Pass fs.to_toml(fs.load_scenario"),
        (lambda: fs.describe_data("digits-iid", round_index="1"), "round: must be a whole number >= 0, got '1'."),
        (lambda: fs.describe_data("digits-iid", out=3), "out: must be a folder's path, got 3."),
        (lambda: fs.population("digits-iid", seed=0.5), "seed: must be a whole number, got 0.5."),
        (lambda: fs.simulate(digits(), record="runs/a"), "record: must be True or False, got the text 'runs/a'. The"),
        (lambda: fs.open_run(3), "path: must be the path of a run's folder, got 3. Pass the path that run.path has."),
        (lambda: fs.arrays(np.zeros((3, 2)), [0, 1, 0], task="cluster"), "task: 'cluster' is not a task. All: class"),
        (lambda: fs.arrays(np.zeros((3, 2)), [0, 1, 0], outputs=2.0), "outputs: must be a whole number, at least 1,"),
        (lambda: fs.arrays(np.zeros((3, 2)), [0, 1, 0], long_tail=0.5), "long_tail: must be >= 1, got 0.5."),
        (lambda: fs.arrays(np.zeros((0, 2)), []), "x: has no examples."),
    ],
)  # fmt: skip
def test_argument_of_the_wrong_type_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError) as error:
        call()
    assert str(error.value).startswith(message)


def test_local_rule_works_with_and_without_parentheses() -> None:
    def pull(gradient: Any, params: Any, anchor: Any, broadcast: Any, state: Any) -> Any:
        return gradient

    assert fs.local_rule(pull) == fs.local_rule()(pull)
    assert fs.local_rule(pull).signature == "pull"


def test_changes_of_a_scenario_object_are_not_dropped() -> None:
    def rows(population: fs.Population) -> list[int]:
        return population.cohort(np.arange(8)).rows.tolist()

    assert rows(fs.population(digits(), seed=3)) == rows(fs.population(digits("run.seed=3")))
    assert rows(fs.population(digits(), seed=3)) != rows(fs.population(digits()))
    assert fs.population(digits(), sets=["partition.clients=3"]).num_clients == 3
    assert fs.describe_data(digits(), sets=["partition.clients=3"]).clients == 3


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
        ({"client": [(1, 2)]}, "client: must be a function of a client's index, got list. Pass client=clients.__getit"),
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
    sets = ["algorithm.cohort=", "evaluation.baselines=false", "run.rounds=2", "engine.threads=1", "engine.workers=1"]
    with pytest.raises(DataError) as error:
        fs.simulate(fs.load_scenario("digits-iid", sets=sets), model=nn.Linear(2, 3), data=population, record=False)
    line = broken.__code__.co_firstlineno + 2
    place = f'at {__file__}, line {line}, in broken: raise FileNotFoundError("site-2.csv")'
    assert str(error.value) == f"client 2: broken(2) raised FileNotFoundError: site-2.csv ({place})."
    assert isinstance(error.value.__cause__, FileNotFoundError)
    with pytest.raises(DataError, match=r"client 0: <lambda>\(0\) raised ZeroDivisionError: integer div"):
        fs.custom_population(lambda k: 1 // 0, [3], outputs=3)  # type: ignore[arg-type,return-value]
