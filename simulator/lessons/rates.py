"""Lessons on learning rates: too low to too high, schedules, warm-up, and the noise floor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from simulator.lessons.lesson import Claim, Lesson, Numbers, Runs
from simulator.lessons.reading import centres, curvatures, factor, floor, last, noise_floor
from simulator.lessons.scenes import QUADRATIC, scene

if TYPE_CHECKING:
    from torch import Tensor

    from simulator.runs.run import Run

ACCURACY = "validation_accuracy"
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
    change='--set "too high:local.local_lr=0.19" brings the last arm below the limit: it then shrinks by '
    "{then_factor_high:.4f} a step, |1 - 0.19 x 10|, while its steep coordinate changes sign at every step.",
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
    then={"factor_high": 0.9},
    outcome=(
        Claim(
            "The last arm shrinks by max |1 - eta h|, to four digits.",
            lambda n: abs(n["factor_high"] - n["theory_high"]) < 1e-4 and n["factor_high"] < 1,
        ),
    ),
)

NOISY = scene(
    QUADRATIC,
    data={"curvatures": [[1.0] * 10], "centres": [[0.0] * 10], "weights": [64], "noise": 1.0},
    model={"start": 5.0},
    local={"optimizer": "sgd", "local_lr": 0.5, "batch_size": 1},
    run={"rounds": 200, "seed": 2},
)


def _schedules(runs: Runs) -> Numbers:
    early = runs["decays too early"]
    local, rounds = early.session.scenario.local, early.session.scenario.run.rounds
    left = np.prod([1 - local.lr(r) * curvatures(early)[0] for r in range(1, rounds + 1)], axis=0)
    start = early.session.start.params.numpy() - centres(early)[0]
    return {
        "floor_constant": floor(runs["constant"], GAP, 150),
        "theory_constant": noise_floor(runs["constant"]),
        "end_step": floor(runs["step"], GAP, 190),
        "end_cosine": floor(runs["cosine"], GAP, 190),
        "end_inverse": floor(runs["1/t"], GAP, 190),
        "distance_early": last(early, DISTANCE),
        "theory_early": float(np.linalg.norm(left * start)),
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
    change='--set "decays too early:local.schedule.every=20" gives that arm time to arrive first: it ends at a '
    "distance of {then_distance_early:.2g}. The product of its factors would leave {then_theory_early:.1g}; the rest "
    "is noise.",
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
    then={"distance_early": 0.093, "theory_early": 2.6e-10},
    outcome=(
        Claim("The early arm arrives: it ends ten times as near as before.", lambda n: n["distance_early"] < 0.143),
        Claim(
            "What is left is noise: far more than the product of its factors.",
            lambda n: n["distance_early"] > 1000 * n["theory_early"],
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
            found[f"theory_{key}"] = noise_floor(runs[arm])
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
    change="--set local.local_lr=0.05 halves the floors, to {then_floor_1:.3g}, {then_floor_4:.2g} and "
    "{then_floor_16:.2g}, and the descent to them takes twice as many steps.",
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
    then={"floor_1": 0.308, "floor_4": 0.061, "floor_16": 0.013},
    outcome=(
        Claim(
            "Each floor is about half of that before.",
            lambda n: all(
                0.4 < n[f"floor_{b}"] / before < 0.6 for b, before in (("1", 0.606), ("4", 0.133), ("16", 0.0277))
            ),
        ),
        Claim(
            "Each is that of theory, within 20%.",
            lambda n: all(abs(n[f"floor_{b}"] / n[f"theory_{b}"] - 1) < 0.2 for b in ("1", "4", "16")),
        ),
    ),
)

NETWORK = {
    "data": {"kind": "digits"},
    "partition": {"kind": "iid", "clients": 1},
    "model": {"kind": "mlp", "hidden": [32] * 4, "initial_scale": 2.0},
    "local.optimizer": "sgd",
    "local.local_lr": 0.15,
    "local.local_steps": 20,
    "local.batch_size": 64,
    "run.rounds": 25,
    "run.dtype": "float32",
}
"""A network whose weights are twice He's, so that its loss is steep at the start."""
PRODUCTS = 40


def _steepest(run: Run, params: Tensor) -> float:
    """Return the largest eigenvalue of the training loss's Hessian at parameters [P]; nan where they are not finite."""
    import torch  # the list of lessons is read without it
    from torch.nn import functional

    from clients.core.numbers.lanczos import lanczos

    if not bool(torch.isfinite(params).all()):
        return math.nan
    module = run.session.module(params, run.buffers).double()
    weights = list(module.requires_grad_(True).parameters())
    data = run.session.population.cohort(np.arange(1))
    loss = functional.cross_entropy(module(data.features.double()), data.targets)
    slope = torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights, create_graph=True)])

    def product(vector: Tensor) -> Tensor:
        bent = torch.autograd.grad(slope, weights, vector, retain_graph=True)
        return torch.cat([g.flatten() for g in bent])

    return float(lanczos(product, len(slope), steps=PRODUCTS).values[-1])


def _warm_up(runs: Runs) -> Numbers:
    at_once, warm = runs["well, at once"], runs["well, warm-up"]
    scenario = at_once.session.scenario
    start, h = scenario.model.start, scenario.data.curvature  # type: ignore[union-attr]
    far = float(np.max(np.abs(start)))
    network, low = runs["network, warm-up"], runs["network, low rate"]
    return {
        "rate": scenario.local.local_lr,
        "first": warm.session.scenario.local.lr(1),
        "limit_start": 2 / (h * (far * far - 1)) if far > 1 else math.inf,
        "limit_end": 2 / (2 * h),
        "gap_at_once": last(at_once, GAP),
        "gap_warm": last(warm, GAP),
        "network_rate": network.session.scenario.local.local_lr,
        "low_rate": low.session.scenario.local.local_lr,
        "accuracy_at_once": last(runs["network, at once"], ACCURACY),
        "accuracy_warm": last(network, ACCURACY),
        "accuracy_low": last(low, ACCURACY),
        "steep_start": _steepest(network, network.session.start.params),
        "steep_end": _steepest(network, network.params),
        "network_limit": 2 / network.session.scenario.local.local_lr,
    }


WARM_UP = Lesson(
    name="warm-up",
    title="Warm-up: a rate that is too high only at the start",
    group="Rates",
    question="The start is steeper than the end: what does a rate do that suits the end, at once and after a warm-up?",
    scene=scene(
        QUADRATIC,
        data={"kind": "double_well", "dimension": 1},
        model={"kind": "double_well", "start": 4.0},
        local={"local_lr": 0.4},
        run={"rounds": 60, "seed": 1},
    ),
    arms={
        "well, at once": {},
        "well, warm-up": {"local.schedule.warmup_rounds": 20},
        "network, at once": NETWORK,
        "network, warm-up": {**NETWORK, "local.schedule.warmup_rounds": 5},
        "network, low rate": {**NETWORK, "local.local_lr": 0.01},
    },
    numbers=_warm_up,
    look="In the well, the optimality gap: at once, the rate {rate:g} throws the run out of the well: its last gap "
    "is {gap_at_once:.1g}. A warm-up begins with {first:.2g} and reaches {rate:g} in round 21: the gap ends at "
    "{gap_warm:.1g}. In the network, validation accuracy: with {network_rate:g} at once it ends at "
    "{accuracy_at_once:.1%}, which is guessing, since all ReLU units of its last hidden layer die in the first "
    "steps. With five rounds of warm-up to the same rate it ends at {accuracy_warm:.1%}. A low rate throughout, "
    "{low_rate:g}, is safe and slow: {accuracy_low:.1%}.",
    change='--set "well, at once:local.local_lr=0.13" is just below the limit of the start, and the run converges '
    "without a warm-up, to a gap of {then_gap_at_once:.1g}: at first by -0.95 a step, from wall to wall.",
    trial=("well, at once:local.local_lr=0.13",),
    theory="A step in the well (x^2 - 1)^2 / 4 multiplies x by 1 - eta (x^2 - 1). From x = 4 it grows for ever if "
    "eta > 2 / (4^2 - 1) = {limit_start:.3f}, while at the minimum, of curvature 2, any eta < {limit_end:.0f} "
    "converges. So {rate:g} is too high for the start alone. The network is alike: the largest curvature of its loss "
    "is {steep_start:.0f} at the start, and {steep_end:.1f} at the end of the run with warm-up, where 2 / eta = "
    "{network_limit:.1f} (Goyal et al. 2017; Gilmer et al. 2021: warm-up lets a run reach a flatter place first).",
    claims=(
        Claim(
            "In the well the rate lies above the limit of the start and below that of the minimum.",
            lambda n: n["limit_start"] < n["rate"] < n["limit_end"],
        ),
        Claim("At once it diverges.", lambda n: not n["gap_at_once"] < 56.25),
        Claim("After a warm-up it converges.", lambda n: n["gap_warm"] < 1e-12),
        Claim(
            "At once the network stays at guessing; with warm-up it is above 90%.",
            lambda n: n["accuracy_at_once"] < 0.2 and n["accuracy_warm"] > 0.9,
        ),
        Claim(
            "The network's curvature is above 2 / eta at the start and below it at the end.",
            lambda n: n["steep_end"] < n["network_limit"] < n["steep_start"],
        ),
        Claim("The low rate is worse after as many rounds.", lambda n: n["accuracy_low"] < n["accuracy_warm"]),
    ),
    then={"gap_at_once": 3.8e-13},
    outcome=(
        Claim(
            "Below the limit of the start the run converges at once.",
            lambda n: n["rate"] < n["limit_start"] and n["gap_at_once"] < 1e-9,
        ),
    ),
)

ROWS = (LEARNING_RATE, SCHEDULES, WARM_UP, NOISE_FLOOR)
