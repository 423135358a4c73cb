"""Common parts of hourly sources: the ends of their data parts, calendar channels, local noise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from clients.city.options import HourlyOptions
from clients.core import streams
from clients.core.arrays import F32, I64
from clients.core.channels import Channel
from clients.core.errors import require
from clients.world.world import World

_BLOCK = 1 << 16  # readings made at once
CALENDAR = (
    Channel(name="hour_sin", deviation=0.7, low=-1.0, high=1.0, measured=False),
    Channel(name="hour_cos", deviation=0.7, low=-1.0, high=1.0, measured=False),
    Channel(name="weekend", mean=0.3, deviation=0.45, low=0.0, high=1.0, measured=False),
)


def part_ends(options: HourlyOptions, world: World, multiple: int = 1) -> tuple[int, int, int]:
    """Return where training, validation and test end, in hours, each a multiple of `multiple`.

    Raises:
        UserError: a part is too short for one window and its horizon.
    """
    units = world.hours // multiple
    test = round(units * options.test_fraction)
    validation = round(units * options.validation_fraction)
    ends = (units - test - validation) * multiple, (units - test) * multiple, units * multiple
    # Windows start at multiples of the stride, so the first may start almost a whole stride into a part.
    need = options.window + options.horizon + options.stride - 1
    for name, hours in zip(("training", "validation", "test"), np.diff((0, *ends)).tolist(), strict=True):
        problem = f"with horizon {options.horizon} and stride {options.stride} needs {need} hours in each part, "
        problem += f"got {hours} for {name}"
        fix = "Make the world longer (world.days), the fractions larger or the window shorter."
        require(hours >= need, "window", problem, fix=fix)
    return ends


def calendar_channels(world: World, start: int, stop: int) -> F32:
    """Return the values of `CALENDAR` for hours start .. stop - 1, float32 (T, 3)."""
    hours = np.arange(start, stop, dtype=np.float64)
    angle = 2.0 * np.pi * world.hour_of_day(hours) / 24.0
    return np.stack((np.sin(angle), np.cos(angle), world.is_weekend(hours)), axis=-1).astype(np.float32)


def uniform_hours(seed: int, purpose: str, clients: I64, start: int, stop: int) -> F32:
    """Return a uniform number of each client and hour (or day, or week), float32 (K, stop - start), start >= 0."""
    return streams.quick_uniforms(streams.keys(seed, purpose, clients), stop - start, start)


def wobble(seed: int, purpose: str, clients: I64, start: int, stop: int, *, memory: int) -> F32:
    """Return noise of each client around its own mean: zero mean, unit variance, smooth over `memory` hours.

    The mean of `memory` uniform numbers, which is nearly normal and bounded; hours further apart than `memory` are
    independent, so a reading does not depend on the whole past.

    Returns:
        float32 (K, stop - start).
    """
    draws = uniform_hours(seed, purpose, clients, start, stop + memory - 1)
    hours = stop - start
    total = draws[:, :hours].copy()
    for lag in range(1, memory):  # shifted sums give the same bits for every time range; running sums do not
        total += draws[:, lag : lag + hours]
    total -= np.float32(0.5 * memory)
    total *= np.float32(np.sqrt(12.0 / memory))
    return total


def blocks(clients: int, hours: int) -> Iterator[slice]:
    """Yield a few clients at a time: their intermediate arrays stay in a core's cache."""
    count = max(_BLOCK // max(hours, 1), 1)
    for first in range(0, clients, count):
        yield slice(first, first + count)


def trapezium(hour: F32, begin: F32, end: F32) -> F32:
    """Return 1 from `begin` to `end`, 0 outside, rising and falling over an hour (centred on them)."""
    inside = hour - begin
    np.minimum(inside, end - hour, out=inside)
    inside += np.float32(0.5)
    return np.clip(inside, np.float32(0.0), np.float32(1.0), out=inside)
