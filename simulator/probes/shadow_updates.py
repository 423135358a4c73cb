"""Shadow updates from a state: what clients would send if one cause of drift after another were switched off.

The updates are trained by the run's engine; nothing of them is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from clients.core import streams
from clients.core.arrays import F64, Bool
from clients.core.errors import UserError
from clients.engines.objective import blocks_of
from clients.modules.copies import copy_module
from clients.modules.dropout import Dropout
from clients.modules.players import TwoPlayer, turns_of
from clients.training.options import SECOND_ORDER, AugmentOptions, LocalOptions
from clients.training.rules import PLAIN, LocalRule
from clients.training.task import LearningTask
from clients.training.work import CohortWork, LocalWork
from simulator.grid.local_clients import LocalClients
from simulator.probes.formulas.error_by_cause import ShadowUpdates
from simulator.probes.local_paths import weighted_update
from simulator.probes.sample import Sample, steps_of_everyone
from simulator.probes.standing import Standing

ROWS_BYTES = 1 << 28
"""The most bytes of gradients that are held at once while they are added up."""


class Shadows:
    """Trains shadow updates of a sample from a state.

    Args:
        standing: the state.
        sample: the clients.

    Attributes:
        steps_of_everyone: local steps of all clients in the next round, int64 (N,).
        local: the run's local work, with these steps whatever the draw.
        quiet: the same without a random number: full batches, no noise, no augmentation.
    """

    def __init__(self, standing: Standing, sample: Sample) -> None:
        self.standing, self.sample = standing, sample
        task, steps = standing.session.task, steps_of_everyone(standing)
        self.steps_of_everyone = steps
        every = tuple(np.maximum(steps, 1).tolist())
        self.local = replace(task.local, local_epochs=None, local_steps=every, partial_work=0.0)
        self.quiet = replace(
            self.local,
            batch_size="full",
            drop_last=False,
            sampling="shuffle",
            gradient_noise=0.0,
            augment=AugmentOptions(),
        )

    @property
    def is_random(self) -> bool:
        """Whether the updates depend on random numbers: batches, noise, dropout, augmentation, draws of the model."""
        task, local = self.standing.session.task, self.local
        sizes = self.standing.session.population.sizes[self.sample.clients]
        whole = local.batch_size == "full" or int(sizes.max(initial=0)) <= local.batch_size
        still = whole and local.sampling == "shuffle" and not local.gradient_noise and not local.augment.any
        return not (still and not task.sites and not task.passes.draws)

    def train(self, local: LocalOptions, *, draw: int = 0, plain: bool = False, still: bool = False) -> Tensor:
        """Return the clients' pseudo-gradients [n, P].

        Args:
            local: their work.
            draw: the number of the draw of batches; 0 is the run's own.
            plain: train without the algorithm's local rule; players who take turns move at once.
            still: train without dropout.
        """
        standing, session = self.standing, self.standing.session
        rule = PLAIN if plain else standing.own.algorithm.local
        task = replace(session.task, local=local, seed=seed_of(session.task.seed, draw))
        task = without_dropout(task) if still and task.sites else task
        task = without_turns(task) if plain else task
        assert session.states is not None, "the clients are in this process"
        clients = LocalClients(standing.engine(task), session.codec, session.states,
                               session.scenario.engine.keep_bytes, LocalWork(rule))  # fmt: skip
        try:
            update = clients.train([], self.work(rule)).update
        finally:
            session.states.rollback()
        return standing.state.params - update.params.cpu()

    def work(self, rule: LocalRule) -> CohortWork:
        """Return the sample's work in the next round."""
        state, algorithm = self.standing.state, self.standing.own.algorithm
        vectors = state.vectors or algorithm.server.init(state.params)
        return CohortWork(
            round_index=self.standing.next_round,
            clients=self.sample.clients,
            params=state.params,
            buffers=state.buffers,
            rule=rule,
            broadcast={name: vectors[name] for name in rule.broadcast},
        )

    def gradients(self) -> Tensor:
        """Return the clients' full gradients at the state's parameters, without penalties [n, P]."""
        engine = self.standing.engine(self.standing.session.task)
        return engine.gradients(self.work(PLAIN)).cpu()

    def gradient_at(self, point: Tensor) -> Tensor:
        """Return the gradient of the objective of the sample at a point [P], without penalties [P]."""
        session, work = self.standing.session, self.work(PLAIN)
        engine = self.standing.engine(session.task)
        most = max(1, ROWS_BYTES // (point.numel() * point.element_size()))
        total = torch.zeros_like(point)
        for block in blocks_of(self.sample.clients, session.population.sizes):
            for start in range(0, len(block), most):
                some = block[start : start + most]
                rows = engine.gradients(replace(work, clients=some, params=point)).to(total)
                places = np.searchsorted(self.sample.clients, some)
                total += torch.from_numpy(self.sample.weights[places]).to(total) @ rows
        return total

    def updates(self, full: F64, draws: int) -> ShadowUpdates:
        """Return all shadow updates of the sample; see `error_by_cause`.

        Raises:
            UserError: the uplink changes updates, which is none of the causes; local steps follow curvature; or players
                take turns.
        """
        optimizer = self.local.optimizer
        if optimizer in SECOND_ORDER:
            raise UserError("local.optimizer", f"is {optimizer!r}, and the ideal takes steps along gradients")
        if turns_of(self.standing.session.task.module) is not None:
            raise UserError("model.order", "is 'alternating', and the ideal moves all parameters in each step")
        uplink = self.standing.own.algorithm.uplink
        if uplink.compress is not None:
            raise UserError("uplink", f"{uplink.name!r} changes updates, which is none of the causes")
        start = self.standing.state.params
        at_start = self.gradient_at(start)
        ideal = self._along(full, lambda point: at_start)
        path = self._along(full, lambda point: at_start if torch.equal(point, start) else self.gradient_at(point))
        x = self.train(self.quiet, still=True)
        if not self.is_random:
            return ShadowUpdates(ideal, path, x, x[None], is_complete=True)
        rows = torch.stack([self.train(self.local, draw=r) for r in range(draws)])
        return ShadowUpdates(ideal, path, x, rows)

    def _along(self, full: F64, gradient: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the aggregate of clients that all follow one gradient, with the mean of their states [P]."""
        standing, rule = self.standing, self.standing.own.algorithm.local
        start, work = standing.state.params, self.work(rule)
        masses = np.bincount(self.sample.steps, weights=full).astype(np.float64)
        share = torch.from_numpy(full / full.sum()).to(start)
        states = {name: share @ rows for name, rows in self._states(rule).items()}
        local = standing.session.task.local
        return weighted_update(
            gradient, start, masses, local=local, lr=local.lr(standing.next_round), rule=rule,
            broadcast=work.broadcast, states=states, fixed=fixed_parameters(standing.session.task),
        )  # fmt: skip

    def _states(self, rule: LocalRule) -> dict[str, Tensor]:
        """Return the client states that a rule reads, each [n, P]."""
        states, params = self.standing.session.states, self.standing.state.params
        assert states is not None, "the clients are in this process"
        return {n: states.gather(n, self.sample.clients, len(params), params.dtype) for n in rule.client_state}


def seed_of(seed: int, draw: int, purpose: str = "probe/batches") -> int:
    """Return the root seed of a draw; draw 0 is the run's own."""
    return seed if draw == 0 else int(streams.keys(seed, purpose, draw) >> np.uint64(2))


def without_dropout(task: LearningTask) -> LearningTask:
    """Return the task with a copy of its module that drops nothing."""
    module = copy_module(task.module)
    for part in module.modules():
        if isinstance(part, Dropout):
            part.p = 0.0
    return replace(task, module=module)


def without_turns(task: LearningTask) -> LearningTask:
    """Return the task with a model both of whose players move in each step."""
    if turns_of(task.module) is None:
        return task
    module = copy_module(task.module)
    assert isinstance(module, TwoPlayer), "players take turns"
    module.order = "simultaneous"
    return replace(task, module=module)


def fixed_parameters(task: LearningTask) -> Bool | None:
    """Return which parameters no gradient reaches, bool (P,); None where all are reached."""
    if not task.passes.unused:
        return None
    layout, found = task.parameters, np.zeros(task.parameters.size, np.bool_)
    for name in task.passes.unused:
        place = layout.names.index(name)
        found[layout.starts[place] : layout.starts[place] + math.prod(layout.shapes[place])] = True
    return found
