"""The map of a generated world: districts, their uses, and the places of sites.

Districts lie on a sunflower spiral (Vogel 1979, "A better way to construct the sunflower head"): district i at radius
R sqrt(i / D) and i golden angles, moved a little. Offices gather in the centre and homes around it, with a density
that falls exponentially outwards (Clark 1951, "Urban population densities"); industry prefers one side of the city.
"""

from __future__ import annotations

import numpy as np

from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.population_parts import Places

USES = ("residential", "office", "industry", "green")
_LISTED = (
    "Centre Harbour Millfield Northgate Orchard Quarry Riverside Southbank Kingsway Meadows Foundry Westhill "
    "Eastside Lakeview Stadium Airport University Oldtown Brickyard Gardens Junction Parklands Docks Heights"
)
_NAMES = tuple(_LISTED.split())
_GOLDEN_ANGLE = np.pi * (3.0 - np.sqrt(5.0))
_BLOCK = 1 << 14


def district_names(districts: int) -> tuple[str, ...]:
    """Return `count` different names.

    Example:
        >>> district_names(26)[-3:]
        ('Heights', 'Centre 2', 'Harbour 2')
    """
    count = len(_NAMES)
    return tuple(_NAMES[i % count] + (f" {i // count + 1}" if i >= count else "") for i in range(districts))


def district_map(districts: int, radius_km: float, seed: int) -> tuple[F64, F64]:
    """Return centres (D, 2) in km east and north of the middle, and shares of `USES` (D, 4), each row summing to 1."""
    index = np.arange(districts)
    turn, industrial = 2.0 * np.pi * streams.uniforms(streams.keys(seed, "world map"), 2)
    noise = streams.normals(streams.keys(seed, "world district", index), 6)
    out = np.sqrt(index / districts)  # relative distance: 0 in the centre
    angle = turn + index * _GOLDEN_ANGLE
    spread = np.where(index > 0, 0.12 * radius_km / np.sqrt(districts), 0.0)
    centres = radius_km * out[:, None] * np.stack((np.cos(angle), np.sin(angle)), axis=1)
    centres = centres + spread[:, None] * noise[:, :2]
    liking = np.stack(
        (
            0.2 + 1.4 * out,
            1.8 - 3.0 * out,
            -0.8 + 1.6 * out * np.cos(angle - industrial),
            -1.2 + 1.6 * out,
        ),
        axis=1,
    )
    shares = np.exp(liking + 0.4 * noise[:, 2:])
    return centres, shares / shares.sum(axis=1, keepdims=True)


def site_places(clients: I64, centres: F64, radius_km: float, seed: int) -> Places:
    """Return the places of sites, denser towards the centre; site k depends on (seed, k) alone."""
    draws = streams.uniforms(streams.keys(seed, "world site", clients), 2)
    distance = radius_km * draws[:, 0] ** 0.65
    angle = 2.0 * np.pi * draws[:, 1]
    x, y = distance * np.cos(angle), distance * np.sin(angle)
    return Places(x, y, nearest(x, y, centres))


def nearest(x: F64, y: F64, centres: F64) -> I64:
    """Return the index of the nearest centre to each point, int64, the shape of `x`."""
    result = np.empty(x.shape, np.int64)
    flat, flat_x, flat_y = result.reshape(-1), x.reshape(-1), y.reshape(-1)
    for first in range(0, len(flat), _BLOCK):
        span = slice(first, first + _BLOCK)
        away = (flat_x[span, None] - centres[:, 0]) ** 2 + (flat_y[span, None] - centres[:, 1]) ** 2
        flat[span] = away.argmin(axis=1)
    return result
