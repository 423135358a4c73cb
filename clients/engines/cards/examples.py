"""The examples of a tile on the device that trains on them."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import I64, Bool
from clients.core.cards.transfer import sent
from clients.core.examples import CohortData

HELD_BYTES = 8 << 30
"""A population of at most so many bytes stays on the card, where main memory holds it as a whole."""


@dataclass(frozen=True)
class Placed:
    """Examples on a device, and which of them each batch has.

    Attributes:
        features: [n, *feature_shape].
        targets: [n, ...].
        rows: positions in both, of the shape that was passed, int64.
    """

    features: Tensor
    targets: Tensor
    rows: Tensor


class ExampleStore:
    """Puts the examples of tiles on a device.

    On the CPU they are there. A card gets the rows of a tile's clients. Where successive tiles lie in one tensor, as in
    a population that stays in main memory, the card has room for all of its rows: each row then travels once.

    Args:
        device: the device.
        held_bytes: the largest population that stays on a card.
    """

    def __init__(self, device: torch.device, held_bytes: int = HELD_BYTES) -> None:
        self._device, self._held_bytes = device, held_bytes
        self._source: weakref.ref[Tensor] | None = None
        self._held: tuple[Tensor, Tensor] | None = None
        self._known: Bool = np.zeros(0, np.bool_)

    def place(self, data: CohortData, rows: I64) -> Placed:
        """Return the examples of some clients on the device.

        Args:
            data: the clients' examples.
            rows: positions in `data.features`, of any shape; all of them belong to these clients.
        """
        if self._device.type == "cpu":
            return Placed(data.features, data.targets, torch.from_numpy(np.ascontiguousarray(rows)))
        if self._stays(data):
            features, targets = self._filled(data)
            return Placed(features, targets, sent(torch.from_numpy(np.ascontiguousarray(rows)), self._device))
        own = torch.from_numpy(data.rows)
        place = np.empty(len(data.features), np.int64)
        place[data.rows] = np.arange(len(data.rows))
        moved = place[rows] if len(data.rows) else np.ascontiguousarray(rows)
        return Placed(
            sent(data.features.index_select(0, own), self._device),
            sent(data.targets.index_select(0, own), self._device),
            sent(torch.from_numpy(moved), self._device),
        )

    def _stays(self, data: CohortData) -> bool:
        """Return whether these examples lie in the tensor of the last ones, and all of it fits."""
        again = self._source is not None and self._source() is data.features
        if not again:
            self._source, self._held = weakref.ref(data.features), None
        return again and data.features.nbytes + data.targets.nbytes <= self._held_bytes

    def _filled(self, data: CohortData) -> tuple[Tensor, Tensor]:
        """Return room for all examples on the device, with those of these clients in it."""
        if self._held is None:
            self._held = (
                torch.empty_like(data.features, device=self._device),
                torch.empty_like(data.targets, device=self._device),
            )
            self._known = np.zeros(len(data.features), np.bool_)
        new = data.rows[~self._known[data.rows]]
        if len(new):
            host = torch.from_numpy(new)
            there = sent(host, self._device)
            for held, values in zip(self._held, (data.features, data.targets), strict=True):
                held.index_copy_(0, there, sent(values.index_select(0, host), self._device))
            self._known[new] = True
        return self._held
