"""The readings of a cohort that a fault works on, and its random numbers.

Numbers are addressed by (seed, fault's name, client, channel, absolute step), so whether a reading is hit does not
depend on the cohort or the time range. A reading that is hit at one rate is hit at every larger one.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clients.core import streams
from clients.core.arrays import F32, F64, I64, U64, Bool
from clients.core.channels import Channel


@dataclass(frozen=True)
class Readings:
    """The affected clients' readings of the affected channels, time last.

    Attributes:
        source: readings of the whole block, in the channels' units, float32 (K, T, all channels), contiguous.
        rows: which clients of it, int64 (R,).
        columns: which channels of it.
        known: which steps hold readings, bool (R, T); the others are padding.
        live: which of them the fault may touch, bool (R, T).
        clients: int64 (R,).
        district: of each client, int64 (R,).
        channels: C of them.
        hours: hour of the world's clock, float64 (R, T / each), or None.
        each: number of consecutive steps that share their hour.
        storm: of the world, by hour, float64, or None.
        first: absolute index of step 0.
        seed: of the run.
        name: of the fault.
    """

    source: F32
    rows: I64
    columns: list[int]
    known: Bool
    live: Bool
    clients: I64
    district: I64
    channels: tuple[Channel, ...]
    hours: F64 | None
    each: int
    storm: F64 | None
    first: int
    seed: int
    name: str

    @property
    def steps(self) -> int:
        """Steps T of the span."""
        return int(self.source.shape[1])

    @cached_property
    def values(self) -> F32:
        """The readings, in the channels' units, float32 (R, C, T); made on first use."""
        some = self.source if len(self.rows) == len(self.source) else self.source[self.rows]
        gathered = np.empty((len(self.rows), len(self.columns), self.steps), np.float32)
        for j, column in enumerate(self.columns):  # one strided copy a channel beats fancy indexing
            gathered[:, j] = some[:, :, column]
        return gathered

    def at(self, row: I64, step: I64) -> F32:
        """Return the readings of some of the R clients at some steps, float32 (N, C)."""
        found = np.take(self.source.reshape(-1, self.source.shape[2]), self.rows[row] * self.steps + step, axis=0)
        return found if len(self.columns) == found.shape[1] else found[:, self.columns]

    def of_channels(self, attribute: str) -> F32:
        """Return an attribute of every channel, float32 (C, 1)."""
        return np.array([getattr(c, attribute) for c in self.channels], np.float32)[:, None]

    def keys(self, what: str, *, by_channel: bool = True) -> U64:
        """Return one key for each client and channel, (R, C), or for each client, (R, 1)."""
        key = streams.keys(self.seed, purpose(self.name, what), self.clients)[:, None]
        if not by_channel:
            return key
        names = np.array([zlib.crc32(c.name.encode()) for c in self.channels], np.int64)
        return streams.keys(self.seed, "channel", key, names)


@dataclass(frozen=True)
class Changed:
    """The readings after a fault.

    Attributes:
        values: float32, broadcastable to (R, C, T); used only where `touched`.
        touched: bool, broadcastable to (R, C, T).
        effect: the fault's measure for each client, float64 (R,), if it is neither the share touched nor the root mean
            square.
        kept: whether `values` have the readings' shape and equal them outside `touched`, and `touched` marks only live
            readings.
    """

    values: F32
    touched: Bool
    effect: F64 | None = None
    kept: bool = False


@dataclass(frozen=True)
class Patch:
    """The values that a fault writes at some steps, in all its channels.

    Attributes:
        row: position among the R clients, int64 (N,), rising.
        step: int64 (N,).
        values: float32, broadcastable to (N, C).
    """

    row: I64
    step: I64
    values: F32


def purpose(name: str, what: str) -> str:
    """Return the purpose of a fault's stream."""
    return f"faults/{name}/{what}"


def below(hashes: U64, rate: float) -> Bool:
    """Return which hashes, read as uniform numbers, are below `rate`."""
    if rate >= 1:
        return np.ones(hashes.shape, np.bool_)
    return hashes < np.uint64(int(rate * 2.0**64))


def uniform(hashes: U64) -> F64:
    """Read hashes as uniform numbers in (0, 1)."""
    return ((hashes >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def size(hashes: U64) -> F64:
    """Read hashes as numbers from 1/2 to 1."""
    return 0.5 + 0.5 * uniform(hashes)


def sign(hashes: U64) -> F64:
    """Read hashes as -1 or 1, independent of their `uniform`."""
    return 1.0 - 2.0 * (hashes & np.uint64(1)).astype(np.float64)


def hits(r: Readings, rate: float, *, what: str = "hits") -> Bool:
    """Return which single readings are hit, bool (R, C, T)."""
    return below(streams.hashes(r.keys(what), r.steps, r.first), rate)


def phased(r: Readings, steps: int) -> I64:
    """Return absolute steps plus each client's phase in slots of `steps`, int64 (R, T)."""
    phase = (r.keys("phase", by_channel=False) % np.uint64(steps)).astype(np.int64)
    return phase + np.arange(r.first, r.first + r.steps)


def slot_hits(r: Readings, steps: int, rate: float, *, by_channel: bool) -> Bool:
    """Return which readings lie in slots that are hit, bool (R, C, T), or (R, 1, T) for all channels at once."""
    first = r.first // steps
    slot = phased(r, steps) // steps - first
    table = below(streams.hashes(r.keys("slots", by_channel=by_channel), r.steps // steps + 3, first), rate)
    if steps == 1:  # no phase, and each step is a slot
        return np.ascontiguousarray(table[:, :, : r.steps])
    return np.take_along_axis(table, slot[:, None, :], axis=2)


def gaussian(r: Readings) -> F32:
    """Return a standard normal number a reading, float32 (R, C, T) (Box and Muller; a hash makes a pair)."""
    first = r.first // 2
    pairs = (r.first + r.steps + 1) // 2 - first
    halves = streams.hashes(r.keys("gaussian"), pairs, first).view(np.uint32)
    radius = (halves[..., 1::2].astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32)
    np.sqrt(np.float32(-2.0) * np.log(radius, out=radius), out=radius)
    angle = halves[..., ::2].astype(np.float32) * np.float32(2.0 * np.pi * 2.0**-32)
    both = np.empty((*radius.shape, 2), np.float32)
    np.multiply(radius, np.cos(angle), out=both[..., 0])
    np.multiply(radius, np.sin(angle), out=both[..., 1])
    offset = r.first - 2 * first
    return both.reshape(*radius.shape[:2], 2 * pairs)[..., offset : offset + r.steps]


def within_range(r: Readings, values: F32) -> F32:
    """Clip to the sensors' range, in place; readings that were beyond it before may stay."""
    low, high = r.of_channels("low"), r.of_channels("high")
    if np.isfinite(low).any():
        np.maximum(values, np.minimum(r.values, low), out=values)
    if np.isfinite(high).any():
        np.minimum(values, np.maximum(r.values, high), out=values)
    return values


@dataclass(frozen=True)
class Runs:
    """Marked readings, in order, and the start and end of the unbroken stretch that each lies in.

    Attributes:
        place: index of each marked reading into the flattened array, int64 (N,).
        start: index of the first reading of its stretch, int64 (N,).
        end: index after the last one.
        row: the reading's row; no stretch crosses rows.
    """

    place: I64
    start: I64
    end: I64
    row: I64


def runs(marked: Bool) -> Runs:
    """Return the marked stretches along the last axis of an array (..., T)."""
    steps = marked.shape[-1]
    place = np.flatnonzero(marked)
    row = place // max(steps, 1)
    begins = np.ones(len(place), np.bool_)
    begins[1:] = (np.diff(place) != 1) | (np.diff(row) != 0)
    stretch = np.cumsum(begins) - 1
    first = np.flatnonzero(begins)
    ends = place[np.append(first[1:], len(place)) - 1] + 1 if len(place) else place
    return Runs(place, place[first][stretch], ends[stretch], row)


def last_before(good: Bool) -> I64:
    """Return for each step the last good step up to it, -1 if there is none; (..., T)."""
    steps = np.where(good, np.arange(good.shape[-1], dtype=np.int64), -1)
    return np.maximum.accumulate(steps, axis=-1)
