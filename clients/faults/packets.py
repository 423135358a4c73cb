"""What the faults on the way from a sensor make of its readings; the options say what each does."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clients.faults.common import Fill
from clients.faults.outages import out_of, phases
from clients.faults.packet_options import (
    ClockSkewOptions,
    DuplicatedOptions,
    GatewayOutageOptions,
    MissingBurstsOptions,
    MissingOptions,
    ReorderedOptions,
)
from clients.faults.readings import (
    F32,
    I64,
    Bools,
    Changed,
    Readings,
    Runs,
    hits,
    phased,
    runs,
    sign,
    size,
    slot_hits,
)


def missing(o: MissingOptions, r: Readings) -> Changed:
    """Lose single readings."""
    return _without(r, hits(r, o.severity * o.share), o.fill)


def missing_bursts(o: MissingBurstsOptions, r: Readings) -> Changed:
    """Lose stretches of all channels."""
    return _without(r, slot_hits(r, o.steps, o.severity * o.share, by_channel=False), o.fill)


def gateway_outage(o: GatewayOutageOptions, r: Readings) -> Changed:
    """Lose stretches of all channels of all clients of a district."""
    districts, which = np.unique(r.district, return_inverse=True)
    phase = phases(r.name, o, districts, r.seed)
    if r.hours is None or r.hours.strides[0] == 0:  # one clock for all: a row a district
        hours = np.arange(r.first, r.first + r.steps, dtype=np.float64) if r.hours is None else r.hours[0]
        slot = np.floor((hours + phase[:, None]) / o.hours).astype(np.int64)
        lost = out_of(r.name, o, districts, np.arange(len(districts)), slot, r.seed, r.storm)[which]
    else:
        hours = np.where(r.known[:, :: r.each], r.hours, 0.0)  # padding may hold anything
        slot = np.floor((hours + phase[which, None]) / o.hours).astype(np.int64)
        lost = out_of(r.name, o, districts, which, slot, r.seed, r.storm)
    return _without(r, lost.repeat(1 if r.hours is None else r.each, axis=1)[:, None, :], o.fill)


def clock_skew(o: ClockSkewOptions, r: Readings) -> Changed:
    """Read earlier or later than the clock says."""
    key = r.keys("skew", by_channel=False)[:, 0]
    skew = o.severity * o.steps * size(key)
    late = sign(key) if o.direction == "either" else np.full(len(key), 1.0 if o.direction == "late" else -1.0)
    whole = np.floor(-late * skew)
    part = (-late * skew - whole).astype(np.float32)[:, None, None]
    source = np.arange(r.steps) + whole.astype(np.int64)[:, None]
    end = np.maximum(r.known.sum(axis=1) - 1, 0)[:, None]
    before = np.take_along_axis(r.values, np.clip(source, 0, end)[:, None, :], axis=2)
    after = np.take_along_axis(r.values, np.clip(source + 1, 0, end)[:, None, :], axis=2)
    after -= before
    after *= part
    after += before
    return Changed(after, np.ones((1, 1, 1), np.bool_), skew)


def duplicated(o: DuplicatedOptions, r: Readings) -> Changed:
    """Put packets in the place of the next."""
    again = slot_hits(r, o.steps, o.severity * o.share, by_channel=False)
    again[..., : o.steps] = False  # what it repeats lies before the span
    values = r.values.copy()
    values[..., o.steps :] = r.values[..., : r.values.shape[2] - o.steps]
    return Changed(values, again)


def reordered(o: ReorderedOptions, r: Readings) -> Changed:
    """Swap neighbouring packets."""
    swapped = slot_hits(r, 2 * o.steps, o.severity * o.share, by_channel=False)[:, 0]
    second = phased(r, 2 * o.steps) % (2 * o.steps) >= o.steps
    other = np.arange(r.steps) + np.where(second, -o.steps, o.steps)
    inside = (other >= 0) & (other < r.steps)
    other = np.where(inside, other, 0)
    swapped &= inside & np.take_along_axis(r.live, other, axis=1)
    return Changed(np.take_along_axis(r.values, other[:, None, :], axis=2), swapped[:, None, :])


def _without(r: Readings, lost: Bools, fill: Fill) -> Changed:
    """Fill what is lost, bool (R, C, T) or (R, 1, T), by the rule."""
    lost = lost & r.live[:, None, :]
    mean = r.of_channels("mean")
    if fill == "zero":
        return Changed(np.zeros((1, 1, 1), np.float32), lost)
    if fill == "mean":
        return Changed(mean[None], lost)
    found, channels, steps = runs(lost), len(r.channels), r.steps
    values, truth = r.values.copy(), r.values.reshape(-1)
    flat = values.reshape(-1)
    shared = lost.shape[1] < channels  # a row of `lost` is of all channels, or of one
    for j in range(channels) if shared else (0,):
        shift = (found.row * (channels - 1) + j) * steps if shared else np.zeros_like(found.row)
        none = mean[j, 0] if shared else mean[found.row % channels, 0]
        flat[found.place + shift] = _filled(r, truth, found, shift, none, fill == "interpolate", shared)
    return Changed(values, lost, kept=True)


def _filled(
    r: Readings, truth: F32, found: Runs, shift: I64, none: F32, straight: bool, shared: bool
) -> npt.NDArray[np.float32]:
    """Return what stands at the lost places: the last reading before each, or a straight line to the next.

    Args:
        r: the readings.
        truth: them, flat.
        found: stretches of what is lost.
        shift: from a place of them to that of the reading.
        none: what stands where no reading came.
        straight: whether to draw lines.
        shared: whether rows of `found` are clients; else they are channels of clients.
    """
    steps, length = r.steps, r.known.sum(axis=1)
    client = found.row if shared else found.row // len(r.channels)
    first = found.row * steps
    has_last = found.start > first
    before = np.where(has_last, truth[np.maximum(found.start - 1, first) + shift], none)
    if not straight:
        return np.asarray(before, np.float32)
    has_next = found.end < first + length[client]
    after = truth[np.minimum(found.end, first + steps - 1) + shift]
    part = (found.place - found.start + 1) / (found.end - found.start + 1)
    line = before + part.astype(np.float32) * (after - before)
    return np.asarray(np.where(has_next, np.where(has_last, line, after), before), np.float32)
