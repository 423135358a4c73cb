"""Builds the population, the model and the task of a scenario, with the parts that Python replaces."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import nn

from clients.core import streams
from clients.core.checks import check_fits
from clients.core.errors import PartitionError, ScenarioError, UserError
from clients.core.options import DataOptions
from clients.core.population import Population
from clients.core.user_code import name_of, naming
from clients.federation.build import Federation, build_federation
from clients.models.build import build_model, outlined_model
from clients.sources.pooled_arrays import PooledArrays
from clients.training.task import LearningTask, make_task
from server.algorithms.algorithm import Algorithm
from server.algorithms.build import local_for
from server.algorithms.table import ALGORITHMS
from server.convergence.monitor import required_facts
from simulator.engines.memory import check_data, check_model
from simulator.runs.arguments.checks import check_made_model, check_scenario, whole_seed
from simulator.runs.measured import idle_keys
from simulator.runs.strategies import StrategyChoice
from simulator.scenario.sections import Scenario, ScenarioSource, load_scenario
from simulator.scenario.unread import is_named, replaced_keys

ModelLike = nn.Module | Callable[[], nn.Module]
"""A torch module, or a function without arguments that makes one: the run's seed covers its initial values."""

DataLike = Population | PooledArrays
"""Clients with their data (`custom_population`), or pooled arrays (`arrays`) that [partition] deals out."""


@dataclass(frozen=True)
class Overrides:
    """The parts passed from Python, which replace those of the scenario.

    Attributes:
        model: a module, or a function that makes one, instead of [model].
        population: a population instead of [data] and [partition], or pooled arrays instead of [data].
        algorithm: an algorithm instead of the row that [algorithm] names; cohort and sampling stay the scenario's.
        strategy: any Flower strategy instead of [algorithm], or a function that wraps ours.
        client_app: any Flower ClientApp instead of our clients.
        grid: a Flower grid whose nodes run `clients.flower.app`, instead of clients in this process.
        notices: sentences on sections of the scenario that the parts replace.
        nodes: what the server knows of nodes that bring data of their own, instead of [data] and [partition].
        first_of: index of the first client of each such node, by its name.
        study: name of the study and of the arm to which the run belongs, for its record.
    """

    model: ModelLike | None = None
    population: DataLike | None = None
    algorithm: Algorithm | None = None
    strategy: StrategyChoice | None = None
    client_app: ClientApp | None = None
    grid: Grid | None = None
    notices: tuple[str, ...] = ()
    nodes: Population | None = None
    first_of: Mapping[str, int] | None = None
    study: Mapping[str, str] | None = None

    @property
    def names(self) -> list[str]:
        """The names of the arguments of `simulate` that the parts came with."""
        parts = {"model": self.model, "data": self.population, "algorithm": self.algorithm,
                 "strategy": self.strategy, "client_app": self.client_app, "grid": self.grid}  # fmt: skip
        return [name for name, part in parts.items() if part is not None]


def replacing(scenario: Scenario, given: Overrides) -> tuple[Scenario, Overrides]:
    """Leave out the sections that parts from Python replace, and state the keys that the user set without an effect."""
    scenario = replace(scenario, notices=(*scenario.notices, *_replaced(scenario, given)))
    if given.model is not None:
        scenario = replace(scenario, model=None)
    if given.population is None:
        return scenario, given
    named = scenario.partition is not None and is_named(scenario, ("partition",))
    if isinstance(given.population, Population) and scenario.partition is not None and named:
        unused = f"[partition] {scenario.partition.kind!r} is not used: data= brings its own clients"
        pooled = "fs.arrays(x, y) is dealt out by it"
        given = replace(given, notices=(*given.notices, f"{unused} ({pooled})"))
    kept = scenario.partition if isinstance(given.population, PooledArrays) else None
    return replace(scenario, data=None, partition=kept), given


def _replaced(scenario: Scenario, given: Overrides) -> list[str]:
    """Return sentences on keys of the scenario that an algorithm, a strategy or a ClientApp from Python replaces."""
    found: list[str] = []
    algorithm = scenario.algorithm
    acting = {("algorithm", "kind")} if ALGORITHMS.row_of(algorithm).fixed_local is not None else set()
    if isinstance(given.strategy, Strategy):
        found += replaced_keys(scenario, [("algorithm",)], "strategy= replaces [algorithm]", but=acting)
        every = ("evaluation", "federated_every")
        found += replaced_keys(scenario, [every], "strategy= decides when clients evaluate")
    elif given.algorithm is not None:
        acting |= {("algorithm", key) for key in ("cohort", "sampling", "partial_work")}
        acting |= {("algorithm", "weighting")} if algorithm.sampling == "by_examples" else set()
        found += replaced_keys(scenario, [("algorithm",)], "algorithm= replaces them", but=acting)
    if given.client_app is not None:
        keys = [("local",), ("engine",), ("evaluation", "gradient_every"), ("evaluation", "baselines")]
        kept = [("engine", name) for name in ("threads", "kind", "device", "tf32")]
        found += replaced_keys(scenario, keys, "your ClientApp trains", but=kept)
    return found


def scenario_of(
    scenario: ScenarioSource = None, sets: Sequence[str] | Mapping[str, Any] = (), seed: int | None = None
) -> Scenario:
    """Return the scenario that a function was given, with changes and a seed.

    Raises:
        ScenarioError: it is no scenario, or has no such keys.
        UserError: the seed is not a whole number.
    """
    check_scenario(scenario)
    return load_scenario(scenario, sets=sets, seed=whole_seed(seed))


def federation_of(scenario: Scenario, data: Any) -> Federation:
    """Return the description of the clients' data; `data` is the scenario's section or a population from Python."""
    return Federation(
        data=data,
        partition=scenario.partition,
        world=scenario.world,
        faults=scenario.faults,
        drifts=scenario.drifts,
        features=scenario.features,
        seed=scenario.run.seed,
        dtype=getattr(torch, scenario.run.dtype),
    )


def population_of(scenario: Scenario, given: Overrides) -> Population:
    """Build the population of a scenario.

    Raises:
        UserError: the scenario is not valid; the message names the key.
    """
    if given.nodes is not None:
        return given.nodes
    data: Any = given.population or scenario.data
    if data is None:
        raise ScenarioError("data", "is missing", fix="Such as --set data.kind=digits, or data= from Python.")
    if isinstance(data, PooledArrays):
        data = _dealt(data, scenario)
    elif isinstance(data, DataOptions):
        check_data(data)
    population = build_federation(federation_of(scenario, data))
    if not given.notices:
        return population
    notices = (*given.notices, *population.federation.notices)
    return replace(population, federation=replace(population.federation, notices=notices))


def _dealt(data: PooledArrays, scenario: Scenario) -> Population:
    """Deal pooled arrays out as the scenario's partition says."""
    if scenario.partition is None:
        keys = "".join(f' With the key {name!r}: "partition.kind=natural", "partition.key={name}".' for name in
                       list(data.pool.keys)[:1])  # fmt: skip
        fix = 'Add one: fs.load_scenario(..., sets=["partition.kind=iid", "partition.clients=10"]).' + keys
        raise PartitionError("partition", "is missing, and fs.arrays(...) come without clients", fix=fix)
    try:
        return data.deal(scenario.partition, seed=scenario.run.seed, dtype=getattr(torch, scenario.run.dtype))
    except PartitionError as error:
        if error.field == "key" and not data.pool.keys:
            fix = 'Pass them: fs.arrays(x, y, keys={"user": users}), partition.key = "user".'
            error = PartitionError(error.field, error.problem, fix=fix)
        raise error.inside("partition") from error.__cause__


def made_model(model: ModelLike, seed: int) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the module that was passed from Python, and sentences on its initial values.

    Args:
        model: a module; or a function that makes one, which is called with every global generator
            seeded, and again to see whether the seed covers the values.
        seed: root seed.

    Raises:
        UserError: the function raises, or returns something else.
    """
    if isinstance(model, nn.Module):
        return model, ("initial values are those of the model passed; the seed does not cover them: "
                       "a function does, model=lambda: MyNet()",)  # fmt: skip
    key = int(streams.keys(seed, "model") >> np.uint64(2))
    module, draws = _called(model, key)
    if not _same_values(module, _called(model, key)[0]):
        return module, (
            "the function that makes the model gives other initial values in a second call: it draws from a generator "
            "that the seed does not cover; torch's, NumPy's and Python's global generators are covered",
        )
    if not draws and _same_values(module, _called(model, key ^ 1)[0]):
        return module, ("the function that makes the model drew no random numbers, or seeds its generator itself: "
                        "the seed does not change initial values",)  # fmt: skip
    return module, ()


def _called(make: Callable[[], nn.Module], key: int) -> tuple[nn.Module, bool]:
    """Call a function that makes a model; return the model, and whether it drew from a generator seeded by `key`."""
    with _generators(key) as drawn:
        with naming("model", f"{name_of(make)} raised when it made the model"):
            module = make()
        check_made_model(module)
        return module, drawn() and torch.initial_seed() == key


def _same_values(one: nn.Module, other: nn.Module) -> bool:
    """Return whether two modules have the same parameters and buffers, by name and value."""
    pairs = [dict([*module.named_parameters(), *module.named_buffers()]) for module in (one, other)]
    if pairs[0].keys() != pairs[1].keys():
        return False
    both = ((value, pairs[1][name]) for name, value in pairs[0].items())
    return all(a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all()) for a, b in both)


@contextmanager
def _generators(key: int) -> Iterator[Callable[[], bool]]:
    """Seed the global generators of torch, NumPy and Python, and restore them; yield whether one was used."""
    held: tuple[Any, Any] = random.getstate(), np.random.get_state()  # noqa: NPY002 (a user's model may use it)

    def state() -> tuple[Any, ...]:
        numbers: Any = np.random.get_state(legacy=False)  # noqa: NPY002
        return torch.get_rng_state().numpy().tobytes(), random.getstate(), str(numbers)

    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key)
            random.seed(key)
            np.random.seed(key & 0xFFFFFFFF)  # noqa: NPY002
            start = state()
            yield lambda: state() != start
    finally:
        random.setstate(held[0])
        np.random.set_state(held[1])  # noqa: NPY002


def make_task_of(scenario: Scenario, given: Overrides, population: Population | None = None) -> LearningTask:
    """Build the population, the model and the task of a scenario.

    Args:
        scenario: the experiment.
        given: the parts passed from Python.
        population: the population, if `population_of` has built it already.

    Raises:
        UserError: the scenario is not valid; the message names the key.
    """
    seed, dtype = scenario.run.seed, getattr(torch, scenario.run.dtype)
    population = population_of(scenario, given) if population is None else population
    notices: tuple[str, ...] = ()
    if given.model is not None:
        module, notices = made_model(given.model, seed)
    elif scenario.model is None:
        raise ScenarioError("model", "is missing", fix="Such as --set model.kind=mlp, or model= from Python.")
    else:
        try:
            check_model(outlined_model(scenario.model, population), dtype)
            module = build_model(scenario.model, population, int(streams.keys(seed, "model") >> np.uint64(2)))
        except UserError as error:
            raise error if error.field == "memory" else error.inside("model") from error.__cause__
    count_errors = population.task == "classification" and "train_errors" in required_facts(scenario.convergence)
    try:
        task = make_task(module, population, local_for(scenario.algorithm, scenario.local), seed=seed, dtype=dtype,
                         count_errors=count_errors, trained_elsewhere=given.client_app is not None)  # fmt: skip
    except UserError as error:
        raise error.inside("local") if error.field in ("batch_size", "local_steps") else error from error.__cause__
    if isinstance(given.population, Population):
        notices += _other_type(population, dtype)
    return replace(task, notices=(*notices, *task.notices, *idle_keys(scenario, task, on_nodes=given.grid is not None)))


def _other_type(population: Population, dtype: torch.dtype) -> tuple[str, ...]:
    """Return a sentence where a population from Python has other floating-point features than the run computes with.

    Raises:
        DataError: the first client has numbers that the run's type cannot hold.
    """
    features = population.cohort(np.flatnonzero(population.sizes)[:1].astype(np.int64)).client(0).features
    if not features.is_floating_point() or features.dtype == dtype:
        return ()
    kept, computed = (str(t).removeprefix("torch.") for t in (features.dtype, dtype))
    if features.dtype.itemsize > dtype.itemsize:
        fix = f"Set run.dtype = {kept!r}."
        check_fits(features.numpy(), dtype, "data", "features", fix=fix)
        return (f"features of data= are {kept}, and the run computes with {computed}. {fix}",)
    return (f"features of data= were kept as {kept}, and the run computes with {computed}: "
            f"fs.custom_population(..., dtype=torch.{computed}) keeps all digits",)  # fmt: skip
