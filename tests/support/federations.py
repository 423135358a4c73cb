"""Small federations played round by round: a scenario's own strategy, grid and engine, without meter and record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord
from torch import Tensor, nn

from clients.core.population import Population
from clients.flower.messages import CohortReplies, Reduction
from clients.flower.shim import quiet
from clients.models.options import ParameterVectorOptions
from clients.sources.custom import custom_population
from clients.sources.options import QuadraticOptions
from clients.training.options import LocalOptions
from clients.training.work import CohortUpdate
from server.algorithms.options import AlgorithmOptions, FedAvgOptions
from simulator.engines.options import EngineOptions
from simulator.runs.session import Overrides, open_session
from simulator.scenario.sections import EvaluationOptions, RunOptions, Scenario

Tamper = Callable[[CohortUpdate], CohortUpdate]


def engine_options(kind: str = "stacked", *, tile: int = 1000, **more: Any) -> EngineOptions:
    """Return an engine in one thread, of tiles that no timing chooses: the same bits on a busy machine."""
    tiles = {"tile": tile} if kind == "stacked" else {}
    return EngineOptions(kind=kind, threads=1, compile="never", **tiles, **more)


class Federation:
    """Plays a scenario one round at a time; it agrees with `simulate` bit for bit (tests/contract).

    Attributes:
        session: what is played.
        params: the server's parameters now, flat [P].
        round_index: rounds played.
        update: what the cohort of the last round returned, and its `reduction` where it was not kept whole.
    """

    def __init__(self, scenario: Scenario, *, model: nn.Module | None = None, data: Population | None = None) -> None:
        quiet()
        self.session = open_session(scenario, Overrides(model, data))
        self.params, self.buffers = self.session.start.params, self.session.start.buffers
        self.round_index = 0
        self.update: CohortUpdate | None = None
        self.reduction: Reduction | None = None

    @property
    def strategy(self) -> Any:
        return self.session.played.strategy

    @property
    def states(self) -> Any:
        return self.session.states

    def play(self, rounds: int = 1) -> Tensor:
        """Play rounds; return the server's parameters after each, [rounds, P]."""
        after = []
        for _ in range(rounds):
            self.round_index += 1
            self.params, self.buffers = self._round(self.params)
            self.session.states.commit()
            after.append(self.params)
        return torch.stack(after)

    def probe(self, params: Tensor, round_index: int = 1, tamper: Tamper | None = None) -> Tensor:
        """Return where one round leads from `params`; nobody remembers it. `tamper` changes what clients return."""
        held = self.strategy.state_dict()
        new, _ = self._round(params, round_index, tamper)
        self.session.states.rollback()
        self.strategy.load_state_dict(held)
        return new

    def _round(
        self, params: Tensor, round_index: int | None = None, tamper: Tamper | None = None
    ) -> tuple[Tensor, Tensor]:
        index, codec = self.round_index if round_index is None else round_index, self.session.codec
        asked = self.strategy.configure_train(
            index, codec.encode(params, self.buffers), ConfigRecord({}), self.session.grid
        )
        replies = self.session.grid.send_and_receive(asked)
        assert isinstance(replies, CohortReplies)
        if tamper is not None:
            replies = CohortReplies(asked, tamper(replies.update), params, codec)
        self.update, self.reduction = replies.update, replies.reduction
        arrays, _ = self.strategy.aggregate_train(index, replies)
        return (params, self.buffers) if arrays is None else codec.decode(arrays)


def affine(federation: Federation) -> tuple[np.ndarray, np.ndarray]:
    """Return A and b of a federation whose round is the affine map w -> A w + b."""
    d = federation.params.numel()
    origin = federation.probe(torch.zeros(d, dtype=torch.float64)).numpy()
    columns = [federation.probe(row).numpy() - origin for row in torch.eye(d, dtype=torch.float64)]
    return np.stack(columns, axis=1), origin


def fixed_point(federation: Federation) -> np.ndarray:
    """Return where an affine federation stands still."""
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
    scenario = Scenario(
        data=QuadraticOptions(curvatures=_tuples(hessians), centres=_tuples(centres), weights=tuple(weights)),
        model=ParameterVectorOptions(start=_tuples(start)),
        local=LocalOptions(optimizer="gd", local_lr=local_lr, local_steps=steps),
        algorithm=algorithm or FedAvgOptions(weighting="uniform"),
        engine=engine_options(engine),
        evaluation=EvaluationOptions(federated_every=0),
        run=RunOptions(dtype="float64", seed=seed),
    )
    return Federation(replace(scenario, local=replace(scenario.local, **local)))


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
    """Make a federation of clients a x^2 + b x (or any module on features [a, b]); linear clients may be among them."""
    data = custom_population(
        lambda k: (np.array([parts[k]]), np.zeros(1)),
        [1] * len(parts),
        outputs=1,
        task="objective",
        dtype=torch.float64,
    )
    scenario = Scenario(
        local=local,
        algorithm=algorithm,
        engine=engine_options(engine),
        evaluation=EvaluationOptions(federated_every=0),
        run=RunOptions(dtype="float64", seed=seed),
    )
    return Federation(scenario, model=module or Polynomial(start), data=data)
