"""The functions of packet faults; the options describe what each does."""

from __future__ import annotations

import numpy as np

from clients.core.arrays import F32, Bool
from clients.faults.options import Fill
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
    Changed,
    Patch,
    Readings,
    Runs,
    hits,
    phased,
    runs,
    sign,
    size,
    slot_hits,
)


def missing_bursts(o: MissingBurstsOptions, r: Readings) -> Patch:
    """Lose stretches of all channels."""
    return _without_steps(r, slot_hits(r, o.steps, o.severity * o.share, by_channel=False)[:, 0], o.fill)


def gateway_outage(o: GatewayOutageOptions, r: Readings) -> Patch:
    """Lose stretches of all channels of all clients of a district."""
    districts, which = np.unique(r.district, return_inverse=True)
    phase = phases(r.name, o, districts, r.seed)
    if r.hours is None or r.hours.strides[0] == 0:  # one clock for all clients: a row a district
        hours = np.arange(r.first, r.first + r.steps, dtype=np.float64) if r.hours is None else r.hours[0]
        slot = np.floor((hours + phase[:, None]) / o.hours).astype(np.int64)
        lost = out_of(r.name, o, districts, np.arange(len(districts)), slot, r.seed, r.storm)[which]
    else:
        hours = np.where(r.known[:, :: r.each], r.hours, 0.0)  # padding may have any value
        slot = np.floor((hours + phase[which, None]) / o.hours).astype(np.int64)
        lost = out_of(r.name, o, districts, which, slot, r.seed, r.storm)
    return _without_steps(r, lost.repeat(1 if r.hours is None else r.each, axis=1), o.fill)


def clock_skew(o: ClockSkewOptions, r: Readings) -> Changed:
    """Read earlier or later than the time stamp."""
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
    again[..., : o.steps] = False  # the repeated packet lies before the span
    values = r.values.copy()
    values[..., o.steps :] = r.values[..., : max(0, r.values.shape[2] - o.steps)]
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


def missing(o: MissingOptions, r: Readings) -> Changed:
    """Lose single readings."""
    lost = hits(r, o.severity * o.share)
    lost &= r.live[:, None, :]
    mean = r.of_channels("mean")
    if o.fill == "zero":
        return Changed(np.zeros((1, 1, 1), np.float32), lost)
    if o.fill == "mean":
        return Changed(mean[None], lost)
    found, steps, channels = runs(lost), r.steps, len(r.channels)
    values, truth, first = r.values.copy(), r.values.reshape(-1), found.row * r.steps
    length = r.known.sum(axis=1)[found.row // channels]
    last, following = np.maximum(found.start - 1, first), np.minimum(found.end, first + steps - 1)
    values.reshape(-1)[found.place] = _filled(
        truth[last], truth[following], mean[found.row % channels, 0], found, found.end < first + length, o.fill, steps
    )
    return Changed(values, lost, kept=True)


def _without_steps(r: Readings, lost: Bool, fill: Fill) -> Patch:
    """Fill the steps that are lost in all channels, bool (R, T), by the rule."""
    lost = lost & r.live
    mean = r.of_channels("mean")[:, 0]
    found, steps = runs(lost), r.steps
    first = found.row * steps
    step = found.place - first
    if fill == "zero":
        return Patch(found.row, step, np.zeros((1, 1), np.float32))
    if fill == "mean":
        return Patch(found.row, step, mean[None])
    before = r.at(found.row, np.maximum(found.start - 1 - first, 0))
    after = r.at(found.row, np.minimum(found.end - first, steps - 1)) if fill == "interpolate" else before
    has_next = found.end - first < r.known.sum(axis=1)[found.row]
    return Patch(found.row, step, _filled(before, after, mean, found, has_next, fill, steps))


def _filled(before: F32, after: F32, none: F32, found: Runs, has_next: Bool, fill: Fill, steps: int) -> F32:
    """Return the values that replace lost readings, of the shape of `before`.

    Args:
        before: the last reading before each stretch, (N,) or (N, C).
        after: the next one.
        none: the value if there is no reading at all.
        found: the stretches.
        has_next: whether there is a next one, (N,).
        fill: "last" or "interpolate".
        steps: of a row.
    """
    extra = (slice(None),) + (None,) * (before.ndim - 1)
    has_last = (found.start > found.row * steps)[extra]
    before = np.where(has_last, before, none)
    if fill == "last":
        return np.asarray(before, np.float32)
    part = ((found.place - found.start + 1) / (found.end - found.start + 1)).astype(np.float32)[extra]
    line = before + part * (after - before)
    return np.asarray(np.where(has_next[extra], np.where(has_last, line, after), before), np.float32)
