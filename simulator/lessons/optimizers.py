"""Lessons on optimisers: seven of them on one ravine."""

from __future__ import annotations

import math

import numpy as np

from simulator.lessons.lesson import Claim, Lesson, Numbers, Runs
from simulator.lessons.reading import curvatures, factor, floor, rounds_to
from simulator.lessons.scenes import QUADRATIC, scene

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


def _noise_floor(runs: Runs, arm: str) -> float:
    """Return the gap at which an arm of noisy steps settles: sum_i eta s^2 / (2 (2 - eta h_i))."""
    scenario = runs[arm].session.scenario
    examples, batch, eta = scenario.data.weights[0], scenario.local.batch_size, scenario.local.local_lr  # type: ignore[union-attr]
    if batch == "full":
        return 0.0
    square = scenario.data.noise**2 * max(0.0, (examples - batch) / (batch * (examples - 1)))  # type: ignore[union-attr]
    return float(sum(eta * square / (2 * (2 - eta * h)) for h in curvatures(runs[arm])[0]))


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
        "theory_sgd": _noise_floor(runs, "SGD"),
        "floor_mini_batch": floor(runs["mini-batch"], GAP, 60),
        "theory_mini_batch": _noise_floor(runs, "mini-batch"),
        "rounds_gd": rounds_to(runs["GD"], GAP, 1e-2),
        "rounds_rmsprop": rounds_to(runs["RMSprop"], GAP, 1e-2),
        "rounds_adam": rounds_to(runs["Adam"], GAP, 1e-2),
    }


def _near(value: float, wanted: float, share: float) -> bool:
    """Return whether a value is within a share of the wanted one; False for nan."""
    return abs(value - wanted) <= share * abs(wanted)


ADAPTIVE = {"algorithm.kind": "fedadam", "algorithm.tau": 1e-8, "local.local_lr": 1.0}
ROWS = (
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
        change='Take a rate above 2/L = 0.08: --set "GD:local.local_lr=0.085". Gradient descent then grows along '
        "the steep axis. More noise, --set data.noise=0.5, lifts both floors by 25 and leaves the other arms "
        "alone.",
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
    ),
)
