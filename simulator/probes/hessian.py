"""Hessian-vector products of the objective at a state, by two backward passes of the plain module.

Products have the run's type: convolutions of float64 are many times as slow. `torch.func.grad` would import torch's
compiler, for several seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from clients.core.arrays import F64, I64, Bool
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
WORK, LEAST, MOST = 400_000_000, 256, 20_000
"""Examples x parameters of one product, and the fewest and the most examples: of more, each client's are thinned."""
KEPT_BYTES = 1 << 28
"""Features that are kept between products; beyond, clients' data are made again for each."""
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
        rounding: values below this share of the largest are rounding.
        share: the share of the examples that are used; 1 for all.
    """

    def __init__(self, standing: Standing, sample: Sample) -> None:
        self._standing, self._sample = standing, sample
        session, state = standing.session, standing.state
        task = session.task
        self._task = task
        self._module = copy_module(session.module(state.params, state.buffers)).eval().requires_grad_(False)
        self._exact = copy_module(self._module).double()
        self._layout: Layout = task.parameters
        self.point = state.params.detach().cpu().double()
        self._l2 = penalties(task.local)[1]
        self._weights = torch.from_numpy(sample.weights)
        self._kept: list[_Block] | None = None
        self.products = 0
        self.rounding = 1e-9 if task.dtype == torch.float64 else 1e-5
        examples = int(session.population.sizes[sample.clients].sum(dtype=np.int64))
        self.share = min(1.0, min(MOST, max(LEAST, WORK // len(self.point))) / max(1, examples))

    def product(self, v: Tensor) -> Tensor:
        """Return H v [P] for v [P], both float64."""
        self.products += 1
        total, along = self._l2 * v, v.to(self._task.dtype)
        for block in self._blocks():
            weights = (block.shares * self._weights[torch.from_numpy(block.owners)]).to(along)
            point = self.point.to(along, copy=True).requires_grad_(True)
            loss = self._each(block, point) @ weights
            (slope,) = torch.autograd.grad(loss, point, create_graph=True)
            if slope.requires_grad:  # a linear loss has no curvature
                (curved,) = torch.autograd.grad(slope @ along, point, allow_unused=True)
                total = total + (0.0 if curved is None else curved.double())
        return total

    def by_client(self, v: Tensor) -> F64:
        """Return v' H_k v of each client (n,), by second differences of F_k in float64, v [P] of norm 1."""
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
        task, dtype = self._task, point.dtype
        module = self._exact if dtype == torch.float64 else self._module
        outputs = functional_call(module, self._layout.views(point), (cast_features(block.features, dtype),))
        remedy = {} if block.scales is None else {"scales": block.scales.to(dtype)}
        targets, local = cast_targets(block.targets, dtype), task.local
        return trained_losses(outputs, targets, task.population.task, local.focal_gamma, remedy, local.loss)

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
            kept = thinned(data.sizes, self.share)
            rank = np.repeat(np.arange(len(clients)), data.sizes)[kept]
            shares = (1.0 / np.maximum(np.bincount(rank, minlength=len(clients)), 1))[rank]
            owners, chosen = np.searchsorted(sample.clients, clients)[rank], data.rows[kept]
            table = class_weight_table(self._task, data, of_objective=True)
            for start in range(0, len(chosen), CHUNK):
                part = slice(start, start + CHUNK)
                rows = torch.from_numpy(chosen[part])
                targets = data.targets[rows]
                scales = None
                if table is not None:
                    scales = table[torch.from_numpy(rank[part])].gather(1, targets[:, None]).squeeze(1)
                features = data.features[rows]
                yield _Block(features, targets, scales, torch.from_numpy(shares[part]), owners[part])


def thinned(sizes: I64, share: float) -> Bool:
    """Return which examples of clients, one after another, are kept: a share of each, evenly spaced, at least one.

    Example:
        >>> thinned(np.array([4, 1]), 0.5).tolist()
        [False, True, False, True, True]
    """
    place = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = np.floor((place + 1) * share) > np.floor(place * share)
    alone = np.repeat(np.floor(sizes * share) < 1, sizes) & (place == 0)
    found: Bool = kept | alone
    return found
