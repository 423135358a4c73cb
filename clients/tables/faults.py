"""Faults in recorded series: the training readings of every client, spoilt before windows are cut from them.

Readings are scaled by the clean readings' mean and deviation, so an error means the same with a fault and without.
What was missing stays missing; what is held out stays as it was recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F32, F64, I64, Bool
from clients.core.channels import Channel
from clients.core.population import Population
from clients.core.ragged import cohort_of, offsets_of
from clients.faults.apply import Block, corrupt
from clients.faults.counts import Ledger
from clients.faults.options import FaultOptions
from clients.faults.readings import last_before
from clients.tables.series import Series, moments, window_views
from clients.world.world import World

Faults = Mapping[str, FaultOptions]
Masks = list[Bool]

HOUR = 3_600_000_000
"""Microseconds."""


@dataclass(frozen=True)
class Recorded:
    """Series that were read, and the windows cut from them.

    Attributes:
        clients: readings, one series a client.
        ends: row at which each client's training part ends.
        scales: mean and deviation each client's readings are scaled by, (C,) each.
        flat: all readings scaled, client after client, [sum T, C].
        rows: of `flat`, at which training windows start, client after client.
        sizes: training windows of each client, (N,).
        window: rows of input.
        horizon: rows of output.
        channels: measured over all training readings.
    """

    clients: Sequence[Series]
    ends: Sequence[int]
    scales: Sequence[tuple[F64, F64]]
    flat: Tensor
    rows: I64
    sizes: I64
    window: int
    horizon: int
    channels: tuple[Channel, ...]

    def hours(self, k: int) -> F64 | None:
        """Return the hour of each of client k's readings since midnight before the first of all; None without times."""
        times = [s.time for s in self.clients]
        if any(t is None for t in times):
            return None
        first = min(int(t[0]) for t in times if t is not None and len(t)) // (24 * HOUR) * 24 * HOUR
        time = times[k]
        assert time is not None
        return np.asarray((time - first) / HOUR, np.float64)

    def window_hours(self, clients: I64, rows: I64, sizes: I64) -> F64:
        """Return the hour of each window's last input, client after client.

        Args:
            clients: whose, (K,).
            rows: of `flat`, at which the windows of some part start, all clients' one after the other.
            sizes: windows of each client in that part, (N,).
        """
        starts = offsets_of([len(s.values) for s in self.clients])
        offsets = offsets_of(sizes)
        parts = [np.zeros(0)]
        for k in clients.tolist():
            hours = self.hours(k)
            assert hours is not None
            parts.append(hours[rows[offsets[k] : offsets[k + 1]] - starts[k] + self.window - 1])
        return np.concatenate(parts)


def measured_channels(clients: Sequence[Series], ends: Sequence[int]) -> tuple[Channel, ...]:
    """Return the channels of series, measured over all training readings; what a sensor can show is not known."""
    known = np.concatenate([s.values[:end] for s, end in zip(clients, ends, strict=True)])
    mean, deviation = moments(known)
    names = clients[0].channels if len(clients[0].channels) == len(mean) else tuple(map(str, range(len(mean))))
    return tuple(
        Channel(name=n, mean=float(m), deviation=float(d)) for n, m, d in zip(names, mean, deviation, strict=True)
    )


def _filled(truth: F64, missing: Bool, nominal: F64) -> F32:
    """Return readings (T, C) in which the last one stands where one is missing, before the first the nominal mean."""
    last = last_before(~missing.T).T
    known = np.take_along_axis(np.where(missing, 0.0, truth), np.maximum(last, 0), axis=0)
    return np.where(last >= 0, known, nominal).astype(np.float32)


def with_series_faults(
    clean: Population, recorded: Recorded, faults: Faults, *, seed: int, world: World | None
) -> Population:
    """Return the population with faults in its clients' training readings.

    Args:
        clean: without faults.
        recorded: what it was made of.
        faults: those at work now, by name.
        seed: root seed.
        world: whose storms make outages likelier.
    """
    if not faults:
        return clean
    nominal = np.array([c.mean for c in recorded.channels])
    flat, channels = recorded.flat.clone(), recorded.channels
    ledger = Ledger(len(recorded.clients), faults)
    masks: dict[str, Masks] = {name: [] for name in faults}
    starts = offsets_of([len(s.values) for s in recorded.clients])
    for k, (series, end) in enumerate(zip(recorded.clients, recorded.ends, strict=True)):
        truth = series.values[:end]
        missing = np.isnan(truth)
        client = np.array([k], np.int64)
        hours = recorded.hours(k)
        block = Block(
            values=_filled(truth, missing, nominal)[None],
            lengths=np.array([end], np.int64),
            clients=client,
            hours=None if hours is None else hours[None, :end],
            district=clean.places(client).district if clean.places is not None else np.zeros(1, np.int64),
            channels=channels,
            districts=clean.districts,
        )
        spoilt, found, effects = corrupt(block, faults, seed=seed, world=world)
        changed = np.zeros_like(missing)
        for name, mask in found.items():
            masks[name].append(mask[0] & ~missing)
            changed |= masks[name][-1]
        mean, deviation = recorded.scales[k]
        new = torch.from_numpy((spoilt[0].astype(np.float64) - mean) / deviation).to(flat.dtype)
        own = flat[starts[k] : starts[k] + end]
        flat[starts[k] : starts[k] + end] = torch.where(torch.from_numpy(changed), new, own)
        ledger.note(client, {n: m[-1][None] for n, m in masks.items()}, effects)
    features, targets = window_views(flat, recorded.window, recorded.horizon)
    cohort = cohort_of(features, targets, offsets_of(recorded.sizes), recorded.rows)
    return replace(
        clean,
        cohort=cohort,
        realised=ledger.reader(cohort),
        masks=lambda clients: {name: [all_of[k] for k in clients.tolist()] for name, all_of in masks.items()},
    )
