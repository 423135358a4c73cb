"""Faults applied in order to a cohort's readings or labels, with the truth of what each changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clients import streams
from clients.channels import Channel
from clients.faults import labels as label_faults
from clients.faults import packets, sensors
from clients.faults.options import MEASURES, Fault, FaultOptions, SensorFault, is_label_fault
from clients.faults.outages import World
from clients.faults.readings import F32, F64, I64, U64, Bools, Changed, Readings, purpose, uniform

_SENSOR: dict[str, Callable[[Any, Readings], Changed]] = {
    "stuck_at": sensors.stuck_at,
    "spikes": sensors.spikes,
    "bias": sensors.bias,
    "calibration_drift": sensors.calibration_drift,
    "noise": sensors.noise,
    "unit_mixup": sensors.unit_mixup,
    "saturation": sensors.saturation,
    "quantisation": sensors.quantisation,
    "missing": packets.missing,
    "missing_bursts": packets.missing_bursts,
    "clock_skew": packets.clock_skew,
    "duplicated": packets.duplicated,
    "reordered": packets.reordered,
    "gateway_outage": packets.gateway_outage,
}
_Rate = Callable[[Any, I64], F64]
_NewLabel = Callable[[Any, I64, int, U64], I64]
_LABEL: dict[str, tuple[_Rate, _NewLabel]] = {
    "label_symmetric": (label_faults.symmetric_rate, label_faults.any_other),
    "label_pair_flip": (label_faults.symmetric_rate, label_faults.next_class),
    "label_class_dependent": (label_faults.class_rate, label_faults.given_class),
    "label_concentrated": (label_faults.symmetric_rate, label_faults.any_other),
}


@dataclass(frozen=True, kw_only=True)
class Block:
    """A span of the readings of some clients.

    Attributes:
        values: in the channels' units, float32 (K, T, C).
        lengths: how many of the T steps of each client hold readings, int64 (K,); the others are padding.
        clients: int64 (K,).
        hours: hour of the world's clock of each step, float64 (K, T); None without a clock.
        district: index of each client's district, int64 (K,); 0 without districts.
        channels: C of them.
        first: absolute index of step 0.
        districts: names of the districts, for faults that are kept to some.
    """

    values: F32
    lengths: I64
    clients: I64
    hours: F64 | None
    district: I64
    channels: tuple[Channel, ...]
    first: int = 0
    districts: tuple[str, ...] = ()


def affected(
    fault_name: str, options: Fault, clients: I64, district: I64, seed: int, *, districts: tuple[str, ...] = ()
) -> Bools:
    """Say which clients a fault affects, bool (K,).

    Args:
        fault_name: its name in the scenario.
        options: of the fault.
        clients: int64 (K,).
        district: index of each one's district, int64 (K,).
        seed: of the run.
        districts: names of the districts, where the options name some.
    """
    chosen = uniform(streams.keys(seed, purpose(fault_name, "clients"), clients)) < options.clients
    if options.districts:
        assert set(options.districts) <= set(districts), "check_faults refuses districts that are not there"
        chosen &= np.isin(district, [districts.index(name) for name in options.districts])
    return np.asarray(chosen & (options.severity > 0))


def corrupt(
    block: Block, faults: Mapping[str, FaultOptions], *, seed: int, world: World | None = None
) -> tuple[F32, dict[str, Bools], dict[str, F64]]:
    """Apply faults of readings in order; faults of labels are passed over.

    Args:
        block: what was really there; it is not changed.
        faults: by name, checked by `check_faults`; those whose schedule is in rounds are applied: leave out those that
            are not active.
        seed: of the run.
        world: whose storms make gateway outages likelier.

    Returns:
        The readings, float32 (K, T, C); by fault, exactly what it changed of what it was given, bool (K, T, C); by
        fault, its measure of effect (`MEASURES`) for each client, float64 (K,), 0 for those it does not touch.
    """
    values, masks, effects = block.values.copy(), {}, {}
    for name, options in faults.items():
        if not is_label_fault(options):
            assert isinstance(options, SensorFault)
            masks[name], effects[name] = _apply(block, values, name, options, seed, world)
    return values, masks, effects


def _apply(
    block: Block, values: F32, name: str, options: SensorFault, seed: int, world: World | None
) -> tuple[Bools, F64]:
    """Change `values` (K, T, C) in place; return the mask and the effects."""
    mask, effects = np.zeros(values.shape, np.bool_), np.zeros(len(values))
    at = affected(name, options, block.clients, block.district, seed, districts=block.districts)
    rows = np.flatnonzero(at & (block.lengths > 0))
    columns = [i for i, c in enumerate(block.channels) if c.measured and c.name in (options.channels or (c.name,))]
    if not len(rows) or not columns or not values.shape[1]:
        return mask, effects
    known = np.arange(values.shape[1]) < block.lengths[rows, None]
    hours = None if block.hours is None else block.hours[rows]
    r = Readings(
        values=_gather(values, rows, columns),
        known=known,
        live=known & _on_time(options, hours),
        clients=block.clients[rows],
        district=block.district[rows],
        channels=tuple(block.channels[i] for i in columns),
        hours=hours,
        storm=None if world is None else world.storm,
        first=block.first,
        seed=seed,
        name=name,
    )
    made = _SENSOR[options.kind](options, r)
    touched = np.broadcast_to(made.touched & r.live[:, None, :], r.values.shape)
    changed = touched & (made.values != r.values)
    new = np.where(changed, made.values, r.values)
    whole = slice(None) if len(rows) == len(values) else rows
    for j, column in enumerate(columns):
        values[whole, :, column], mask[whole, :, column] = new[:, j], changed[:, j]
    effects[rows] = _effect(options, r, made, new, touched)
    return mask, effects


def _gather(values: F32, rows: I64, columns: list[int]) -> F32:
    """Copy some clients' readings of some channels, time last: one strided copy a channel beats fancy indexing."""
    some = values if len(rows) == len(values) else values[rows]
    gathered = np.empty((len(rows), len(columns), values.shape[1]), np.float32)
    for j, column in enumerate(columns):
        gathered[:, j] = some[:, :, column]
    return gathered


def _on_time(options: Fault, hours: F64 | None) -> Bools:
    """Say at which steps the schedule lets a fault act, broadcastable to (R, T)."""
    if options.schedule.unit == "rounds":
        return np.ones((1, 1), np.bool_)
    assert hours is not None, "a schedule in hours needs data with a clock: check_faults says so"
    stop = np.inf if options.schedule.stop is None else options.schedule.stop
    return np.asarray((hours >= options.schedule.start) & (hours < stop))


def _effect(options: Fault, r: Readings, made: Changed, new: F32, touched: Bools) -> F64:
    """Return each client's effect in the measure of the fault, float64 (R,)."""
    if made.effect is not None:
        return np.asarray(np.where(touched.any(axis=(1, 2)), made.effect, 0.0))
    readings = r.known.sum(axis=1) * len(r.channels)
    if MEASURES[options.kind] != "rms":
        return np.asarray(touched.sum(axis=(1, 2)) / readings)
    change = np.subtract(new, r.values, out=np.zeros_like(new), where=touched)  # padding may hold anything
    deviations = np.array([c.deviation for c in r.channels])
    squares = np.einsum("rct,rct->rc", change, change, dtype=np.float64) / deviations**2
    return np.asarray(np.sqrt(squares.sum(axis=1) / readings))


def corrupt_labels(
    labels: I64,
    offsets: I64,
    clients: I64,
    classes: int,
    faults: Mapping[str, FaultOptions],
    *,
    seed: int,
    district: I64 | None = None,
    districts: tuple[str, ...] = (),
    hours: F64 | None = None,
    first: int = 0,
) -> tuple[I64, dict[str, Bools], dict[str, F64]]:
    """Apply faults of labels in order; faults of readings are passed over.

    Args:
        labels: client after client, int64 (M,); they are not changed.
        offsets: client k owns `labels[offsets[k]:offsets[k + 1]]`, int64 (K + 1,).
        clients: int64 (K,).
        classes: how many there are, at least 2.
        faults: as in `corrupt`.
        seed: of the run.
        district: index of each client's district, int64 (K,); None for all in district 0.
        districts: names of the districts.
        hours: hour of the world's clock of each label, float64 (M,); None without a clock.
        first: absolute index of each client's first label.

    Returns:
        The labels, int64 (M,); by fault, exactly what it changed, bool (M,); by fault, the share of each client's
        labels that it changed, float64 (K,).
    """
    labels, masks, effects = labels.copy(), {}, {}
    district = np.zeros(len(clients), np.int64) if district is None else district
    sizes = np.diff(offsets)
    owner = np.repeat(np.arange(len(clients)), sizes)
    index = np.arange(len(labels)) - np.repeat(offsets[:-1], sizes) + first
    for name, options in faults.items():
        if not is_label_fault(options):
            continue
        rate, new_label = _LABEL[options.kind]
        wrong = affected(name, options, clients, district, seed, districts=districts)[owner]
        wrong &= uniform(streams.keys(seed, purpose(name, "labels"), clients[owner], index)) < rate(options, labels)
        wrong &= _on_time(options, None if hours is None else hours[None])[0]
        key = streams.keys(seed, purpose(name, "new"), clients[owner[wrong]], index[wrong])
        labels[wrong] = new_label(options, labels[wrong], classes, key)
        masks[name] = wrong
        effects[name] = np.bincount(owner[wrong], minlength=len(clients)) / np.maximum(sizes, 1)
    return labels, masks, effects
