"""Faults in recorded series: they change the training readings of every client before windows are cut.

Readings are scaled by the clean readings' mean and deviation, so errors with and without faults have the same scale.
Missing readings stay missing; held-out readings stay as recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F32, F64, I64, Bool
from clients.core.channels import Channel
from clients.core.examples import CohortData, FaultCounts
from clients.core.population import Population
from clients.core.population_parts import RawSeries
from clients.core.ragged import cohort_of, offsets_of
from clients.faults.apply import Block, corrupt
from clients.faults.counts import changed_share, fault_counts
from clients.faults.options import Faults
from clients.faults.readings import last_before
from clients.tables.series import Series, moments, window_views
from clients.world.world import World

Masks = list[Bool]

HOUR = 3_600_000_000
"""Microseconds."""


@dataclass(frozen=True)
class Recorded:
    """Recorded series, and the windows cut from them.

    Attributes:
        clients: readings, one series a client.
        ends: row at which each client's training part ends.
        scales: mean and deviation that scale each client's readings, (C,) each.
        flat: all readings scaled, client after client, [sum T, C].
        rows: rows of `flat` at which training windows start, client after client.
        sizes: training windows of each client, (N,).
        window: rows of input.
        horizon: rows of output.
        channels: the channels, measured over all training readings.
        splits: rows at which each client's training, validation and test parts end.
        missing: which readings of channel 0 were missing before gaps were filled, one (T,) a client.
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
    splits: Sequence[tuple[int, int, int]] = ()
    missing: Sequence[Bool] = ()

    @cached_property
    def starts(self) -> I64:
        """The row of `flat` at which each client's readings start, and the end, (N + 1,)."""
        return offsets_of([len(s.values) for s in self.clients])

    @cached_property
    def midnight(self) -> int | None:
        """Midnight before the first of all readings, microseconds since 1970; None without times."""
        times = [s.time for s in self.clients]
        if any(t is None for t in times):
            return None
        return min(int(t[0]) for t in times if t is not None and len(t)) // (24 * HOUR) * 24 * HOUR

    def hours(self, k: int) -> F64 | None:
        """Return the hour of client k's readings, counted from midnight before the first of all; None without times."""
        first, time = self.midnight, self.clients[k].time
        if first is None:
            return None
        assert time is not None
        return np.asarray((time - first) / HOUR, np.float64)

    def window_hours(self, clients: I64, rows: I64, sizes: I64) -> F64:
        """Return the hour of each window's last input, client after client.

        Args:
            clients: the clients, (K,).
            rows: rows of `flat` at which the windows of some part start, client after client.
            sizes: windows of each client in that part, (N,).
        """
        steps, ends = self.window_steps(clients, rows, sizes), offsets_of(sizes[clients])
        parts = [np.zeros(0)]
        for i, k in enumerate(clients.tolist()):
            hours = self.hours(k)
            assert hours is not None
            parts.append(hours[steps[ends[i] : ends[i + 1]]])
        return np.concatenate(parts)

    def window_steps(self, clients: I64, rows: I64, sizes: I64) -> I64:
        """Return the client's row of each window's last input, client after client; arguments as in `window_hours`."""
        starts, offsets = self.starts, offsets_of(sizes)
        parts = [rows[offsets[k] : offsets[k + 1]] - starts[k] for k in clients.tolist()]
        return np.concatenate([np.zeros(0, np.int64), *parts]) + self.window - 1

    @property
    def quantity(self) -> str:
        """The name of channel 0; empty where clients have different ones there."""
        names = {s.channels[0] for s in self.clients}
        return names.pop() if len(names) == 1 else ""

    def latest(self, clients: I64, rows: I64, sizes: I64) -> Tensor:
        """Return the scaled reading of channel 0 at each window's end; arguments as in `window_hours`."""
        offsets = offsets_of(sizes)
        parts = [rows[offsets[k] : offsets[k + 1]] for k in clients.tolist()]
        ends = np.concatenate([np.zeros(0, np.int64), *parts]) + self.window - 1
        return self.flat[torch.from_numpy(ends), 0]

    def raw(self, flat: Tensor, client: int) -> RawSeries:
        """Return a client's readings of channel 0 out of scaled ones [sum T, C], in their unit."""
        start, end = self.starts[client : client + 2]
        mean, deviation = self.scales[client]
        values = flat[start:end, 0].double().numpy() * deviation[0] + mean[0]
        filled = self.missing[client] & ~np.isnan(values)
        unit = self.channels[0].unit
        return RawSeries(self.quantity, unit, values, filled, self.splits[client], self.hours(client))


def measured_channels(clients: Sequence[Series], ends: Sequence[int]) -> tuple[Channel, ...]:
    """Return the channels of series, measured over all training readings; the range of a sensor is unknown."""
    known = np.concatenate([s.values[:end] for s, end in zip(clients, ends, strict=True)])
    mean, deviation = moments(known)
    names = clients[0].channels if len(clients[0].channels) == len(mean) else tuple(map(str, range(len(mean))))
    return tuple(
        Channel(name=n, mean=float(m), deviation=float(d)) for n, m, d in zip(names, mean, deviation, strict=True)
    )


def _filled(readings: F64, missing: Bool, nominal: F64) -> F32:
    """Return readings (T, C) without gaps, filled with the last reading, or the nominal mean before the first."""
    last = last_before(~missing.T).T
    known = np.take_along_axis(np.where(missing, 0.0, readings), np.maximum(last, 0), axis=0)
    return np.where(last >= 0, known, nominal).astype(np.float32)


def with_series_faults(
    clean: Population, recorded: Recorded, faults: Faults, *, seed: int, world: World | None
) -> Population:
    """Return the population with faults in its clients' training readings.

    Args:
        clean: the population without faults.
        recorded: the series that it was made of.
        faults: the active faults, by name.
        seed: root seed.
        world: the city, for outages that depend on its storms.
    """
    if not faults:
        return clean
    flat, masks, counts = _faulty(clean, recorded, faults, seed, world)
    features, targets = window_views(flat, recorded.window, recorded.horizon)
    windows = cohort_of(features, targets, offsets_of(recorded.sizes), recorded.rows)

    def cohort(clients: I64) -> CohortData:
        return replace(windows(clients), fault_counts=counts.take(clients))

    def masks_of(clients: I64) -> dict[str, Masks]:
        return {name: [each[k] for k in clients.tolist()] for name, each in masks.items()}

    return replace(
        clean,
        clients=replace(clean.clients, cohort=cohort, series=partial(recorded.raw, flat)),
        history=replace(clean.history, faults=tuple(faults), masks=masks_of),
    )


def _faulty(
    clean: Population, recorded: Recorded, faults: Faults, seed: int, world: World | None
) -> tuple[Tensor, dict[str, Masks], FaultCounts]:
    """Return all readings with their faults, [sum T, C], and each client's masks and counts by fault."""
    flat = recorded.flat.clone()
    masks: dict[str, Masks] = {name: [] for name in faults}
    changed, effect = ({name: np.zeros(len(recorded.clients)) for name in faults} for _ in range(2))
    starts = recorded.starts
    for k, (series, end) in enumerate(zip(recorded.clients, recorded.ends, strict=True)):
        missing = np.isnan(series.values[:end])
        block = _block(clean, recorded, k)
        faulty, found, effects = corrupt(block, faults, seed=seed, world=world)
        any_changed = np.zeros_like(missing)
        for name, mask in found.items():
            masks[name].append(mask[0] & ~missing)
            any_changed |= masks[name][-1]
            changed[name][k] = changed_share(masks[name][-1][None])[0]
            effect[name][k] = effects[name][0]
        mean, deviation = recorded.scales[k]
        new = torch.from_numpy((faulty[0].astype(np.float64) - mean) / deviation).to(flat.dtype)
        own = flat[starts[k] : starts[k] + end]
        flat[starts[k] : starts[k] + end] = torch.where(torch.from_numpy(any_changed), new, own)
    return flat, masks, fault_counts(faults, changed, effect)


def _block(clean: Population, recorded: Recorded, k: int) -> Block:
    """Return client k's training readings in the form that faults take."""
    end, client, places = recorded.ends[k], np.array([k], np.int64), clean.federation.places
    readings, hours = recorded.clients[k].values[:end], recorded.hours(k)
    nominal = np.array([c.mean for c in recorded.channels])
    return Block(
        values=_filled(readings, np.isnan(readings), nominal)[None],
        lengths=np.array([end], np.int64),
        clients=client,
        hours=None if hours is None else hours[None, :end],
        district=places(client).district if places is not None else np.zeros(1, np.int64),
        channels=recorded.channels,
        districts=clean.federation.districts,
    )
