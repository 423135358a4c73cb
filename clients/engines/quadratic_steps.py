"""The local steps of a tile of quadratic clients: all of them in one call of the program where the step is plain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import I64
from clients.core.cards.transfer import sent
from clients.engines.batch import Tensors
from clients.engines.quadratics import Bowls, QuadraticProgram, bowls_of
from clients.training.path_measures import PathMeter, is_measured, is_placed, squared_norms
from clients.training.task import cast_features

AT_ONCE = 1 << 20
"""Numbers of features, or of a path, that are kept together."""


@dataclass(frozen=True)
class QuadraticSteps:
    """The steps of a tile, clients in decreasing order of steps.

    Attributes:
        program: has the dimension.
        features: the examples [n, d * d + d (+ d)], in main memory: which batches are equal is found there.
        rows: the examples of each step, int64 (S, K, B).
        counts: how many of the B are real, int64 (K, S).
        active: clients that take each step.
        w: the clients' parameters [K, d], changed in place.
        anchor: the broadcast parameters [d].
        meter: gets gradient norms and distances at the measured steps.
        lr: learning rate.
        l2: weight decay of a plain step.
        step: (step from 0, clients, gradients) -> takes the step in place.
        is_plain: whether that step is w <- w - lr (gradient + l2 w).
    """

    program: QuadraticProgram
    features: Tensor
    rows: I64
    counts: I64
    active: list[int]
    w: Tensor
    anchor: Tensor
    meter: PathMeter
    lr: float
    l2: float
    step: Callable[[int, int, Tensors], None]
    is_plain: bool

    def play(self) -> Tensor:
        """Take every step; return the mean loss of each step's batch before it, [S, K]."""
        losses = self.w.new_zeros(len(self.active), len(self.w))
        for start, stop, objectives, same in self._stretches():
            k = self.active[start]
            if same and self.is_plain:
                losses[start:stop, :k] = self._descend(start, stop, objectives[0])
                continue
            for s in range(start, stop):
                bowls = objectives[0 if same else s - start]
                away = (self.w[:k] - bowls.centres.squeeze(2)).unsqueeze(2)
                bent = torch.bmm(bowls.hessians, away)
                losses[s, :k] = bowls.losses(away, bent)
                self._take(s, k, bowls.slope(bent).clone())
        return losses

    def _descend(self, start: int, stop: int, bowls: Bowls) -> Tensor:
        """Take plain steps start to stop - 1 of the first clients; return their losses."""
        k, d = bowls.centres.shape[:2]
        found = []
        most = max(1, AT_ONCE // max(1, k * d))
        for s in range(start, stop, most):
            count = min(most, stop - s)
            way, bent, losses = self.program.descend(bowls, self.w[:k], count, self.lr, self.l2)
            found.append(losses)
            for i in range(count):
                if is_measured(s + i + 1):
                    self.meter.gradient(squared_norms({"w": bowls.slope(bent[i])}))
            self._place(s, way[1:], bowls.centres)
        return torch.cat(found)

    def _place(self, s: int, way: Tensor, centres: Tensor) -> None:
        """Measure the distances after the steps from s on, at centres [k, d, 1] + way [steps, k, d, 1], together."""
        placed = [i for i in range(len(way)) if is_placed(s + i + 1)]
        if placed:
            chosen = way[: len(placed)] if placed[-1] == len(placed) - 1 else torch.stack([way[i] for i in placed])
            away = (chosen + centres).squeeze(3).sub_(self.anchor)
            for i, distance in zip(placed, torch.linalg.vector_norm(away, dim=2).unbind(0), strict=True):
                self.meter.position(s + i + 1, distance)

    def _take(self, s: int, k: int, gradient: Tensor) -> None:
        """Take one step of any kind."""
        if is_measured(s + 1):
            self.meter.gradient(squared_norms({"w": gradient}))
        self.step(s, k, {"w": gradient})
        if is_placed(s + 1):
            self.meter.position(s + 1, torch.linalg.vector_norm(self.w[:k] - self.anchor, dim=1))

    def _stretches(self) -> Iterator[tuple[int, int, list[Bowls], bool]]:
        """Yield (first step, end, objectives, whether one serves all steps) of successive steps of the same clients."""
        rows, counts = self.rows, self.counts.T
        if (rows == rows[:, :, :1]).all():  # equal examples: a batch is one of them
            rows, counts = rows[:, :, :1], np.minimum(counts, 1)
        same = bool((rows == rows[:1]).all()) and bool(((counts == counts[:1]) | (counts == 0)).all())
        busy = [k for k in self.active if k]
        whole = self._bowls(rows[0, : busy[0]], counts[0, : busy[0]]) if same and busy else None
        start = 0
        while start < len(busy):
            k = busy[start]
            most = len(busy) if same else max(1, AT_ONCE // (k * rows.shape[2] * self.features.shape[1]))
            stop = start + 1
            while stop < min(len(busy), start + most) and busy[stop] == k:
                stop += 1
            if whole is not None:
                yield start, stop, [whole.take(slice(0, k))], True
            else:
                batches = rows[start:stop, :k].reshape(-1, rows.shape[2])
                some = self._bowls(batches, counts[start:stop, :k].ravel())
                yield start, stop, [some.take(slice(i * k, (i + 1) * k)) for i in range(stop - start)], False
            start = stop

    def _bowls(self, rows: I64, counts: I64) -> Bowls:
        """Return the objectives of batches (k, b) with `counts` (k,) real examples each."""
        features = cast_features(self.features.index_select(0, torch.from_numpy(rows.reshape(-1))), self.w.dtype)
        length = rows.shape[1]
        weights = None
        if (counts < length).any():
            real = np.arange(length)[None, :] < counts[:, None]
            shares = torch.from_numpy(real / np.maximum(counts, 1)[:, None])
            weights = sent(shares.to(self.w.dtype), self.w.device)
        return bowls_of(sent(features.view(*rows.shape, -1), self.w.device), weights, self.program.dimension)
