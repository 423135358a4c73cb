"""Lessons on optimisers: seven of them on one ravine, and where they end: minima, a saddle."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from clients.core.arrays import F64
from clients.sources.landscapes.wells import stationary_points, well
from simulator.lessons.lesson import Claim, Lesson, Numbers, Runs
from simulator.lessons.reading import curvatures, factor, floor, last, noise_floor, rounds_to, series
from simulator.lessons.scenes import QUADRATIC, scene

if TYPE_CHECKING:
    from simulator.runs.run import Run

LOW, HIGH = 1.0, 25.0
ROOT = math.sqrt(HIGH / LOW)
BEST = 2 / (HIGH + LOW)
GAP, DISTANCE = "optimality_gap", "distance_to_optimum"
RAVINE = scene(
    QUADRATIC,
    data={"curvatures": [[LOW, HIGH]], "centres": [[0.0, 0.0]], "weights": [16], "noise": 0.1},
    model={"start": [1.0, 1.0]},
    local={"local_lr": BEST},
    run={"rounds": 120, "seed": 1},
)


def _ravine(runs: Runs) -> Numbers:
    low, high = (float(f(curvatures(runs["GD"]))) for f in (np.min, np.max))
    root = math.sqrt(high / low)
    return {
        "condition": high / low,
        "factor_gd": factor(runs["GD"], DISTANCE, 10, 60),
        "theory_gd": (high / low - 1) / (high / low + 1),
        "factor_momentum": factor(runs["momentum"], DISTANCE, 30, 60),
        "theory_momentum": (root - 1) / (root + 1),
        "factor_nesterov": factor(runs["Nesterov"], DISTANCE, 30, 60),
        "theory_nesterov": 1 - 1 / root,
        "floor_sgd": floor(runs["SGD"], GAP, 60),
        "theory_sgd": noise_floor(runs["SGD"]),
        "floor_mini_batch": floor(runs["mini-batch"], GAP, 60),
        "theory_mini_batch": noise_floor(runs["mini-batch"]),
        "rounds_gd": rounds_to(runs["GD"], GAP, 1e-2),
        "rounds_rmsprop": rounds_to(runs["RMSprop"], GAP, 1e-2),
        "rounds_adam": rounds_to(runs["Adam"], GAP, 1e-2),
    }


def _near(value: float, wanted: float, share: float) -> bool:
    """Return whether a value is within a share of the wanted one; False for nan."""
    return abs(value - wanted) <= share * abs(wanted)


ADAPTIVE = {"algorithm.kind": "fedadam", "algorithm.tau": 1e-8, "local.local_lr": 1.0}
SEVEN = (
    Lesson(
        name="ravine",
        title="Seven optimisers in one ravine",
        group="Optimisers",
        question="How fast do gradient descent, momentum and adaptive steps run along a valley whose walls are "
        "25 times as steep as its floor?",
        scene=RAVINE,
        arms={
            "GD": {},
            "SGD": {"local.optimizer": "sgd", "local.batch_size": 1},
            "mini-batch": {"local.optimizer": "sgd", "local.batch_size": 8},
            "momentum": {
                "algorithm.kind": "fedavgm",
                "algorithm.server_momentum": ((ROOT - 1) / (ROOT + 1)) ** 2,
                "local.local_lr": 4 / (math.sqrt(HIGH) + math.sqrt(LOW)) ** 2,
            },
            "Nesterov": {
                "algorithm.kind": "fedavgm",
                "algorithm.nesterov": True,
                "algorithm.server_momentum": (ROOT - 1) / (ROOT + 1),
                "local.local_lr": 1 / HIGH,
            },
            "RMSprop": {**ADAPTIVE, "algorithm.beta1": 0.0, "algorithm.beta2": 0.9, "algorithm.server_lr": 0.03},
            "Adam": {**ADAPTIVE, "algorithm.beta1": 0.9, "algorithm.beta2": 0.99, "algorithm.server_lr": 0.1},
        },
        numbers=_ravine,
        look="The distance to the optimum, on a logarithmic axis: a straight line is a constant factor a step. "
        "Gradient descent shrinks it by {factor_gd:.3f} a step, Nesterov by {factor_nesterov:.3f}, momentum by "
        "{factor_momentum:.3f}. SGD (one example a step) stops falling at a gap of {floor_sgd:.2g}, mini-batches "
        "of 8 at {floor_mini_batch:.2g}. The gap is below 0.01 after {rounds_gd:.0f} steps of gradient descent, "
        "{rounds_rmsprop:.0f} of RMSprop and {rounds_adam:.0f} of Adam, whose steps do not shrink with the "
        "slope.",
        change='--set "GD:local.local_lr=0.085" is above 2/L = 0.08. Gradient descent then grows along the steep '
        "axis, by {then_factor_gd:.3f} a step, |1 - 0.085 x 25|; it never comes to a gap of 0.01. The other arms "
        "stay as they are.",
        trial=("GD:local.local_lr=0.085",),
        theory="With condition k = L/mu = {condition:.0f}, each with its best constants: gradient descent "
        "(k-1)/(k+1) = {theory_gd:.3f}; Nesterov 1 - 1/sqrt k = {theory_nesterov:.3f}; heavy ball (sqrt k - "
        "1)/(sqrt k + 1) = {theory_momentum:.3f}, each to be approached from above as double roots pass (Polyak "
        "1964; Nesterov 2004, section 2.2). Noise of variance s^2 in the gradient leaves the gap sum eta s^2 / "
        "(2 (2 - eta h)): {theory_sgd:.2g} and {theory_mini_batch:.2g}. Adam and RMSprop divide by the "
        "gradient's own size (here as server optimisers, without bias correction: Reddi et al. 2021); at a "
        "constant rate they end in small oscillations.",
        claims=(
            Claim(
                "Gradient descent contracts by (k-1)/(k+1).",
                lambda n: _near(n["factor_gd"], n["theory_gd"], 1e-6),
            ),
            Claim(
                "Heavy ball and Nesterov come within 5% of their factors.",
                lambda n: (
                    _near(n["factor_momentum"], n["theory_momentum"], 0.05)
                    and _near(n["factor_nesterov"], n["theory_nesterov"], 0.05)
                ),
            ),
            Claim(
                "Momentum beats Nesterov, and Nesterov beats gradient descent.",
                lambda n: n["factor_momentum"] < n["factor_nesterov"] < n["factor_gd"],
            ),
            Claim(
                "The floors of SGD and of mini-batches are those of theory, within a factor of 2.",
                lambda n: (
                    0.5 < n["floor_sgd"] / n["theory_sgd"] < 2
                    and 0.5 < n["floor_mini_batch"] / n["theory_mini_batch"] < 2
                ),
            ),
            Claim(
                "RMSprop and Adam are near the optimum sooner than gradient descent.",
                lambda n: max(n["rounds_rmsprop"], n["rounds_adam"]) < n["rounds_gd"],
            ),
        ),
        then={"factor_gd": 1.125, "rounds_gd": math.inf, "factor_momentum": 0.682},
        outcome=(
            Claim(
                "Gradient descent grows by |1 - 0.085 x 25| a step.",
                lambda n: _near(n["factor_gd"], 1.125, 1e-3) and n["rounds_gd"] == math.inf,
            ),
            Claim(
                "Momentum and Nesterov contract as before.", lambda n: n["factor_momentum"] < n["factor_nesterov"] < 1
            ),
        ),
    ),
)

WELLS = scene(
    QUADRATIC,
    data={"kind": "double_well", "curvature": 1.0, "across": 2.0},
    model={"kind": "double_well", "start": [0.0, 1.0]},
    run={"rounds": 150, "seed": 1},
)
TILTED = {"data.tilt": 0.1}
LINEAR, HALF_WAY = (0.01, 0.1), 0.5
"""Distances from the saddle between which escape is measured: cubic terms are below one in a hundred; and half-way."""


def _from_saddle(run: Run) -> F64:
    """Return |w_1| in each round, as far as the gap tells: near the saddle it is h/4 - h w_1^2 / 2."""
    h = run.session.scenario.data.curvature  # type: ignore[union-attr]
    away: F64 = np.sqrt(np.maximum(0.0, h / 4 - series(run, GAP)) * 2 / h)
    return away


def _escape(run: Run) -> float:
    """Return the mean factor a round of |w_1| between the distances `LINEAR` from the saddle; nan if it stays."""
    away = _from_saddle(run)
    near = np.flatnonzero((away > LINEAR[0]) & (away < LINEAR[1]))
    if len(near) < 2:
        return math.nan
    return float((away[near[-1]] / away[near[0]]) ** (1 / (near[-1] - near[0])))


def _wells(runs: Runs) -> Numbers:
    found: dict[str, float] = {}
    for arm, key, place in (("from 0", "left", 0), ("from 0.2", "right", -1)):
        data = runs[arm].session.scenario.data
        points = stationary_points(data.curvature, data.tilt)  # type: ignore[union-attr]
        values = well(points, data.curvature, data.tilt)  # type: ignore[union-attr]
        found[f"end_{key}"], found[f"theory_{key}"] = float(runs[arm].params[0]), float(points[place])
        found[f"gap_{key}"] = last(runs[arm], GAP)
    found["height"] = float(values[-1] - values.min())
    found["ridge"] = float(points[1]) if len(points) == 3 else math.nan
    rest, noise = runs["on the ridge"], runs["with noise"]
    data, eta = noise.session.scenario.data, noise.session.scenario.local.local_lr
    growth = 1 + eta * data.curvature  # type: ignore[union-attr]
    down = series(rest, GAP) - rest.session.scenario.data.curvature / 4  # type: ignore[union-attr]
    found["end_rest"] = float(rest.params[0])
    found["factor_rest"] = float((down[10] / down[0]) ** 0.05) if len(down) > 10 else math.nan
    found["theory_rest"] = abs(1 - rest.session.scenario.local.local_lr * data.across)  # type: ignore[union-attr]
    found["factor_escape"], found["theory_escape"] = _escape(noise), growth
    gone = np.flatnonzero(_from_saddle(noise) > HALF_WAY)
    found["round_escape"] = float(gone[0]) if len(gone) else math.inf
    kick = eta * data.noise / math.sqrt(growth**2 - 1)  # type: ignore[union-attr]
    found["theory_round"] = math.log(HALF_WAY / kick) / math.log(growth) if kick else math.inf
    return found


MINIMA = Lesson(
    name="local-minimum-and-saddle",
    title="A local minimum, and a saddle that noise escapes",
    group="Optimisers",
    question="Two starts in one double well, and two runs from the ridge between its wells: where do they end?",
    scene=WELLS,
    arms={
        "from 0": TILTED,
        "from 0.2": {**TILTED, "model.start": [0.2, 1.0]},
        "on the ridge": {},
        "with noise": {"data.examples": 64, "data.noise": 0.001, "local.optimizer": "sgd", "local.batch_size": 1},
    },
    numbers=_wells,
    look="The optimality gap. In the tilted well the ridge is at {ridge:.4f}. From 0, on its left, descent ends at "
    "{end_left:.4f}, the lower minimum, with a gap of {gap_left:.0g}. From 0.2, on its right, it ends at "
    "{end_right:.4f}, and keeps a gap of {gap_right:.4f} for ever. Without a tilt the ridge is at 0. From there "
    "descent slides down to the saddle by {factor_rest:.4f} a step, and rests at {end_rest:.0f}, a gap of 1/4 above "
    "both minima. With a little noise it leaves: its distance grows by {factor_escape:.4f} a step, and is half of "
    "the way in round {round_escape:.0f}.",
    change='--set "with noise:data.noise=0.00001" is a hundredth of the noise. It leaves in round '
    "{then_round_escape:.0f}, later by about ln 100 / ln 1.1 = 48 rounds, and grows by {then_factor_escape:.4f} a "
    "step as before: the rate belongs to the saddle, not to the noise.",
    trial=("with noise:data.noise=0.00001",),
    theory="The minima of h (x^2 - 1)^2 / 4 + t x are the outer roots of h (x^3 - x) + t = 0: {theory_left:.4f} and "
    "{theory_right:.4f}, the second higher by {height:.4f}. Descent with a small step ends in the well in which "
    "it starts. At a saddle each direction has a factor 1 - eta h of its own: {theory_rest:.4f} along the ridge, where "
    "h > 0, and {theory_escape:.4f} across it, where h = -1. So plain descent leaves only if it is off the ridge; "
    "noise of deviation s does it in about ln(sqrt(g^2 - 1) / (2 eta s)) / ln g = {theory_round:.0f} rounds, g = "
    "1 + eta (Lee et al. 2016; Jin et al. 2017).",
    claims=(
        Claim(
            "Each start ends in the minimum of its own well, to 1e-6.",
            lambda n: abs(n["end_left"] - n["theory_left"]) < 1e-6 and abs(n["end_right"] - n["theory_right"]) < 1e-6,
        ),
        Claim(
            "The right one keeps the gap between the two minima, to 1e-6.",
            lambda n: abs(n["gap_right"] - n["height"]) < 1e-6 < n["gap_right"] and n["gap_left"] < 1e-6,
        ),
        Claim(
            "On the ridge plain descent comes to the saddle by |1 - eta h|, to 1e-6, and stays.",
            lambda n: abs(n["factor_rest"] - n["theory_rest"]) < 1e-6 and n["end_rest"] == 0,
        ),
        Claim(
            "Noise leaves by 1 + eta |h| a step, within 1%.",
            lambda n: abs(n["factor_escape"] / n["theory_escape"] - 1) < 0.01,
        ),
        Claim(
            "It is half of the way in the round of theory, within 20%.",
            lambda n: abs(n["round_escape"] / n["theory_round"] - 1) < 0.2,
        ),
    ),
    then={"round_escape": 133.0, "factor_escape": 1.0997},
    outcome=(
        Claim(
            "It leaves by 1 + eta |h| a step, within 1%.",
            lambda n: abs(n["factor_escape"] / n["theory_escape"] - 1) < 0.01,
        ),
        Claim(
            "It is half of the way in the round of theory, within 20%.",
            lambda n: abs(n["round_escape"] / n["theory_round"] - 1) < 0.2,
        ),
        Claim("That is 40 to 56 rounds later.", lambda n: 85 + 40 <= n["round_escape"] <= 85 + 56),
    ),
)

ROWS = (*SEVEN, MINIMA)
