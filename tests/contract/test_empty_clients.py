"""Clients without data, added to a population, change no aggregate: of any algorithm, engine, grid or strategy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from federations import Federation, engine_options
from flwr.serverapp.strategy import FedAvg, FedMedian
from strange_grid import StrangeGrid

import fedscape as fs
from clients.core.population import Population
from clients.engines.plain import PlainEngine
from clients.flower.answering import ClientTask
from clients.flower.app import make_client_app
from clients.models.options import SoftmaxOptions
from clients.sources.custom import custom_population
from clients.training.options import LocalOptions
from server.algorithms import options as kinds
from server.algorithms.build import local_for
from server.algorithms.table import ALGORITHMS
from simulator.scenario.sections import EvaluationOptions, RunOptions, Scenario

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = {kind: row.options() for kind, row in ALGORITHMS.items()} | {
    "fedavg, uniform": kinds.FedAvgOptions(weighting="uniform"),
    "fedavg, unbiased": kinds.FedAvgOptions(weighting="unbiased"),
    "fedavg, by examples": kinds.FedAvgOptions(sampling="by_examples", weighting="uniform"),
    "scaffold, option 1": kinds.ScaffoldOptions(option=1),
    "fednova, unbiased": kinds.FedNovaOptions(weighting="unbiased"),
}
SIZES = (12, 5, 9, 1, 7, 3)
BEHIND = SIZES + (0,) * 7
BETWEEN = (0, 12, 0, 5, 9, 0, 0, 1, 7, 0, 3, 0, 0)
"""The six clients of SIZES with seven empty ones, behind or between them."""


def people(sizes: tuple[int, ...]) -> Population:
    """Return clients whose examples depend on their sizes alone."""

    def examples(k: int) -> tuple[Any, Any]:
        random = np.random.default_rng((7, sizes[k]))
        return random.normal(size=(sizes[k], 4)) + 0.1 * sizes[k], random.integers(0, 3, sizes[k])

    return custom_population(examples, list(sizes), outputs=3, dtype=torch.float64)


def scenario(algorithm: kinds.AlgorithmOptions, engine: str = "stacked", **local: Any) -> Scenario:
    work = local_for(algorithm, LocalOptions(**{"local_lr": 0.1, "batch_size": 4, "local_epochs": 2} | local))
    planned, run = engine_options(engine), RunOptions(dtype="float64", rounds=4)
    return Scenario(model=SoftmaxOptions(), local=work, algorithm=algorithm, engine=planned,
                    evaluation=EvaluationOptions(federated_every=0, baselines=False), run=run)  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("engine", ["plain", "stacked"])
@pytest.mark.parametrize("cohort", [None, 3])
def test_empty_clients_change_no_aggregate(name: str, engine: str, cohort: int | None) -> None:
    """Behind the others they change no bit. Between them they change the order of sums."""
    algorithm = replace(ROWS[name], cohort=cohort)
    alone = Federation(scenario(algorithm, engine), data=people(SIZES)).step(4)
    assert torch.equal(Federation(scenario(algorithm, engine), data=people(BEHIND)).step(4), alone)
    whole = scenario(algorithm, engine, batch_size="full")  # batches are drawn by a client's index
    pair = [Federation(whole, data=people(sizes)).step(4) for sizes in (SIZES, BETWEEN)]
    torch.testing.assert_close(pair[1], pair[0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["scaffold", "feddyn", "fedavg, unbiased"])
def test_empty_clients_change_no_aggregate_of_real_nodes(name: str) -> None:
    """The nodes of a foreign grid: empty clients have nodes there, and are sent no work."""
    played = scenario(replace(ROWS[name], cohort=3), "plain")

    def final(sizes: tuple[int, ...]) -> torch.Tensor:
        made = Federation(played, data=people(sizes))
        node = ClientTask(PlainEngine(made.session.task), made.session.codec, made.strategy.algorithm.local_work)
        grid = StrangeGrid(make_client_app(lambda *_: node), range(len(sizes)))
        return fs.simulate(played, data=people(sizes), grid=grid, record=False).params

    torch.testing.assert_close(final(BEHIND), final(SIZES), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("strategy", [FedAvg, FedMedian])
def test_flower_strategies_sample_clients_with_data_only(strategy: type[FedAvg]) -> None:
    """Half of six nodes is three; an unchanged model from an empty client would pull a median to the start."""
    played = scenario(kinds.FedAvgOptions())

    def run(sizes: tuple[int, ...]) -> fs.Run:
        chosen = strategy(fraction_train=0.5, fraction_evaluate=0.0)
        return fs.simulate(played, data=people(sizes), strategy=chosen, record=False)

    alone, beside = run(SIZES), run(BEHIND)
    assert list(beside.rounds["cohort"][1:]) == [3] * 4
    assert torch.equal(beside.params, alone.params)


def test_nodes_that_a_strategy_waits_for_have_data() -> None:
    with pytest.raises(fs.UserError, match="min_available_nodes = 7 is more than the 6 clients"):
        fs.simulate(scenario(kinds.FedAvgOptions()), data=people(BEHIND), record=False,
                    strategy=FedAvg(min_available_nodes=7))  # fmt: skip
