"""The functions of sensor faults; the options describe what each does."""

from __future__ import annotations

import numpy as np

from clients.core import streams
from clients.core.arrays import F32
from clients.faults.readings import (
    Changed,
    Readings,
    gaussian,
    hits,
    purpose,
    runs,
    sign,
    size,
    slot_hits,
    within_range,
)
from clients.faults.sensor_options import (
    BiasOptions,
    CalibrationDriftOptions,
    NoiseOptions,
    QuantisationOptions,
    SaturationOptions,
    SpikesOptions,
    StuckAtOptions,
    UnitMixupOptions,
)

ALL = np.ones((1, 1, 1), np.bool_)

_BEYOND = 1e12  # no reading lies beyond this many deviations from the mean


def _parts(r: Readings) -> F32:
    """Return each client's own part of each channel: of either sign, from 1/2 to 1 in size, float32 (R, C, 1)."""
    key = r.keys("part")
    return (size(key) * sign(key)).astype(np.float32)[..., None]


def stuck_at(o: StuckAtOptions, r: Readings) -> Changed:
    """Repeat the last reading that was not stuck."""
    stuck = slot_hits(r, o.steps, o.severity * o.share, by_channel=True)
    stuck &= r.live[:, None, :]
    values = r.values.copy()
    found = runs(stuck)
    # stuck from the start of the span: its first reading
    values.reshape(-1)[found.place] = r.values.reshape(-1)[np.maximum(found.start - 1, found.row * r.steps)]
    return Changed(values, stuck, kept=True)


def spikes(o: SpikesOptions, r: Readings) -> Changed:
    """Add jumps at single readings."""
    hit = hits(r, o.severity * o.share)
    hit &= r.live[:, None, :]
    rows, columns, steps = np.nonzero(hit)
    drawn = streams.keys(r.seed, purpose(r.name, "jump"), r.keys("jump")[rows, columns], steps + r.first)
    jump = np.float32(o.deviations) * r.of_channels("deviation")[columns, 0]
    values = r.values.copy()
    values[rows, columns, steps] += jump * (size(drawn) * sign(drawn)).astype(np.float32)
    return Changed(within_range(r, values), hit, kept=True)


def bias(o: BiasOptions, r: Readings) -> Changed:
    """Add a constant."""
    error = np.float32(o.severity * o.deviations) * r.of_channels("deviation") * _parts(r)
    return Changed(within_range(r, r.values + error), ALL)


def calibration_drift(o: CalibrationDriftOptions, r: Readings) -> Changed:
    """Add a ramp."""
    ramp = np.minimum(np.arange(r.first, r.first + r.steps) / o.steps, 1.0).astype(np.float32)
    error = np.float32(o.severity * o.deviations) * r.of_channels("deviation") * _parts(r)
    return Changed(within_range(r, r.values + error * ramp), ALL)


def noise(o: NoiseOptions, r: Readings) -> Changed:
    """Add white Gaussian noise."""
    deviation = np.float32(o.severity * 10.0 ** (-o.snr_db / 20.0)) * r.of_channels("deviation")
    values = gaussian(r) * deviation
    values += r.values
    return Changed(within_range(r, values), ALL)


def unit_mixup(o: UnitMixupOptions, r: Readings) -> Changed:
    """Convert stretches to the channel's other unit."""
    other = np.array([bool(c.other_unit) for c in r.channels])[:, None]
    mixed = slot_hits(r, o.steps, o.severity * o.share, by_channel=True) & other
    return Changed(r.of_channels("other_scale") * r.values + r.of_channels("other_offset"), mixed)


def saturation(o: SaturationOptions, r: Readings) -> Changed:
    """Clip to a band around the nominal mean."""
    widest = min(o.limit / o.severity, _BEYOND)
    mean, half = r.of_channels("mean"), np.float32(widest) * r.of_channels("deviation")
    return Changed(np.clip(r.values, mean - half, mean + half), ALL)


def quantisation(o: QuantisationOptions, r: Readings) -> Changed:
    """Round to a grid of 2**bits steps over 8 deviations."""
    bits = round(o.finest - o.severity * (o.finest - o.bits))
    mean, step = r.of_channels("mean"), r.of_channels("deviation") * np.float32(8.0 * 2.0**-bits)
    return Changed(within_range(r, mean + step * np.rint((r.values - mean) / step)), ALL)
