"""The formula of a double well and its stationary points; without torch, for texts that quote them."""

from __future__ import annotations

import numpy as np

from clients.core.arrays import F64


def well(x: F64, curvature: float, slope: float) -> F64:
    """Return curvature (x^2 - 1)^2 / 4 + slope x.

    Example:
        >>> well(np.array([0.0, 1.0]), 2.0, 0.5).tolist()
        [0.5, 0.5]
    """
    value: F64 = curvature * (x * x - 1) ** 2 / 4 + slope * x
    return value


def stationary_points(curvature: float, slope: float) -> F64:
    """Return where the derivative curvature (x^3 - x) + slope is 0, in ascending order: minimum, saddle, minimum.

    There is one point, a minimum, where |slope| > 2 curvature / sqrt(27).

    Example:
        >>> stationary_points(1.0, 0.0).tolist()
        [-1.0, 0.0, 1.0]
        >>> len(stationary_points(1.0, 0.4))
        1
    """
    if slope == 0:
        return np.array([-1.0, 0.0, 1.0])
    roots = np.roots([1.0, 0.0, -1.0, slope / curvature])
    real = np.sort(roots.real[np.abs(roots.imag) < 1e-7])
    found: F64 = real - (real**3 - real + slope / curvature) / (3 * real**2 - 1)  # a step of Newton's: all digits
    return found
