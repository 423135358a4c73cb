"""Applies faults in order to a cohort's readings or labels, and returns exactly what each changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from clients.core import streams
from clients.core.arrays import F32, F64, I64, Bool
from clients.core.channels import Channel
from clients.core.options import names_of
from clients.faults.options import FaultOptions, SensorFaultOptions
from clients.faults.outages import World
from clients.faults.readings import Changed, Patch, Readings, purpose, uniform
from clients.faults.table import FAULTS, LabelFaultRow, SensorFaultRow


@dataclass(frozen=True, kw_only=True)
class Block:
    """A span of the readings of some clients.

    Attributes:
        values: in the channels' units, float32 (K, T, C).
        lengths: how many of the T steps of each client hold readings, int64 (K,); the others are padding.
        clients: int64 (K,).
        hours: hour of the world's clock of each step, float64 (K, T); None without a clock.
        each: number of consecutive steps that share their hour; `hours` is (K, T / each).
        district: index of each client's district, int64 (K,); 0 without districts.
        channels: C of them.
        first: absolute index of step 0.
        districts: names of the districts, for faults that are limited to some.
    """

    values: F32
    lengths: I64
    clients: I64
    hours: F64 | None
    district: I64
    channels: tuple[Channel, ...]
    first: int = 0
    districts: tuple[str, ...] = ()
    each: int = 1


def affected(
    fault_name: str, options: FaultOptions, clients: I64, district: I64, seed: int, *, districts: tuple[str, ...] = ()
) -> Bool:
    """Return which clients a fault affects, bool (K,).

    Args:
        fault_name: its name in the scenario.
        options: of the fault; clients that it names are indices (`clients.federation.named`).
        clients: int64 (K,).
        district: index of each one's district, int64 (K,).
        seed: of the run.
        districts: names of the districts, if the options name some.
    """
    if names := names_of(options.clients):
        assert all(isinstance(k, int) for k in names), "names of clients are replaced by their indices before"
        chosen = np.isin(clients, np.array(names, np.int64))
    else:
        assert isinstance(options.clients, int | float)
        chosen = uniform(streams.keys(seed, purpose(fault_name, "clients"), clients)) < options.clients
    if options.districts:
        assert set(options.districts) <= set(districts), "check_faults refuses unknown districts"
        chosen &= np.isin(district, [districts.index(name) for name in options.districts])
    return np.asarray(chosen & (options.severity > 0))


def corrupt(
    block: Block, faults: Mapping[str, FaultOptions], *, seed: int, world: World | None = None
) -> tuple[F32, dict[str, Bool], dict[str, F64]]:
    """Apply faults of readings in order; skip faults of labels.

    Args:
        block: the true readings; it is not changed.
        faults: by name, checked by `check_faults`. A schedule in rounds is ignored: leave out faults that are not
            active.
        seed: of the run.
        world: whose storms make gateway outages likelier.

    Returns:
        The readings, float32 (K, T, C); by fault, exactly what it changed of its input, bool (K, T, C); by fault,
        its measure of effect (`FaultRow.measure`) for each client, float64 (K,), 0 for clients that it does not affect.
    """
    values = block.values.copy()
    masks, effects = {}, {}
    for name, done in _each(replace(block, values=values), faults, seed, world):
        masks[name] = np.zeros(values.shape, np.bool_)
        done.mark(masks[name])
        effects[name] = done.effects
    return values, masks, effects


def corrupt_in_place(
    block: Block, faults: Mapping[str, FaultOptions], *, seed: int, world: World | None = None
) -> tuple[dict[str, I64], dict[str, F64]]:
    """Do the same as `corrupt`, in place on the values of `block` and without masks.

    Returns:
        By fault, how many readings of each client it changed, int64 (K,); by fault, the effects of `corrupt`.
    """
    counts, effects = {}, {}
    for name, done in _each(block, faults, seed, world):
        counts[name], effects[name] = done.counts, done.effects
    return counts, effects


@dataclass(frozen=True)
class _Done:
    """The effect of a fault on a block.

    Attributes:
        counts: readings of each client that it changed, int64 (K,).
        effects: float64 (K,).
        mark: writes which readings it changed into a mask (K, T, C).
    """

    counts: I64
    effects: F64
    mark: Callable[[Bool], None]


def _each(
    block: Block, faults: Mapping[str, FaultOptions], seed: int, world: World | None
) -> Iterator[tuple[str, _Done]]:
    for name, options in faults.items():
        if isinstance(options, SensorFaultOptions):
            yield name, _apply(block, name, options, seed, world)


def _apply(block: Block, name: str, options: SensorFaultOptions, seed: int, world: World | None) -> _Done:
    """Change the block's values (K, T, C) in place."""
    assert block.values.flags.c_contiguous
    at = affected(name, options, block.clients, block.district, seed, districts=block.districts)
    rows = np.flatnonzero(at & (block.lengths > 0))
    columns = [i for i, c in enumerate(block.channels) if c.measured and c.name in (options.channels or (c.name,))]
    steps = block.values.shape[1]
    if not len(rows) or not columns or not steps:
        clients = len(block.values)
        return _Done(np.zeros(clients, np.int64), np.zeros(clients), lambda mask: None)
    known = np.arange(steps) < block.lengths[rows, None]
    hours = None if block.hours is None else _rows_of(block.hours, rows)
    r = Readings(
        source=block.values,
        rows=rows,
        columns=columns,
        known=known,
        live=known & _on_time(options, hours, block.each),
        clients=block.clients[rows],
        district=block.district[rows],
        channels=tuple(block.channels[i] for i in columns),
        hours=hours,
        each=block.each,
        storm=None if world is None else world.storm,
        first=block.first,
        seed=seed,
        name=name,
    )
    row = FAULTS.row_of(options)
    assert isinstance(row, SensorFaultRow)
    made = row.apply(options, r)
    return _patched(row, r, made) if isinstance(made, Patch) else _changed(row, r, made)


def _patched(row: SensorFaultRow, r: Readings, made: Patch) -> _Done:
    """Write a patch into the block."""
    assert row.measure != "rms"
    flat = r.source.reshape(-1, r.source.shape[2])
    place = r.rows[made.row] * r.steps + made.step
    old = np.take(flat, place, axis=0)
    new = old.copy()
    new[:, r.columns] = made.values
    flat[place] = new
    changed = new != old
    counts, effects = np.zeros(len(r.source), np.int64), np.zeros(len(r.source))
    some, starts = np.unique(made.row, return_index=True)
    if len(some):
        flags = changed.reshape(-1).view(np.uint8)
        counts[r.rows[some]] = np.add.reduceat(flags, starts * changed.shape[1], dtype=np.int64)
    effects[r.rows] = np.bincount(made.row, minlength=len(r.rows)) / r.known.sum(axis=1)

    def mark(mask: Bool) -> None:
        mask.reshape(flat.shape)[place] = changed

    return _Done(counts, effects, mark)


def _changed(row: SensorFaultRow, r: Readings, made: Changed) -> _Done:
    """Write a fault's readings into the block."""
    touched = made.touched & r.live[:, None, :]
    changed = np.not_equal(made.values, r.values)
    changed &= touched
    every = made.kept or (made.values.shape == r.values.shape and bool(touched.all()))
    new = made.values if every else np.where(changed, made.values, r.values)
    whole = slice(None) if len(r.rows) == len(r.source) else r.rows
    for j, column in enumerate(r.columns):
        r.source[whole, :, column] = new[:, j]
    counts, effects = np.zeros(len(r.source), np.int64), np.zeros(len(r.source))
    counts[r.rows] = changed.view(np.uint8).sum(axis=(1, 2), dtype=np.int64)
    effects[r.rows] = _effect(row, r, made, new, touched)

    def mark(mask: Bool) -> None:
        for j, column in enumerate(r.columns):
            mask[whole, :, column] = changed[:, j]

    return _Done(counts, effects, mark)


def _rows_of(hours: F64, rows: I64) -> F64:
    """Return some clients' hours; clients that share one row of memory still share it."""
    if hours.strides[0] == 0:
        return np.broadcast_to(hours[:1], (len(rows), hours.shape[1]))
    return hours[rows]


def _on_time(options: FaultOptions, hours: F64 | None, each: int = 1) -> Bool:
    """Return at which steps the schedule lets a fault act, broadcastable to (R, T)."""
    if options.schedule.unit == "rounds":
        return np.ones((1, 1), np.bool_)
    assert hours is not None, "a schedule in hours needs data with a clock: check_faults says so"
    stop = np.inf if options.schedule.stop is None else options.schedule.stop
    inside = (hours >= options.schedule.start) & (hours < stop)
    return inside.repeat(each, axis=1)


def _effect(row: SensorFaultRow, r: Readings, made: Changed, new: F32, touched: Bool) -> F64:
    """Return each client's effect in the measure of the fault, float64 (R,)."""
    if made.effect is not None:
        return np.asarray(np.where(touched.any(axis=(1, 2)), made.effect, 0.0))
    readings = r.known.sum(axis=1) * len(r.channels)
    if row.measure != "rms":
        share = touched.sum(axis=(1, 2)) / readings
        return np.asarray(share * (len(r.channels) // touched.shape[1]))
    if r.known.all():
        change = new - r.values
    else:
        change = np.subtract(new, r.values, out=np.zeros_like(new), where=r.known[:, None, :])  # padding: any value
    deviations = np.array([c.deviation for c in r.channels])
    squares = np.einsum("rct,rct->rc", change, change).astype(np.float64) / deviations**2
    return np.asarray(np.sqrt(squares.sum(axis=1) / readings))


@dataclass(frozen=True)
class LabelBlock:
    """Labels of K clients, client after client.

    Attributes:
        labels: int64 (M,); they are not changed.
        offsets: client k has `labels[offsets[k]:offsets[k + 1]]`, int64 (K + 1,).
        clients: int64 (K,).
        classes: how many there are, at least 2.
        district: index of each client's district, int64 (K,); None for all in district 0.
        districts: names of the districts.
        hours: hour of the world's clock of each label, float64 (M,); None without a clock.
        first: absolute index of each client's first label.
    """

    labels: I64
    offsets: I64
    clients: I64
    classes: int
    district: I64 | None = None
    districts: tuple[str, ...] = ()
    hours: F64 | None = None
    first: int = 0


def corrupt_labels(
    block: LabelBlock, faults: Mapping[str, FaultOptions], *, seed: int
) -> tuple[I64, dict[str, Bool], dict[str, F64]]:
    """Apply faults of labels in order; skip faults of readings.

    Args:
        block: the labels.
        faults: as in `corrupt`.
        seed: of the run.

    Returns:
        The labels, int64 (M,); by fault, exactly what it changed, bool (M,); by fault, the share of each client's
        labels that it changed, float64 (K,).
    """
    labels, clients, hours = block.labels.copy(), block.clients, block.hours
    masks: dict[str, Bool] = {}
    effects: dict[str, F64] = {}
    district = np.zeros(len(clients), np.int64) if block.district is None else block.district
    sizes = np.diff(block.offsets)
    owner = np.repeat(np.arange(len(clients)), sizes)
    index = np.arange(len(labels)) - np.repeat(block.offsets[:-1], sizes) + block.first
    for name, options in faults.items():
        row = FAULTS.row_of(options)
        if not isinstance(row, LabelFaultRow):
            continue
        wrong = affected(name, options, clients, district, seed, districts=block.districts)[owner]
        wrong &= uniform(streams.keys(seed, purpose(name, "labels"), clients[owner], index)) < row.rate(options, labels)
        wrong &= _on_time(options, None if hours is None else hours[None])[0]
        key = streams.keys(seed, purpose(name, "new"), clients[owner[wrong]], index[wrong])
        labels[wrong] = row.new_label(options, labels[wrong], block.classes, key)
        masks[name] = wrong
        effects[name] = np.bincount(owner[wrong], minlength=len(clients)) / np.maximum(sizes, 1)
    return labels, masks, effects
