"""How often the rate's 90% interval holds the truth, as the table of docs/convergence.md.

python tests/support/rate_table.py [SEEDS] [quadratic|phases|power]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial

from rate_curves import DISTANCES, ROUNDS, Curves, power, quadratic, two_phases

from server.convergence.outcome import fit_whole
from server.convergence.rates.families import fit_families
from server.convergence.rates.rate import Rate

ROWS: dict[str, dict[str, Callable[[str, int, int], Curves]]] = {
    "quadratic": {
        "1 dimension": partial(quadratic, 1, 1.0),
        "10 dimensions": partial(quadratic, 10, 1.0),
        "100 dimensions": partial(quadratic, 100, 1.0),
        "10 dimensions, curvatures 1 to 10": partial(quadratic, 10, 10.0),
        "100 dimensions, curvatures 1 to 10": partial(quadratic, 100, 10.0),
    },
    "phases": {
        "two phases, white noise": partial(two_phases, 0.0),
        "two phases, correlated noise": partial(two_phases, 0.7),
    },
    "power": {
        f"r^-{p:g}, {name} noise": partial(power, p, echo)
        for p in (0.5, 1.0, 2.0)
        for name, echo in (("white", 0.0), ("correlated", 0.7))
    },
}


def shares(curves: Curves) -> tuple[float, float]:
    """Return the share of the intervals that hold the truth, and that of curves without an interval."""
    if curves.exponent is None:
        rates = [fit_whole(values.tolist()) for values in curves.values]
        ends = [(rate.low, rate.high) for rate in rates if isinstance(rate, Rate)]
        truth = curves.factor
    else:
        fits = [fit_families(values) for values in curves.values]
        ends = [fit.power.shapes for fit in fits if fit is not None and fit.better in ("power", "undecided")]
        truth = curves.exponent
    held = sum(low <= truth <= high for low, high in ends)
    return held / len(ends) if ends else float("nan"), 1.0 - len(ends) / len(curves.values)


def lines(seeds: int, kinds: list[str]) -> Iterator[str]:
    """Yield the table's rows: coverage in percent, and the share without an interval where there is one."""
    for kind in kinds:
        for name, made in ROWS[kind].items():
            for rounds in ROUNDS:
                cells = [shares(made(distance, rounds, seeds)) for distance in DISTANCES]
                shown = [f"{100 * held:.0f}" + f" ({100 * none:.0f})" * (none >= 0.005) for held, none in cells]
                yield f"| {name} | {rounds} | " + " | ".join(shown) + " |"


if __name__ == "__main__":
    for line in lines(int((sys.argv[1:] or ["200"])[0]), sys.argv[2:] or list(ROWS)):
        print(line, flush=True)
