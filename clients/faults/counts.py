"""The book of what faults did, client by client, filled in as data are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from clients.core.arrays import F64, I64, Array
from clients.core.population import Realised


class Ledger:
    """Keeps, by fault, the share of each client's readings it changed and its effect: 8 bytes a client and fault.

    Args:
        clients: how many there are.
        faults: their names.
        measured: which channels a sensor measures, bool (C,): shares are of their readings.
    """

    def __init__(self, clients: int, faults: Iterable[str], measured: npt.ArrayLike = True) -> None:
        self._measured = np.asarray(measured)
        self._changed = {name: np.full(clients, np.nan, np.float32) for name in faults}
        self._effect = {name: np.zeros(clients, np.float32) for name in self._changed}

    def note(self, clients: I64, masks: Mapping[str, Array], effects: Mapping[str, F64]) -> None:
        """Take in what was done to some clients: masks of readings (K, T, C) or labels (K, n), effects (K,)."""
        shares = {n: self._share(m) for n, m in masks.items()}
        self.note_shares(clients, shares, effects)

    def _share(self, mask: Array) -> F64:
        """Return the share of each client's readings (or labels) that are marked, (K,)."""
        if mask.ndim == 3 and self._measured.ndim:
            mask = mask[:, :, self._measured]
        of_client = tuple(range(1, mask.ndim))
        return np.asarray(mask.sum(axis=of_client) / max(1, int(np.prod(mask.shape[1:]))), np.float64)

    def note_shares(self, clients: I64, shares: Mapping[str, F64], effects: Mapping[str, F64]) -> None:
        """Take in shares (K,) and effects (K,)."""
        for name, share in shares.items():
            self._changed[name][clients] = share
            self._effect[name][clients] = effects[name]

    def reader(self, cohort: Callable[[I64], object]) -> Callable[[I64], Realised]:
        """Return `Population.realised`: clients that nobody asked for yet are made first, by `cohort`."""

        def realised(clients: I64) -> Realised:
            unknown = [np.isnan(values[clients]) for values in self._changed.values()]
            missing = np.unique(clients[np.logical_or.reduce(unknown)]) if unknown else clients[:0]
            if len(missing):
                cohort(missing)
            return Realised(
                {n: values[clients].astype(np.float64) for n, values in self._changed.items()},
                {n: values[clients].astype(np.float64) for n, values in self._effect.items()},
            )

        return realised
