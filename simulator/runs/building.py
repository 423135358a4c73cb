"""Builds the population, the model and the task of a scenario, with the parts that Python replaces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from torch import nn

from clients.core import streams
from clients.core.errors import ScenarioError, UserError
from clients.core.population import Population
from clients.federation.build import Federation, build_federation
from clients.federation.effects import rounds_notices
from clients.models.build import build_model
from clients.training.task import LearningTask, make_task
from server.algorithms.algorithm import Algorithm
from server.algorithms.build import local_for
from server.convergence.monitor import required_facts
from simulator.runs.strategies import StrategyChoice
from simulator.scenario.sections import Scenario


@dataclass(frozen=True)
class Overrides:
    """The parts passed from Python, which replace those of the scenario.

    Attributes:
        model: a module instead of [model].
        population: a population instead of [data] and [partition].
        algorithm: an algorithm instead of the row that [algorithm] names; cohort and sampling stay the scenario's.
        strategy: any Flower strategy instead of [algorithm], or a function that wraps ours.
        client_app: any Flower ClientApp instead of our clients.
        grid: a Flower grid whose nodes run `clients.flower.app`, instead of clients in this process.
    """

    model: nn.Module | None = None
    population: Population | None = None
    algorithm: Algorithm | None = None
    strategy: StrategyChoice | None = None
    client_app: ClientApp | None = None
    grid: Grid | None = None


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
    data = given.population or scenario.data
    if data is None:
        raise ScenarioError("data", "is missing", fix="Add a [data] section, or pass data= from Python.")
    return build_federation(federation_of(scenario, data))


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
    module = given.model
    if module is None:
        if scenario.model is None:
            raise ScenarioError("model", "is missing", fix="Add a [model] section, or pass model= from Python.")
        try:
            module = build_model(scenario.model, population, int(streams.keys(seed, "model") >> np.uint64(2)))
        except UserError as error:
            raise error.inside("model") from error.__cause__
    count_errors = population.task == "classification" and "train_errors" in required_facts(scenario.convergence)
    try:
        task = make_task(module, population, local_for(scenario.algorithm, scenario.local), seed=seed, dtype=dtype,
                         count_errors=count_errors, trained_elsewhere=given.client_app is not None)  # fmt: skip
        idle = rounds_notices(scenario.faults, scenario.drifts, scenario.run.rounds)
        return replace(task, notices=(*task.notices, *idle))
    except UserError as error:
        raise error.inside("local") if error.field in ("batch_size", "local_steps") else error from error.__cause__
