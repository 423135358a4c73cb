"""Smooth random fields over a city and its hours, for quantities that are alike at neighbouring sites.

f(p, t) = sum_m (a_m(t) cos(w_m . p) + b_m(t) sin(w_m . p)) / sqrt(M) with a_m, b_m independent Ornstein-Uhlenbeck
processes of unit variance. At every site and time f is normal with variance exactly 1; its correlation is
exp(-|t - t'| / hours) times mean_m cos(w_m . (p - p')), which is near exp(-|p - p'|^2 / (2 length^2)) for frequencies
w_m ~ N(0, I / length^2): the random Fourier features of Rahimi and Recht (2007), equation 2, here with stratified
radii and golden angles instead of independent draws. Processes are made on a grid of hours / 8 from hour 0 on. Sums are
made at the grid's hours; values between them are interpolated and rescaled to unit variance.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from clients.core import streams
from clients.core.arrays import F32, F64
from clients.world.recursion import recursion

FEATURES = 32
_STEPS = 8  # grid steps in one time constant
_CELLS = 8  # grid steps in one length
_KEPT = 1 << 22  # the most numbers of a cached grid: 16 MiB
_CACHED = 1 << 15  # numbers summed at once: they stay in a core's cache


def random_field(
    seed: int, name: str, x: F64, y: F64, times: F64, *, length_km: float, hours: float, last_hour: float
) -> F32:
    """Return the field at K points and T hours, float32 (K, T).

    Args:
        seed: of the world.
        name: of the field: different names are independent.
        x: km east, (K,).
        y: km north, (K,).
        times: hours, (T,); clamped to 0 .. last_hour.
        length_km: distance over which the correlation falls to exp(-1/2).
        hours: time over which it falls to exp(-1).
        last_hour: end of the world.
    """
    frequencies, processes = _features(seed, name, length_km, hours, last_hour)
    position = np.clip(times, 0.0, last_hour) / (hours / _STEPS)
    left = np.minimum(position.astype(np.int64), processes.shape[1] - 2)
    part = position - left
    stay = np.exp(-1.0 / _STEPS)
    scale = np.sqrt(FEATURES * (part**2 + (1.0 - part) ** 2 + 2.0 * part * (1.0 - part) * stay))
    before, after = ((1.0 - part) / scale).astype(np.float32), (part / scale).astype(np.float32)
    needed, where = np.unique(np.concatenate((left, left + 1)), return_inverse=True)
    now, following = where[: len(left)], where[len(left) :]
    phase = x[:, None] * frequencies[:, 0] + y[:, None] * frequencies[:, 1]
    waves = np.concatenate((np.cos(phase), np.sin(phase)), axis=1).astype(np.float32)
    series = np.ascontiguousarray(processes[:, needed])
    result = np.empty((len(x), len(times)), np.float32)
    rows = max(_CACHED // max(len(needed), len(times), 1), 1)
    for first in range(0, len(x), rows):
        some = slice(first, first + rows)
        grid = _sums(waves[some], series)  # sums at the grid's hours alone: fewer, and the same numbers
        np.multiply(grid[:, now], before, out=result[some])
        result[some] += grid[:, following] * after
    return result


def gridded_field(
    seed: int,
    name: str,
    x: F64,
    y: F64,
    times: F64,
    *,
    length_km: float,
    hours: float,
    last_hour: float,
    radius_km: float,
) -> F32:
    """Return `random_field`, interpolated on a grid of length_km / 8: float32 (K, T), ten times as fast.

    Values are interpolated bilinearly and rescaled to unit variance by the field's correlation. A city that is large
    compared with `length_km`, or a long time, would make a large grid; the field itself is returned then.

    Args:
        seed: see `random_field`; so are the following.
        name: of the field.
        x: km east, at most `radius_km` from 0.
        y: km north, likewise.
        times: hours.
        length_km: of the field.
        hours: of the field.
        last_hour: end of the world.
        radius_km: of the city.
    """
    step = length_km / _CELLS
    half = int(radius_km / step) + 1
    side = 2 * half + 1
    law = {"length_km": length_km, "hours": hours, "last_hour": last_hour}
    if side * side * last_hour > _KEPT:
        return random_field(seed, name, x, y, times, **law)
    grid = _grid(seed, name, times.tobytes(), step, half, **law)
    column, row = x / step + half, y / step + half
    corner = np.floor(row).astype(np.int64) * side + np.floor(column).astype(np.int64)
    east, north = column - np.floor(column), row - np.floor(row)
    near = np.exp(-0.5 / _CELLS**2)
    scale = np.sqrt(
        (east**2 + (1.0 - east) ** 2 + 2.0 * east * (1.0 - east) * near)
        * (north**2 + (1.0 - north) ** 2 + 2.0 * north * (1.0 - north) * near)
    )
    result = np.zeros((len(x), len(times)), np.float32)
    for up, weight in ((0, 1.0 - north), (side, north)):
        for right, share in ((0, 1.0 - east), (1, east)):
            term = grid[corner + (up + right)]
            term *= (weight * share / scale).astype(np.float32)[:, None]
            result += term
    return result


@lru_cache(maxsize=4)
def _grid(
    seed: int,
    name: str,
    times: bytes,
    step: float,
    half: int,
    *,
    length_km: float,
    hours: float,
    last_hour: float,
) -> F32:
    """Return the field at the points of a grid, row by row from the south, west first: (side^2, T)."""
    line = np.arange(-half, half + 1) * step
    y, x = (part.reshape(-1) for part in np.meshgrid(line, line, indexing="ij"))
    law = {"length_km": length_km, "hours": hours, "last_hour": last_hour}
    return random_field(seed, name, x, y, np.frombuffer(times), **law)


def _sums(waves: F32, processes: F32) -> F32:
    """Return sum_m waves[:, m] processes[m], (K, G), in a fixed order (a matrix product's depends on its size)."""
    result = np.zeros((len(waves), processes.shape[1]), np.float32)
    term = np.empty_like(result)
    for wave, process in zip(waves.T[:, :, None], processes, strict=True):
        result += np.multiply(wave, process, out=term)
    return result


@lru_cache(maxsize=32)
def _features(seed: int, name: str, length_km: float, hours: float, last_hour: float) -> tuple[F64, F32]:
    """Frequencies (M, 2) in radians a km and processes (2 M, grid)."""
    index = np.arange(FEATURES)
    draws = streams.uniforms(streams.keys(seed, f"world field {name}"), FEATURES + 1)
    radius = np.sqrt(-2.0 * np.log((index + draws[:-1]) / FEATURES)) / length_km
    angle = 2.0 * np.pi * draws[-1] + index * np.pi * (3.0 - np.sqrt(5.0))
    frequencies = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1)
    grid = int(np.ceil(last_hour * _STEPS / hours)) + 2
    address = streams.keys(seed, f"world field process {name}", np.arange(2 * FEATURES)[:, None], np.arange(grid))
    noise = streams.normals(address, 1)[..., 0]
    stay = np.exp(-1.0 / _STEPS)
    noise[:, 1:] *= np.sqrt(1.0 - stay**2)
    return frequencies, recursion(noise, stay, axis=1).astype(np.float32)
