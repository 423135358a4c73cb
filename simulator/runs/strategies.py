"""The strategy of a run: ours, ours inside a user's wrapper, or a user's own. Unsupported ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy

from clients.core import streams
from clients.core.arrays import I64
from clients.core.errors import StrategyError
from clients.core.user_code import described, name_of
from clients.federation.options import FeatureOptions
from clients.flower.codec import Codec
from clients.training.options import LocalOptions
from clients.training.task import LearningTask
from server.algorithms.algorithm import Algorithm
from server.algorithms.build import build_algorithm, dropping_partial_work
from server.algorithms.options import check_weighting
from server.algorithms.table import ALGORITHMS
from server.algorithms.trial import check_rule
from server.nodes.node_map import NodeMap
from server.rounds.sampling import CohortSampler
from server.rounds.strategy import FederatedStrategy, StrategyContext
from simulator.scenario.sections import EvaluationOptions, Scenario

StrategyChoice = Strategy | Callable[[Strategy], Strategy]
"""A Flower strategy instead of ours, or a function that wraps ours: `lambda ours: Wrapper(ours, ...)`."""


@dataclass(frozen=True)
class Played:
    """The strategy of a run.

    Attributes:
        strategy: the strategy that the round loop calls.
        own: our strategy, wrapped or not; None if a user's replaces it.
        cohort: clients of a round; None if a user's strategy decides.
    """

    strategy: Strategy
    own: FederatedStrategy | None
    cohort: int | None

    @property
    def client_states(self) -> int:
        """Vectors of the model's size that a client keeps between rounds."""
        if self.own is None:
            return 0
        work = self.own.algorithm.local_work
        return len(work.rule.client_state) + len(work.uplink.client_state)


def choose_strategy(
    choice: StrategyChoice | None,
    algorithm: Algorithm | None,
    scenario: Scenario,
    task: LearningTask,
    codec: Codec,
    nodes: NodeMap,
    offered: int,
) -> Played:
    """Return the strategy of a run.

    Args:
        choice: a user's strategy, or a function that wraps ours; None takes ours.
        algorithm: a user's algorithm for our strategy; None takes the scenario's row.
        scenario: the experiment.
        task: the model and the clients' data.
        codec: writes models to messages and reads them.
        nodes: which node holds which client.
        offered: the nodes that a strategy can sample: on the in-process grid, the clients that have data.

    Raises:
        StrategyError: the strategy would wait for ever, or would lose a part of the clients' replies.
    """
    if isinstance(choice, Strategy):
        _check_client_side(choice)
        if task.population.federation.shares is not None:
            raise StrategyError(
                "strategy",
                f"{type(choice).__name__} weighs clients by their examples, and data.weights are real numbers",
                fix="Give whole numbers of examples, or use [algorithm].",
            )
        _check_sampling(choice, offered)
        return Played(choice, None, None)
    sampler = CohortSampler(
        scenario.algorithm, task.population.sizes, task.seed, shares=task.population.federation.shares
    )
    own = _own_strategy(algorithm, scenario, task, codec, sampler, nodes)
    if choice is None:
        return Played(own, own, sampler.size)
    try:
        wrapped = choice(own)
    except Exception as error:
        problem = f"{name_of(choice)} raised when given ours to wrap: {described(error)}"
        raise StrategyError("strategy", problem) from error
    if not isinstance(wrapped, Strategy):
        raise StrategyError("strategy", f"is a function that returned {type(wrapped).__name__}, not a Flower Strategy")
    if own.algorithm.local.returns and wrapped is not own:
        fits = _rows(task.local, lambda row: not row.local.returns)
        raise StrategyError(
            "strategy",
            f"wraps {own.algorithm.name!r}, whose clients return more than parameters, which a wrapper would lose",
            fix=f"Wrap one whose clients return parameters only: {fits}.",
        )
    _check_sampling(wrapped, offered)
    return Played(wrapped, own, sampler.size)


def check_client_app(played: Played, scenario: Scenario) -> None:
    """Refuse sections and rows that a user's ClientApp would ignore.

    Raises:
        StrategyError: the scenario changes the clients' data, or the row changes local training or needs local steps.
    """
    changed = {"faults": scenario.faults, "drifts": scenario.drifts, "features": scenario.features != FeatureOptions()}
    for section, is_used in changed.items():
        if is_used:
            problem = "change the data of fedscape's own clients, and your ClientApp trains on its own"
            raise StrategyError(section, problem, fix=f"Leave [{section}] out, and change the data in your app.")
    own = played.own
    if own is None:
        return
    algorithm, name = own.algorithm, own.algorithm.name
    fits = _rows(scenario.local, lambda row: row.local.is_plain and not row.aggregation.needs_steps, fixed=False)
    fix = f"Use a strategy of Flower's, or one of {fits}."
    changes_work = ALGORITHMS[scenario.algorithm.kind].fixed_local is not None
    if not algorithm.local.is_plain or algorithm.uplink.compress is not None or changes_work:
        problem = f"is {name!r}, which changes how clients train, and your ClientApp trains"
        raise StrategyError("algorithm.kind", problem, fix=fix)
    if algorithm.aggregation.needs_steps:
        problem = f"is {name!r}, which needs local steps; a ClientApp returns none"
        raise StrategyError("algorithm.kind", problem, fix=fix)
    if scenario.algorithm.partial_work == "drop":
        problem = "is 'drop', which needs local steps; your ClientApp returns none"
        raise StrategyError("algorithm.partial_work", problem, fix="Leave it out.")


def evaluated_clients(options: EvaluationOptions, sizes: np.ndarray[Any, np.dtype[np.int32]], seed: int) -> I64:
    """Return the clients that evaluate or compute gradients: all that have data, or a choice by seed."""
    count = int(np.count_nonzero(sizes))
    chosen = streams.choose(streams.keys(seed, "federated_evaluation"), count, min(count, options.federated_clients))
    return chosen if count == len(sizes) else np.flatnonzero(sizes)[chosen].astype(np.int64)


def _rows(local: LocalOptions, fits: Callable[[Algorithm], bool], *, fixed: bool = True) -> str:
    """Return the names of the algorithms that fit; `fixed` says whether they may fix local work."""
    rows = [row for row in ALGORITHMS.values() if fixed or row.fixed_local is None]
    return ", ".join(row.kind for row in rows if fits(row.build(row.options(), local)))


def _own_strategy(
    algorithm: Algorithm | None,
    scenario: Scenario,
    task: LearningTask,
    codec: Codec,
    sampler: CohortSampler,
    nodes: NodeMap,
) -> FederatedStrategy:
    sizes, every = task.population.sizes, scenario.evaluation.federated_every
    evaluators = evaluated_clients(scenario.evaluation, sizes, task.seed)

    def evaluated(round_index: int) -> I64:
        return evaluators if every and round_index % every == 0 else evaluators[:0]

    if algorithm is None:
        algorithm = build_algorithm(scenario.algorithm, task.local)
    else:
        sampling, weighting = scenario.algorithm.sampling, algorithm.aggregation.weighting
        check_weighting(sampling, weighting, "aggregation.weighting", "aggregation=fs.weighted_mean('uniform')")
        check_rule(algorithm.local)
    federation = StrategyContext(
        local=task.local,
        codec=codec,
        sampler=sampler,
        facts=task.population.federation,
        nodes=nodes,
        seed=task.seed,
        drop_partial_work=scenario.algorithm.partial_work == "drop",
        evaluated=evaluated,
        hashed=scenario.run.certificate == "clients",
    )
    return FederatedStrategy(dropping_partial_work(scenario.algorithm, algorithm), federation)


def _check_client_side(strategy: Strategy) -> None:
    """Refuse Flower's client-side privacy: it needs a mod of the ClientApp, and our clients have no mods."""
    name = type(strategy).__name__
    if name.startswith("DifferentialPrivacyClientSide"):
        raise StrategyError(
            "strategy",
            f"{name} leaves clipping to a mod of the ClientApp, which the clients here do not have",
            fix=f"Use {name.replace('ClientSide', 'ServerSide')}, or pass client_app= with the mod.",
        )


def _check_sampling(strategy: Strategy, nodes: int) -> None:
    """Refuse a Flower strategy that would wait for nodes for ever."""
    inner: Any = strategy
    while hasattr(inner, "strategy"):
        inner = inner.strategy
    for name in ("min_available_nodes", "min_train_nodes", "min_evaluate_nodes"):
        least = getattr(inner, name, 0)
        if isinstance(least, Real) and float(least) > nodes:
            raise StrategyError(
                "strategy",
                f"{name} = {least} is more than the {nodes} clients that can be sampled: Flower would wait for ever",
                fix=f"Set {name} to at most {nodes}.",
            )
    for what in ("train", "evaluate"):
        share = getattr(inner, f"fraction_{what}", 0.0)
        method = getattr(type(inner), f"configure_{what}")
        if not method.__module__.startswith("flwr."):
            continue  # a user's own method may give the number another meaning
        if isinstance(share, Real) and not 0 <= float(share) <= 1:
            wanted = float(share) * nodes
            problem = f"fraction_{what} = {share} must be a share of the clients, from 0 to 1"
            above = f": Flower would wait for {wanted:,.0f} of {nodes} nodes for ever" if wanted > nodes else ""
            raise StrategyError("strategy", problem + above, fix=f"fraction_{what} = 1.0 takes all of them.")
