"""Hessian-vector products of the objective at a state, by two backward passes of the plain module, in float64.

`torch.func.grad` would import torch's compiler, for several seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from clients.core.arrays import F64, I64
from clients.core.parameters import Layout
from clients.engines.objective import blocks_of
from clients.modules.copies import copy_module
from clients.training.losses import trained_losses
from clients.training.optimizers import penalties
from clients.training.remedies import class_weight_table
from clients.training.task import cast_features, cast_targets
from simulator.probes.sample import Sample
from simulator.probes.standing import Standing

CHUNK = 2048
"""Examples whose products are computed together."""
KEPT_BYTES = 1 << 28
"""Features of float64 that are kept between products; beyond, clients' data are made again for each."""
APART = 1e-4
"""The step of second differences, relative to the parameters' norm."""


@dataclass(frozen=True)
class _Block:
    """Some examples: features, targets, the factor of each loss, each one's share of its client, and its client."""

    features: Tensor
    targets: Tensor
    scales: Tensor | None
    shares: Tensor
    owners: I64


class ObjectiveHessian:
    """The Hessian of f(w) = sum p_k F_k(w) + l2 |w|^2 / 2 of a sample of clients, at the parameters of a state.

    F_k is as in `clients.engines.objective`: training losses with class weights and focal loss, in evaluation mode. The
    penalty l1 has no curvature. An example weighs p_k / n_k.

    Args:
        standing: the state.
        sample: the clients.

    Attributes:
        products: Hessian-vector products computed so far.
    """

    def __init__(self, standing: Standing, sample: Sample) -> None:
        self._standing, self._sample = standing, sample
        session, state = standing.session, standing.state
        task = session.task
        self._task = replace(task, dtype=torch.float64)
        self._module = copy_module(session.module(state.params, state.buffers)).double().eval().requires_grad_(False)
        self._layout: Layout = task.parameters
        self.point = state.params.detach().cpu().double()
        self._l2 = penalties(task.local)[1]
        self._weights = torch.from_numpy(sample.weights)
        self._kept: list[_Block] | None = None
        self.products = 0

    def product(self, v: Tensor) -> Tensor:
        """Return H v [P] for v [P], float64."""
        self.products += 1
        total = self._l2 * v
        for block in self._blocks():
            weights = block.shares * self._weights[torch.from_numpy(block.owners)]
            point = self.point.clone().requires_grad_(True)
            loss = self._each(block, point) @ weights
            (slope,) = torch.autograd.grad(loss, point, create_graph=True)
            if slope.requires_grad:  # a linear loss has no curvature
                (curved,) = torch.autograd.grad(slope @ v, point, allow_unused=True)
                total = total + (0.0 if curved is None else curved)
        return total

    def by_client(self, v: Tensor) -> F64:
        """Return v' H_k v of each client (n,), by second differences of F_k, for v [P] of norm 1."""
        step = APART * max(1.0, float(torch.linalg.vector_norm(self.point)))
        ends = [self._losses(self.point + s * step * v) for s in (-1.0, 0.0, 1.0)]
        found: F64 = (ends[0] - 2.0 * ends[1] + ends[2]) / step**2 + self._l2
        return found

    def _losses(self, point: Tensor) -> F64:
        """Return F_k at a point of each client (n,)."""
        total = np.zeros(len(self._sample.clients))
        with torch.no_grad():
            for block in self._blocks():
                losses = self._each(block, point) * block.shares
                total += np.bincount(block.owners, weights=losses.numpy(), minlength=len(total))
        return total

    def _each(self, block: _Block, point: Tensor) -> Tensor:
        """Return the training loss of each example of a block at a point."""
        task = self._task
        outputs = functional_call(self._module, self._layout.views(point), (block.features,))
        remedy = {} if block.scales is None else {"scales": block.scales}
        return trained_losses(outputs, block.targets, task.population.task, task.local.focal_gamma, remedy)

    def _blocks(self) -> Iterator[_Block]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[_Block] | None = []
        size = 0
        for block in self._made():
            size += block.features.nbytes
            if kept is not None:
                kept = [*kept, block] if size <= KEPT_BYTES else None
            yield block
        self._kept = kept

    def _made(self) -> Iterator[_Block]:
        """Yield the sample's data of the next round, a few thousand examples at a time."""
        session, sample = self._standing.session, self._sample
        population = session.population.during(self._standing.next_round)
        for clients in blocks_of(sample.clients, session.population.sizes):
            data = population.cohort(clients)
            places = np.searchsorted(sample.clients, clients)
            owners = np.repeat(places, data.sizes)
            shares = np.repeat(1.0 / np.maximum(data.sizes, 1), data.sizes)
            table = class_weight_table(self._task, data, of_objective=True)
            rank = np.repeat(np.arange(len(clients)), data.sizes)
            for start in range(0, len(data.rows), CHUNK):
                part = slice(start, start + CHUNK)
                rows = torch.from_numpy(data.rows[part])
                targets = cast_targets(data.targets[rows], torch.float64)
                scales = None
                if table is not None:
                    scales = table[torch.from_numpy(rank[part])].gather(1, targets[:, None]).squeeze(1)
                features = cast_features(data.features[rows], torch.float64)
                yield _Block(features, targets, scales, torch.from_numpy(shares[part]), owners[part])
