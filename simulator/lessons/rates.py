"""Lessons on learning rates: too low to too high, schedules, and the noise floor."""

from __future__ import annotations

import numpy as np

from simulator.lessons.lesson import Claim, Lesson, Numbers, Runs
from simulator.lessons.reading import curvatures, factor, floor, last, series
from simulator.lessons.scenes import QUADRATIC, scene

GAP, DISTANCE = "optimality_gap", "distance_to_optimum"
LOW, HIGH = 1.0, 10.0


def _rates(runs: Runs) -> Numbers:
    found: dict[str, float] = {"limit": 2 / float(curvatures(runs["right"]).max())}
    for arm, key in (("too low", "low"), ("right", "right"), ("too high", "high")):
        scenario = runs[arm].session.scenario
        end = scenario.run.rounds
        found[f"factor_{key}"] = factor(runs[arm], DISTANCE, end // 2, end)
        found[f"theory_{key}"] = float(np.abs(1 - scenario.local.local_lr * curvatures(runs[arm])).max())
    found["distance_at_limit"] = last(runs["at 2/L"], DISTANCE)
    found["distance_right"] = last(runs["right"], DISTANCE)
    return found


LEARNING_RATE = Lesson(
    name="learning-rate",
    title="A learning rate too low, right, at 2/L, and too high",
    group="Rates",
    question="What does one step do to the error, for four learning rates on the same bowl?",
    scene=scene(
        QUADRATIC,
        data={"curvatures": [[LOW, HIGH]], "centres": [[0.0, 0.0]]},
        model={"start": [1.0, 1.0]},
        run={"rounds": 80},
    ),
    arms={
        "too low": {"local.local_lr": 0.02},
        "right": {"local.local_lr": 2 / (HIGH + LOW)},
        "at 2/L": {"local.local_lr": 2 / HIGH},
        "too high": {"local.local_lr": 0.22},
    },
    numbers=_rates,
    look="The distance to the optimum. Too low, it shrinks by {factor_low:.4f} a step; right, by "
    "{factor_right:.4f}, and ends at {distance_right:.1g}. At 2/L = {limit:.2g} the steep coordinate jumps "
    "between +1 and -1 for ever: the distance stays at {distance_at_limit:.4f}. Too high, it grows by "
    "{factor_high:.4f} a step.",
    change='--set "too high:local.local_lr=0.19" brings the last arm below the limit: it then converges, while '
    "its steep coordinate changes sign at every step.",
    trial=("too high:local.local_lr=0.19",),
    theory="On a quadratic with curvatures h each coordinate is multiplied by 1 - eta h. The slowest has max |1 "
    "- eta h|: {theory_low:.4f}, {theory_right:.4f} and {theory_high:.4f} for the first, second and last arm. So "
    "descent converges exactly if eta < 2/L; eta = 2/(L + mu) is best; at 2/L there is a 2-cycle (Nesterov 2004, "
    "section 1.2.3).",
    claims=(
        Claim(
            "The factors are max |1 - eta h|, to four digits.",
            lambda n: all(abs(n[f"factor_{k}"] - n[f"theory_{k}"]) < 1e-4 for k in ("low", "right", "high")),
        ),
        Claim("At 2/L the distance stays at 1.", lambda n: abs(n["distance_at_limit"] - 1) < 1e-3),
        Claim("Above 2/L it grows.", lambda n: n["factor_high"] > 1),
        Claim("The right rate is faster than the low one.", lambda n: n["factor_right"] < n["factor_low"]),
    ),
)

NOISY = scene(
    QUADRATIC,
    data={"curvatures": [[1.0] * 10], "centres": [[0.0] * 10], "weights": [64], "noise": 1.0},
    model={"start": 5.0},
    local={"optimizer": "sgd", "local_lr": 0.5, "batch_size": 1},
    run={"rounds": 200, "seed": 2},
)


def _noisy_floor(runs: Runs, arm: str) -> float:
    """Return sum_i eta s_B^2 / (2 (2 - eta h_i)), where s_B^2 is the variance of a mean of B of n examples."""
    scenario = runs[arm].session.scenario
    n, eta = scenario.data.weights[0], scenario.local.local_lr  # type: ignore[union-attr]
    size = n if scenario.local.batch_size == "full" else min(n, scenario.local.batch_size)
    square = scenario.data.noise**2 * (n - size) / (size * (n - 1))  # type: ignore[union-attr]
    return float(np.sum(eta * square / (2 * (2 - eta * curvatures(runs[arm])))))


def _schedules(runs: Runs) -> Numbers:
    local = runs["decays too early"].session.scenario.local
    rounds = runs["decays too early"].session.scenario.run.rounds
    left = float(np.prod([1 - local.lr(r) for r in range(1, rounds + 1)]))
    start = float(series(runs["decays too early"], DISTANCE)[0])
    return {
        "floor_constant": floor(runs["constant"], GAP, 150),
        "theory_constant": _noisy_floor(runs, "constant"),
        "end_step": floor(runs["step"], GAP, 190),
        "end_cosine": floor(runs["cosine"], GAP, 190),
        "end_inverse": floor(runs["1/t"], GAP, 190),
        "distance_early": last(runs["decays too early"], DISTANCE),
        "theory_early": left * start,
    }


SCHEDULES = Lesson(
    name="schedules",
    title="Schedules: fast first, then quiet",
    group="Rates",
    question="How does a rate that falls over the rounds get below the noise floor, and when does it fall too early?",
    scene=scene(NOISY, data={"noise": 0.3}),
    arms={
        "constant": {},
        "step": {"local.schedule": {"kind": "step", "factor": 0.2, "at": [60, 120]}},
        "cosine": {"local.schedule": {"kind": "cosine", "rounds": 200}},
        "1/t": {"local.schedule": {"kind": "inverse_time", "decay": 0.2}},
        "decays too early": {"local.schedule": {"kind": "step", "factor": 0.5, "every": 2}},
    },
    numbers=_schedules,
    look="The optimality gap. The constant rate stays at {floor_constant:.2g}. Over the last ten rounds the step "
    "schedule has {end_step:.2g}, the cosine {end_cosine:.2g} and 1/t {end_inverse:.2g}. The rate that is halved "
    "every two rounds stops at a distance of {distance_early:.3g} from the optimum.",
    change='--set "decays too early:local.schedule.every=20" gives that arm time to arrive first.',
    trial=("decays too early:local.schedule.every=20",),
    theory="At a constant rate the gap settles at sum eta s^2 / (2 (2 - eta h)) = {theory_constant:.2g}: in "
    "proportion to eta, so a lower rate has a lower floor. Robbins and Monro (1951): the rates must fall to 0, "
    "and their sum must be infinite. Halved every two rounds their sum is finite, and the product of 1 - eta h "
    "leaves {theory_early:.3g} of the start's distance, apart from noise.",
    claims=(
        Claim(
            "The constant rate's floor is that of theory, within 20%.",
            lambda n: abs(n["floor_constant"] / n["theory_constant"] - 1) < 0.2,
        ),
        Claim(
            "Step, cosine and 1/t end at less than a third of it.",
            lambda n: max(n["end_step"], n["end_cosine"], n["end_inverse"]) < n["floor_constant"] / 3,
        ),
        Claim(
            "The early schedule stops where the product of its factors says, within 20%.",
            lambda n: abs(n["distance_early"] / n["theory_early"] - 1) < 0.2,
        ),
    ),
)

BATCHES = {"1": 1, "4": 4, "16": 16, "all 64": "full"}


def _floors(runs: Runs) -> Numbers:
    found: dict[str, float] = {}
    for arm in BATCHES:
        key = arm.rpartition(" ")[2]
        found[f"floor_{key}"] = floor(runs[arm], GAP, 100)
        if arm != "all 64":
            found[f"theory_{key}"] = _noisy_floor(runs, arm)
    return found


NOISE_FLOOR = Lesson(
    name="noise-floor",
    title="Batch size and the noise floor",
    group="Rates",
    question="Where does descent with a constant rate stop, for batches of 1, 4, 16 and all 64 examples?",
    scene=scene(
        NOISY,
        data={"curvatures": [[2.0] * 20], "centres": [[0.0] * 20]},
        local={"local_lr": 0.1},
        model={"start": 1.0},
        run={"rounds": 400},
    ),
    arms={arm: {"local.batch_size": size} for arm, size in BATCHES.items()},
    numbers=_floors,
    look="The optimality gap falls, and then stays: at {floor_1:.3g} for one example a step, {floor_4:.3g} for "
    "4, {floor_16:.3g} for 16. With all examples it is {floor_64:.1g}: no noise, no floor.",
    change="--set local.local_lr=0.05 halves the floors, and the descent to them takes twice as many steps.",
    trial=("local.local_lr=0.05",),
    theory="Gradient noise of variance s^2 and curvature h leave E w^2 = eta s^2 / (h (2 - eta h)), so the gap's "
    "mean is the sum of eta s^2 / (2 (2 - eta h)) over coordinates. A batch of B of n examples has s^2 (n - B) / "
    "(B (n - 1)): {theory_1:.3g}, {theory_4:.3g} and {theory_16:.3g} (Bottou, Curtis and Nocedal 2018, theorem "
    "4.6, exact on quadratics).",
    claims=(
        Claim(
            "Each floor is that of theory, within 15%.",
            lambda n: all(abs(n[f"floor_{b}"] / n[f"theory_{b}"] - 1) < 0.15 for b in ("1", "4", "16")),
        ),
        Claim("All examples in each step leave no floor.", lambda n: n["floor_64"] < 1e-6),
    ),
)

ROWS = (LEARNING_RATE, SCHEDULES, NOISE_FLOOR)
