"""The sum of a cohort's updates: aggregate, dispersion and one row for each client, added tile by tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, I64, Bool
from clients.training.work import CohortUpdate, concatenate
from server.algorithms.aggregation import SUMS_TO_ONE, Aggregation, convex, weighted_mean, weighted_sum
from server.algorithms.transforms import Aggregate
from server.certificate.hashing import update_hashes
from server.dispersion.differences import Differences
from server.dispersion.measures import Dispersion, DispersionStream, measure_dispersion, of_aggregate
from server.dispersion.sums import Layers


@dataclass(frozen=True)
class SumPlan:
    """What a sum needs before the first update arrives.

    Attributes:
        clients: clients of the cohort, increasing, int64 (K,).
        weights: coefficient of each update, float64 (K,); 0 leaves it out.
        num_examples: training examples of each, int64 (K,).
        anchor: the broadcast parameters [P].
        layers: (name, start, end) of each layer within [P].
        population: clients N of the federation that have data.
        aggregation: how updates are combined.
        buffer_weights: of each client's buffers in their mean, float64 (K,); None makes them from `weights`.
        of_mean: whether the measures are of the weighted mean, whatever the weights sum to: a user's strategy combines
            updates in its own way.
        counted: for a part of a sum, how many updates count in the whole; None counts those of this plan.
        hashed: whether each update is hashed before its rows are added up.
    """

    clients: I64
    weights: F64
    num_examples: I64
    anchor: Tensor
    layers: Layers
    population: int
    aggregation: Aggregation
    buffer_weights: F64 | None = None
    of_mean: bool = False
    counted: int | None = None
    hashed: bool = False

    def part(self, places: I64) -> SumPlan:
        """Return the plan of some of its clients, by their places in it, increasing."""
        return replace(
            self, clients=self.clients[places], weights=self.weights[places], num_examples=self.num_examples[places],
            buffer_weights=self.shares[places], counted=self.num_counted,
        )  # fmt: skip

    @property
    def num_counted(self) -> int:
        """How many updates count, in the whole sum; at least 1."""
        return max(1, int(np.count_nonzero(self.weights))) if self.counted is None else self.counted

    @cached_property
    def shares(self) -> F64:
        """Weights of the clients' buffers, which sum to 1."""
        return convex(self.weights) if self.buffer_weights is None else self.buffer_weights

    @property
    def total(self) -> float:
        """Sum of the coefficients; exactly 1 where that is the sum up to rounding."""
        total = float(self.weights.sum())
        return 1.0 if self.of_mean or abs(total - 1.0) <= SUMS_TO_ONE else total


@dataclass(frozen=True)
class CohortResult:
    """A finished sum.

    Attributes:
        plan: the cohort and its weights.
        update: one row for each client, in order of client; without parameters where they were not kept.
        aggregate: the aggregated update; None where every weight is 0.
        buffers: mean buffers [Q], with the weights of the updates scaled to sum 1; None where `aggregate` is.
    """

    plan: SumPlan
    update: CohortUpdate
    aggregate: Aggregate | None
    buffers: Tensor | None
    _streamed: Dispersion | None = None

    @property
    def weights(self) -> F64:
        """Coefficient of each update, float64 (K,)."""
        return self.plan.weights

    @cached_property
    def dispersion(self) -> Dispersion | None:
        """How the updates differ; None where every weight is 0."""
        if self.aggregate is None:
            return None
        if self._streamed is not None:
            return self._streamed
        how = self.plan.aggregation
        applied = self.aggregate.pseudo_gradient if how.map_update is not None or how.reduce is not None else None
        device = self.update.params.device
        applied = None if applied is None else applied.to(device)
        rows = Differences(self.update.params, self.plan.anchor.to(device))
        total = self.plan.total
        return measure_dispersion(rows, self.weights, layers=self.plan.layers, aggregate=applied, total=total)


class CohortSum:
    """Adds up the updates of a set of clients and measures their dispersion.

    Tiles of a cohort, workers and edge servers can each fill one sum; `merge` joins them. A sum that keeps its rows
    gives the same bits in any order of arrival. One that does not depends in the last bits on its tiles and on the
    order in which parts are merged; workers merge parts of fixed blocks of clients in their order.

    Args:
        plan: the cohort and its weights.
        keep_rows: whether updates are kept whole; otherwise they are summed as they arrive.
    """

    def __init__(self, plan: SumPlan, *, keep_rows: bool = True) -> None:
        assert keep_rows or not plan.aggregation.needs_rows, "this aggregation needs every update"
        self.plan, self.keep_rows = plan, keep_rows
        self._tiles: list[CohortUpdate] = []
        self._total, self._anchor = torch.zeros_like(plan.anchor), plan.anchor
        self._buffers: Tensor | None = None
        self._extras: dict[str, Tensor] = {}
        self._stream = DispersionStream(layers=plan.layers)

    def add(self, tile: CohortUpdate) -> None:
        """Add the updates of some clients of the plan; each client is added once."""
        if self.keep_rows:
            self._tiles.append(tile)
            return
        hashes = update_hashes(tile) if self.plan.hashed and tile.hashes is None else tile.hashes
        self._tiles.append(replace(tile.without_rows(), hashes=hashes))
        weights = self.plan.weights[self._places_of(tile)]
        rows = self._anchor_on(tile.params.device) - tile.params
        self._stream.add(rows, weights)
        summed = weighted_sum(weights, self.plan.aggregation.mapped(rows))
        self._total = self._total.to(summed.device)
        self._total += summed
        counted = weights != 0
        buffers = weighted_sum(self.plan.shares[self._places_of(tile)], tile.buffers)
        self._buffers = buffers if self._buffers is None else self._buffers + buffers
        equal = (counted / self.plan.num_counted).astype(np.float64)
        for name, vectors in tile.extras.items():
            part = weighted_sum(equal, vectors)
            self._extras[name] = self._extras[name] + part if name in self._extras else part

    def merge(self, other: CohortSum) -> None:
        """Add the updates of another sum of the same plan, over other clients."""
        assert self.keep_rows == other.keep_rows, "merged sums both keep their rows, or both do not"
        self._tiles += other._tiles
        if self.keep_rows or other._buffers is None:
            return
        self._stream.merge(other._stream)
        self._total += other._total
        self._buffers = other._buffers if self._buffers is None else self._buffers + other._buffers
        for name, part in other._extras.items():
            self._extras[name] = self._extras[name] + part if name in self._extras else part

    def tensors(self) -> dict[str, Tensor]:
        """Return what the sum has added up without its rows, by name, to send it to another process; see `restored`."""
        assert not self.keep_rows, "rows are sent as they are"
        buffers = {} if self._buffers is None else {"buffers": self._buffers}
        extras = {f"extras/{name}": vector for name, vector in self._extras.items()}
        dispersion = {f"dispersion/{name}": t for name, t in self._stream.tensors().items()}
        return {"total": self._total, **buffers, **extras, **dispersion}

    @classmethod
    def restored(cls, plan: SumPlan, rows: CohortUpdate, tensors: Mapping[str, Tensor]) -> CohortSum:
        """Return a sum without its rows that another process has added up.

        Args:
            plan: the plan of its clients.
            rows: one row for each client, in the order in which they were added, without parameters.
            tensors: what its `tensors` returned.
        """
        found = cls(plan, keep_rows=False)
        found._tiles, found._total, found._buffers = [rows], tensors["total"], tensors.get("buffers")
        found._extras = {n.removeprefix("extras/"): t for n, t in tensors.items() if n.startswith("extras/")}
        parts = {n.removeprefix("dispersion/"): t for n, t in tensors.items() if n.startswith("dispersion/")}
        found._stream = DispersionStream.restored(parts, layers=plan.layers)
        return found

    def result(self) -> CohortResult:
        """Return the sum of the added updates; there must be at least one."""
        update = concatenate(self._tiles)
        plan = self.plan
        counted = plan.weights != 0
        if not counted.any():
            return CohortResult(plan, update, None, None)
        share = float(counted.sum()) / plan.population
        if self.keep_rows:
            return self._of_rows(update, counted, share)
        found = self._dispersion()
        assert self._buffers is not None, "an update was added"
        return CohortResult(plan, update, *self._on_host(self._total, self._extras, share, self._buffers), found)

    def _of_rows(self, update: CohortUpdate, counted: Bool, share: float) -> CohortResult:
        plan, how = self.plan, self.plan.aggregation
        rows = Differences(update.params, self._anchor_on(update.params.device))
        if how.reduce is None and how.map_update is None and rows.is_large:
            pseudo_gradient = rows.weighted_sum(torch.from_numpy(plan.weights).to(update.params))
        elif how.reduce is None:
            pseudo_gradient = weighted_sum(plan.weights, how.mapped(rows.whole()))
        else:
            mapped = how.mapped(rows.whole())
            chosen = torch.from_numpy(counted)
            pseudo_gradient = how.reduced(mapped[chosen], torch.from_numpy(plan.weights[counted]).to(mapped))
        extras = {n: weighted_sum(counted / counted.sum(), v) for n, v in update.extras.items()}
        buffers = weighted_sum(plan.shares, update.buffers)
        return CohortResult(plan, update, *self._on_host(pseudo_gradient, extras, share, buffers))

    def _anchor_on(self, device: torch.device) -> Tensor:
        """Return the broadcast parameters where updates are."""
        if self._anchor.device != device:
            self._anchor = self.plan.anchor.to(device)
        return self._anchor

    def _on_host(
        self, pseudo_gradient: Tensor, extras: Mapping[str, Tensor], share: float, buffers: Tensor
    ) -> tuple[Aggregate, Tensor]:
        """Return the aggregate and the mean buffers where the server's state is; updates may be on a card."""
        host = self.plan.anchor.device
        extras = {name: vector.to(host) for name, vector in extras.items()}
        return Aggregate(pseudo_gradient.to(host), extras, share), buffers.to(host)

    def _dispersion(self) -> Dispersion:
        """Return the streamed dispersion, norms in order of client."""
        found = self._stream.result(self.plan.total)
        if self.plan.aggregation.map_update is not None:
            norm = float(torch.linalg.vector_norm(self._total.double()))
            found = of_aggregate(found, self._total, self.plan.layers, norm=norm)
        order = np.argsort(np.concatenate([tile.clients for tile in self._tiles]), kind="stable")
        return replace(found, update_norm=found.update_norm[order])

    def _places_of(self, tile: CohortUpdate) -> I64:
        """Return where the tile's clients are in the plan."""
        return np.searchsorted(self.plan.clients, tile.clients)


def sum_by_examples(update: CohortUpdate, anchor: Tensor, layers: Layers, population: int) -> CohortResult:
    """Return the sum of kept updates weighted by their examples; it measures the cohort of a user's strategy."""
    plan = SumPlan(
        update.clients, update.num_examples.astype(np.float64), update.num_examples, anchor, layers, population,
        weighted_mean("examples"), of_mean=True,
    )  # fmt: skip
    return sum_of([update], plan)


def sum_of(tiles: Sequence[CohortUpdate], plan: SumPlan) -> CohortResult:
    """Return the sum of a complete set of updates."""
    total = CohortSum(plan)
    for tile in tiles:
        total.add(tile)
    return total.result()
