"""Small federations played round by round: a scenario's own strategy, grid and engine, without a record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clients.flower.codec import Codec
from clients.flower.messages import CohortReplies
from clients.models.options import ParameterVectorOptions
from clients.sources.custom import custom_population
from clients.sources.options import QuadraticOptions
from clients.training.options import LocalOptions
from clients.training.work import CohortUpdate
from server.algorithms.build import local_for
from server.algorithms.options import AlgorithmOptions, FedAvgOptions
from server.rounds.strategy import FederatedStrategy
from simulator.engines.options import EngineOptions
from simulator.scenario.sections import EvaluationOptions, RunOptions, Scenario
from simulator.testing.stepper import Stepper

Tamper = Callable[[CohortUpdate], CohortUpdate]


def engine_options(kind: str = "stacked", *, tile: int = 1000, **more: Any) -> EngineOptions:
    """Return an engine in one thread with fixed tiles: it gives the same bits on a busy machine."""
    tiles = {"tile": tile} if kind == "stacked" else {}
    return EngineOptions(kind=kind, threads=1, compile="never", **tiles, **more)


class Federation(Stepper):
    """A stepper that can change its clients' updates."""

    def __init__(self, scenario: Scenario, **parts: Any) -> None:
        super().__init__(scenario, **parts)
        self._plain = self.experiment

    def tampered(self, params: Tensor, tamper: Tamper) -> Tensor:
        """Return the result of round 1 from `params` if `tamper` changes the clients' update."""
        grid = _TamperingGrid(self.session.grid, tamper, self.session.codec)
        self.experiment = replace(self._plain, grid=grid)
        try:
            return self.probe(params)
        finally:
            self.experiment = self._plain

    @property
    def strategy(self) -> FederatedStrategy:
        assert self.experiment.own is not None
        return self.experiment.own


class _TamperingGrid:
    """Delegates to a grid and changes the cohort's update; the strategy sums it."""

    def __init__(self, grid: Any, tamper: Tamper, codec: Codec) -> None:
        self._grid, self._tamper, self._codec = grid, tamper, codec
        self.nodes_by_client = True

    def send_and_receive(self, sent: Any, *, timeout: float | None = None) -> CohortReplies:
        replies = self._grid.send_and_receive(sent, timeout=timeout)
        return CohortReplies(sent, self._tamper(replies.update), replies.anchor, self._codec)


def affine(federation: Federation) -> tuple[np.ndarray, np.ndarray]:
    """Return A and b of a federation whose round is the affine map w -> A w + b."""
    d = federation.params.numel()
    origin = federation.probe(torch.zeros(d, dtype=torch.float64)).numpy()
    columns = [federation.probe(row).numpy() - origin for row in torch.eye(d, dtype=torch.float64)]
    return np.stack(columns, axis=1), origin


def fixed_point(federation: Federation) -> np.ndarray:
    """Return the fixed point of an affine federation."""
    a, b = affine(federation)
    return np.linalg.solve(np.eye(len(b)) - a, b)


def spectral_radius(matrix: np.ndarray) -> float:
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def quadratics(
    hessians: Any,
    centres: Any,
    *,
    algorithm: AlgorithmOptions | None = None,
    local_lr: float,
    local_steps: int | Sequence[int] = 1,
    weights: Sequence[int] = (),
    start: Any = 0.0,
    engine: str = "stacked",
    seed: int = 0,
    **local: Any,
) -> Federation:
    """Make a federation of quadratic clients in float64, full gradients; `hessians` (N,) or (N, d, d)."""
    steps = local_steps if isinstance(local_steps, int) else tuple(int(t) for t in local_steps)
    chosen = algorithm or FedAvgOptions(weighting="uniform")
    options = LocalOptions(**{"optimizer": "gd", "local_lr": local_lr, "local_steps": steps} | local)
    scenario = Scenario(
        data=QuadraticOptions(curvatures=_tuples(hessians), centres=_tuples(centres), weights=tuple(weights)),
        model=ParameterVectorOptions(start=_tuples(start)),
        local=local_for(chosen, options),  # an algorithm may fix local work, and a scenario refuses another
        algorithm=chosen,
        engine=engine_options(engine),
        evaluation=EvaluationOptions(federated_every=0),
        run=RunOptions(dtype="float64", seed=seed),
    )
    return Federation(scenario)


def _tuples(values: Any) -> Any:
    if isinstance(values, np.ndarray | list | tuple):
        return tuple(_tuples(v) for v in values)
    return float(values)


class Polynomial(nn.Module):
    """a x^2 + b x of one parameter, one value an example; features are (a, b)."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([start], dtype=torch.float64))

    def forward(self, features: Tensor) -> Tensor:
        return features[:, 0] * self.x**2 + features[:, 1] * self.x


def objectives(
    parts: Sequence[tuple[float, float]],
    *,
    algorithm: AlgorithmOptions,
    local: LocalOptions,
    start: float = 0.0,
    engine: str = "stacked",
    module: nn.Module | None = None,
    seed: int = 0,
) -> Federation:
    """Make a federation of clients a x^2 + b x (or any module on features [a, b]); some may be linear."""
    data = custom_population(
        lambda k: (np.array([parts[k]]), np.zeros(1)),
        [1] * len(parts),
        outputs=1,
        task="objective",
        dtype=torch.float64,
    )
    scenario = Scenario(
        local=local_for(algorithm, local),
        algorithm=algorithm,
        engine=engine_options(engine),
        evaluation=EvaluationOptions(federated_every=0),
        run=RunOptions(dtype="float64", seed=seed),
    )
    return Federation(scenario, model=module or Polynomial(start), data=data)
