"""Models made by a function, and pooled arrays, from Python: seeded, dealt out, resumed, described, read back."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_folders import assert_same_run, digits, stop_after
from torch import Tensor, nn

import fedscape as fs
from clients.core.errors import DataError, PartitionError, RunFolderError, UserError
from clients.models.build import build_model
from fedscape.testing import Stepper
from simulator.runs.building import made_model

pytestmark = pytest.mark.usefixtures("one_thread")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 4))
Y = (X.sum(1) > 0).astype(int)
SETS = ("partition.clients=5", "algorithm.cohort=3", "run.rounds=4", "convergence.target=")


class Net(nn.Module):
    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


class Facts:
    def __init__(self) -> None:
        self.notices: list[str] = []

    def run_started(self, facts: dict[str, Any]) -> None:
        self.notices += facts.get("notices", [])


def notices(*, data: Any = None, model: Any = None, sets: tuple[str, ...] = SETS) -> list[str]:
    facts = Facts()
    fs.simulate(digits(*sets), model=model, data=data, observers=[facts], record=False)
    return facts.notices


def played(seed: int, model: Any, **more: Any) -> fs.Run:
    return fs.simulate(digits(*SETS), seed=seed, model=model, data=fs.arrays(X, Y), record=False, **more)


# Models made by a function


@pytest.mark.parametrize("model", [Net, lambda: Net(5), partial(Net, width=5)], ids=["class", "lambda", "partial"])
def test_seed_covers_a_model_that_a_function_makes(model: Any) -> None:
    torch.manual_seed(11)
    one = played(1, model)
    torch.manual_seed(12)
    same, other = played(1, model), played(2, model)
    assert torch.equal(one.session.start.params, same.session.start.params)
    assert torch.equal(one.params, same.params)
    assert not torch.equal(one.session.start.params, other.session.start.params)


def test_function_has_the_seed_of_a_built_in_model() -> None:
    """A module that draws its values as a built-in model does has the same initial values."""
    options = digits().model
    population = fs.population(digits())
    assert options is not None
    made: list[int] = []

    def factory() -> nn.Module:
        made.append(torch.initial_seed())
        return build_model(options, population, made[-1])

    ours = fs.simulate(digits("run.rounds=1"), record=False)
    theirs = fs.simulate(digits("run.rounds=1"), model=factory, record=False)
    assert torch.equal(ours.session.start.params, theirs.session.start.params)
    assert made[1] == made[0] != made[2], "it is called again with the same seed, and with another"
    (said,) = [w for w in notices(model=factory, sets=("run.rounds=1",)) if "function" in w] or [""]
    assert said == "", "values that follow from the seed without a drawn number are not stated"


def test_global_generators_are_as_before() -> None:
    def factory() -> nn.Module:
        net = Net()
        with torch.no_grad():
            net.body[0].weight.mul_(random.random() + np.random.rand())  # noqa: NPY002
        return net

    def state() -> list[Any]:
        return [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()]  # type: ignore[index]  # noqa: NPY002

    before = state()
    first, second = made_model(factory, 7)[0], made_model(factory, 7)[0]
    assert state() == before
    assert torch.equal(first.body[0].weight, second.body[0].weight)  # type: ignore[index,union-attr]
    assert not torch.equal(first.body[0].weight, made_model(factory, 8)[0].body[0].weight)  # type: ignore[index,union-attr]


def test_values_that_the_seed_does_not_cover_are_stated() -> None:
    data, net = fs.arrays(X, Y, task="classification"), Net()
    assert notices(model=Net, data=data) == []
    (notice,) = notices(model=net, data=data)
    assert notice.startswith("initial values are those of the model passed; the seed does not cover them")
    (notice,) = notices(model=lambda: net, data=data)
    assert notice.startswith("the function that makes the model drew no random numbers")

    def seeding() -> nn.Module:
        torch.manual_seed(3)
        return Net()

    def unseeded() -> nn.Module:
        net = Net()
        nn.init.constant_(net.body[0].bias, np.random.default_rng().normal())
        return net

    (said,) = notices(model=seeding, data=data)
    assert said.endswith("or seeds its generator itself: the seed does not change initial values")
    (said,) = notices(model=unseeded, data=data)
    assert said.startswith("the function that makes the model gives other initial values in a second call")


def test_object_passed_keeps_its_values_and_is_not_changed() -> None:
    net = Net()
    before = nn.utils.parameters_to_vector(net.parameters()).detach().clone()
    run = played(1, net)
    assert torch.equal(run.session.start.params, before)
    assert torch.equal(nn.utils.parameters_to_vector(net.parameters()), before)
    assert not torch.equal(run.params, before)


def test_interrupted_run_with_a_function_and_arrays_resumes_to_the_same_bits(tmp_path: Path) -> None:
    given = {"model": Net, "data": fs.arrays(X, Y)}
    whole = fs.simulate(digits(*SETS), out=tmp_path / "whole", **given)  # type: ignore[arg-type]
    fs.simulate(digits(*SETS), out=tmp_path / "cut", stop_asked=stop_after(2), **given)  # type: ignore[arg-type]
    again = fs.resume(tmp_path / "cut", model=lambda: Net(), data=fs.arrays(X, Y))
    assert torch.equal(again.params, whole.params)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    read = fs.open_run(tmp_path / "cut").model(model=Net)
    assert torch.equal(nn.utils.parameters_to_vector(read.parameters()), whole.params)
    assert not read.training


def test_resume_refuses_data_of_the_other_kind(tmp_path: Path) -> None:
    own = fs.custom_population(lambda k: (X[:9], Y[:9]), [9] * 5, outputs=2, validation=(X, Y))
    pooled = fs.arrays(X, Y)
    fs.simulate(digits(*SETS), out=tmp_path / "pooled", model=Net, data=pooled, stop_asked=stop_after(1))
    fs.simulate(digits(*SETS), out=tmp_path / "own", model=Net, data=own, stop_asked=stop_after(1))
    with pytest.raises(RunFolderError, match=r"was started with pooled arrays, fs.arrays\(...\). Pass the same data="):
        fs.resume(tmp_path / "pooled", model=Net, data=own)
    with pytest.raises(RunFolderError, match=r"was started with a population of its own clients. Pass the same data="):
        fs.resume(tmp_path / "own", model=Net, data=pooled)
    with pytest.raises(RunFolderError, match="was started from Python with its own model and data"):
        fs.resume(tmp_path / "own")


def test_notices_are_logged_where_nothing_observes_the_run(caplog: pytest.LogCaptureFixture) -> None:
    played(1, Net())
    assert [r.getMessage().partition(";")[0] for r in caplog.records] == [
        "fedscape: targets are taken as 2 classes", "fedscape: initial values are those of the model passed",
    ]  # fmt: skip
    caplog.clear()
    notices(model=Net(), data=fs.arrays(X, Y))
    assert caplog.records == [], "an observer shows them"
    fs.describe_data(digits(*SETS), data=fs.arrays(X, Y))
    assert [r.getMessage() for r in caplog.records] == ["fedscape: targets are taken as 2 classes"]


# Pooled arrays


def test_scenarios_partition_deals_arrays_out() -> None:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    sets = ("partition.clients=7", "partition.concentration=0.2", "run.seed=3")
    there, here = fs.population(digits(*sets)), fs.population(digits(*sets), data=fs.arrays(x / 16, y))
    assert here.sizes.tolist() == there.sizes.tolist()
    clients = np.arange(7)
    assert torch.equal(here.cohort(clients).features[here.cohort(clients).rows],
                       there.cohort(clients).features[there.cohort(clients).rows])  # fmt: skip
    built_in = fs.simulate(digits(*sets), record=False)
    pooled = fs.simulate(digits(*sets), data=fs.arrays(x / 16, y), record=False)
    assert torch.equal(built_in.params, pooled.params)
    assert built_in.rounds["validation_loss"].tolist() == pooled.rounds["validation_loss"].tolist()


def test_record_keeps_the_partition_and_the_notices(tmp_path: Path) -> None:
    run = fs.simulate(digits(*SETS), model=Net, data=fs.arrays(X, Y), out=tmp_path / "run")
    read = fs.open_run(tmp_path / "run").scenario
    assert read.data is None
    assert read.partition == digits(*SETS).partition
    assert run.session.population.federation.notices == ("targets are taken as 2 classes",)


def test_seed_deals_arrays_out_anew() -> None:
    def rows(seed: int) -> list[int]:
        return fs.population(digits(*SETS), seed=seed, data=fs.arrays(X, Y)).cohort(np.arange(5)).rows.tolist()

    assert rows(1) == rows(1) != rows(2)


def test_faults_and_features_act_on_pooled_arrays() -> None:
    sets = (*SETS, "faults.wrong={kind='label_symmetric', severity=0.5}", "features.normalise=federated")
    population = fs.population(digits(*sets), data=fs.arrays(X, Y))
    wrong = np.concatenate(population.masks(np.arange(5))["wrong"])
    assert 0.2 < wrong.mean() < 0.6
    run = fs.simulate(digits(*sets), model=Net, data=fs.arrays(X, Y), record=False)
    assert run.verdict.outcome == "stopped"


def test_float64_of_a_run_reaches_pooled_arrays() -> None:
    stamps = np.column_stack([X[:, :3], 1.7e9 + np.arange(len(X))])
    data = fs.arrays(stamps, Y, task="classification")
    (notice,) = fs.population(digits(*SETS), data=data).federation.notices
    assert notice.startswith(
        "features, column 3: numbers from 1700000000 to 1700000199, and float32 keeps them to within"
    )
    exact = fs.population(digits(*SETS, "run.dtype=float64"), data=data)
    assert exact.federation.notices == ()
    assert sorted(exact.cohort(np.arange(5)).features[:, 3].tolist()) == sorted(
        set(stamps[:, 3].tolist()) - {float(v) for part in (exact.validation, exact.test) if part is not None
                                      for v in part.features[:, 3].tolist()}
    )  # fmt: skip


def test_population_with_fewer_digits_than_the_run_is_stated() -> None:
    def own(dtype: torch.dtype) -> fs.Population:
        return fs.custom_population(lambda k: (X[:9], Y[:9]), [9] * 5, outputs=2, validation=(X, Y), dtype=dtype)

    sets = (*SETS, "partition=", "run.dtype=float64")
    (notice,) = notices(model=Net, data=own(torch.float32), sets=sets)
    assert notice.startswith("features of data= were kept as float32, and the run computes with float64: ")
    assert notices(model=Net, data=own(torch.float64), sets=sets) == []
    (notice,) = notices(model=Net, data=own(torch.float64), sets=(*SETS, "partition="))
    assert notice == "features of data= are float64, and the run computes with float32. Set run.dtype = 'float64'."


def test_numbers_beyond_the_runs_type_are_refused_although_the_data_hold_them() -> None:
    huge = np.where(X > 2, 1e39, X)
    own = fs.custom_population(lambda k: (huge, Y), [200], outputs=2, validation=(X, Y), dtype=torch.float64)
    says = r"data: features must fit into float32, at most 3.4e\+38, and row \d+, column \d is 1e\+39. Set run.dtype"
    for data in (own, fs.arrays(huge, Y, dtype=torch.float64)):
        with pytest.raises(DataError, match=says):
            fs.simulate(digits(*SETS, "algorithm.cohort="), model=Net, data=data, record=False)


def test_unequal_clients_of_arrays_are_described() -> None:
    measures = fs.describe_data(digits(*SETS), data=fs.arrays(X, Y), model=Net)
    assert measures.clients == 5
    assert measures.gradient_dissimilarity is not None


@pytest.mark.parametrize(
    ("sets", "keys", "says"),
    [
        (
            ("partition=",),
            None,
            r"partition: is missing, and fs.arrays\(...\) come without clients. Add one: fs.load_sce",
        ),
        (("partition=",), {"user": Y}, r'With the key \'user\': "partition.kind=natural", "partition.key=user".'),
        (
            ("partition={kind='natural', key='user'}",),
            None,
            r"partition.key: these data have no keys. Pass them: fs.arr",
        ),
        (("partition={kind='natural', key='usr'}",), {"user": Y}, r"partition.key: 'usr' is not a key of .* 'user'"),
        (
            ("partition.clients=500",),
            None,
            "partition.clients: 500 clients cannot share 160 examples. At most 160 clien",
        ),
    ],
)
def test_partition_that_does_not_fit_arrays_is_named(sets: tuple[str, ...], keys: Any, says: str) -> None:
    for call in (fs.population, fs.describe_data):
        with pytest.raises(PartitionError, match=says):
            call(digits(*sets), data=fs.arrays(X, Y, keys=keys))


def test_partition_that_own_clients_replace_is_stated() -> None:
    own = fs.custom_population(lambda k: (X[:9], Y[:9]), [9] * 5, outputs=2, validation=(X, Y))
    notice = "[partition] 'dirichlet' is not used: data= brings its own clients (fs.arrays(x, y) is dealt out by it)"
    assert notices(model=Net, data=own) == [notice]
    assert fs.population(digits(*SETS), data=own).federation.notices == (notice,)
    assert notices(model=Net, data=own, sets=(*SETS, "partition=")) == []


def test_embedding_of_tokens_that_became_numbers_is_answered_with_the_type() -> None:
    tokens = RNG.integers(0, 9, (200, 4))
    embedding = nn.Sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(8, 2))
    with pytest.raises(UserError, match=r"An embedding takes whole numbers: pass dtype=torch.int64 with the data."):
        fs.simulate(digits(*SETS), model=embedding, data=fs.arrays(tokens, Y), record=False)
    with pytest.raises(
        UserError, match=r"The features are torch.int64: as ids of tokens they need .*; as numbers, dtype="
    ):
        fs.simulate(digits(*SETS), model=Net, data=fs.arrays(tokens, Y, dtype=torch.int64), record=False)
    data = fs.arrays(tokens, X[:, 0], dtype=torch.int64)
    regression = nn.Sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(8, 1))
    given = digits(*SETS, "partition={kind='iid', clients=5}", "convergence={}")
    run = fs.simulate(given, model=regression, data=data, record=False)
    assert run.session.population.cohort(np.arange(5)).targets.dtype == torch.float32


def test_stepper_takes_functions_and_arrays() -> None:
    stepper = Stepper(digits(*SETS), model=Net, data=fs.arrays(X, Y))
    run = fs.simulate(digits(*SETS), model=Net, data=fs.arrays(X, Y), record=False)
    assert torch.equal(stepper.step(4)[-1], run.params)
