"""Lessons on classical models: the perceptron's bound on its mistakes, and radial basis functions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from clients.core.arrays import F64, I64
from simulator.lessons.lesson import Claim, Lesson, Numbers, Runs
from simulator.lessons.reading import last, series
from simulator.lessons.scenes import DIGITS, scene

if TYPE_CHECKING:
    from simulator.runs.run import Run

GROUP = "Fitting"
ERRORS = "train_errors"


def _mistakes(run: Run) -> float:
    """Return all mistakes in training; each one changes the model."""
    return float(np.nansum(series(run, ERRORS)))


def _gaussians(run: Run) -> tuple[F64, I64]:
    """Return the values of the final model's Gaussians at the training examples, (n, centres), and their targets."""
    data = run.session.population.cohort(np.arange(1))
    values = run.model().basis(data.features.to(run.params.dtype))  # type: ignore[operator]
    return np.asarray(values.detach(), np.float64), np.asarray(data.targets)


def _bound(run: Run) -> float:
    """Return (R / margin)^2 of the plane that separates the data, as their source knows it; nan where none does."""
    return float(run.session.population.federation.record.get("mistake_bound", math.nan))


def _bound_of_gaussians(run: Run) -> float:
    """Return (R / margin)^2 in the space of the Gaussians and a constant, for the plane a + b + ... = c half-way.

    The perceptron's rule for two score vectors moves their difference by twice an example: Novikoff's bound holds.
    It is nan where that plane does not separate the classes.
    """
    values, targets = _gaussians(run)
    near, far = (values.sum(1)[targets == label] for label in (0, 1))
    least, most = float(near.min(initial=math.inf)), float(far.max(initial=-math.inf))
    if not 0 < least - most < math.inf:
        return math.nan
    middle, radius = (least + most) / 2, float(np.sqrt(1 + (values**2).sum(1)).max())
    return (radius * math.sqrt(values.shape[1] + middle**2) / ((least - most) / 2)) ** 2


def _perceptron(runs: Runs) -> Numbers:
    found = {"mistakes_gaussians": _mistakes(runs["XOR, Gaussians"])}
    found["bound_gaussians"] = _bound_of_gaussians(runs["XOR, Gaussians"])
    for arm, key in (("wide margin", "wide"), ("narrow margin", "narrow")):
        found[f"mistakes_{key}"], found[f"bound_{key}"] = _mistakes(runs[arm]), _bound(runs[arm])
    found["mistakes_xor"] = _mistakes(runs["XOR"])
    found["least_xor"] = float(np.nanmin(series(runs["XOR"], ERRORS)))
    found["mistakes_hidden"] = _mistakes(runs["XOR, hidden layer"])
    found["last_hidden"] = last(runs["XOR, hidden layer"], ERRORS)
    return found


PERCEPTRON = Lesson(
    name="perceptron-bound",
    title="The perceptron's mistakes are bounded; on XOR they never end",
    group=GROUP,
    question="How many mistakes does Rosenblatt's perceptron make before it makes none, and what if no plane separates "
    "the classes?",
    scene=scene(
        DIGITS,
        data={
            "kind": "points",
            "examples": 80,
            "features": 10,
            "validation_fraction": 0.0,
            "test_fraction": 0.0,
        },
        model={"kind": "perceptron", "bias": False},
        local={"local_lr": 1.0, "batch_size": 1, "local_steps": 80},
        convergence={"error_free": {}},
        run={"rounds": 15, "seed": 1, "dtype": "float64"},
    ),
    arms={
        "wide margin": {"data.margin": 0.2},
        "narrow margin": {"data.margin": 0.05},
        "XOR": {"data.pattern": "xor", "data.features": 2},
        "XOR, Gaussians": {
            "data.pattern": "xor",
            "data.features": 2,
            "model": {"kind": "rbf", "centres": [[1.0, 1.0], [-1.0, -1.0]]},
            "local.loss": "perceptron",
        },
        "XOR, hidden layer": {
            "data.pattern": "xor",
            "data.features": 2,
            "model": {"kind": "mlp", "hidden": [8]},
            "local.local_lr": 0.1,
        },
    },
    numbers=_perceptron,
    look="The training errors of each round, a pass over the examples. With the wide margin the perceptron makes "
    "{mistakes_wide:.0f} mistakes in all, then none; with the narrow one {mistakes_narrow:.0f}. On XOR it makes "
    "{mistakes_xor:.0f}, at least {least_xor:.0f} in every round. The same rule on two Gaussians of the coordinates "
    "makes {mistakes_gaussians:.0f} and is done. A hidden layer, trained by cross-entropy, errs {mistakes_hidden:.0f} "
    "times, in the last round {last_hidden:.0f} times.",
    change='--set "narrow margin:data.margin=0.005" narrows the margin tenfold: the bound is then '
    "{then_bound_narrow:.0f}. The perceptron makes {then_mistakes_narrow:.0f} mistakes: the bound is for the worst "
    "points in the worst order.",
    trial=("narrow margin:data.margin=0.005",),
    theory="If a plane through the origin leaves a margin g on each side, and no point is longer than R, each mistake "
    "lengthens the weights along the plane's normal by at least g, and their square by at most R^2. So there are at "
    "most (R/g)^2 mistakes, in any order (Novikoff 1962): {bound_wide:.0f} and {bound_narrow:.0f} here. No plane "
    "separates XOR, so mistakes go on for ever, while the weights stay bounded (Block and Levin 1970). One more "
    "feature helps: the product of the coordinates, or Gaussians around (1, 1) and (-1, -1), for which the bound is "
    "{bound_gaussians:.0f}; a hidden layer finds such features.",
    claims=(
        Claim(
            "Both margins stay within Novikoff's bound.",
            lambda n: n["mistakes_wide"] <= n["bound_wide"] and n["mistakes_narrow"] <= n["bound_narrow"],
        ),
        Claim("The narrow margin costs more mistakes.", lambda n: n["mistakes_narrow"] > n["mistakes_wide"] > 0),
        Claim("On XOR there are mistakes in every round.", lambda n: n["least_xor"] > 0),
        Claim(
            "On two Gaussians the same rule stays within its bound, too.",
            lambda n: 0 < n["mistakes_gaussians"] <= n["bound_gaussians"],
        ),
        Claim("A hidden layer ends without mistakes.", lambda n: n["last_hidden"] == 0),
    ),
    then={"bound_narrow": 36658.0, "mistakes_narrow": 36.0},
    outcome=(
        Claim(
            "More mistakes than before, and still within the bound.",
            lambda n: 21 < n["mistakes_narrow"] <= n["bound_narrow"],
        ),
        Claim("The bound is far away.", lambda n: n["mistakes_narrow"] < 0.01 * n["bound_narrow"]),
    ),
)


def _grid(count: int) -> list[list[float]]:
    """Return centres on an even grid over -5..5."""
    return [[round(float(x), 6)] for x in np.linspace(-5, 5, count)]


RBF_ARMS = {
    "8 centres": "few",
    "30 centres": "many",
    "30 centres, L2": "l2",
    "too narrow": "narrow",
    "too wide": "wide",
}


def _condition(run: Run) -> float:
    """Return the condition number of the matrix of the Gaussians' values at the training examples."""
    return float(np.linalg.cond(_gaussians(run)[0]))


def _rbf(runs: Runs) -> Numbers:
    found = {"condition": _condition(runs["30 centres"])}
    for arm, key in RBF_ARMS.items():
        found[f"test_{key}"] = last(runs[arm], "federated_loss")
    found["train_few"], found["train_many"] = (last(runs[arm], "train_loss") for arm in ("8 centres", "30 centres"))
    low, high = runs["8 centres"].session.scenario.data.amplitude  # type: ignore[union-attr]
    found["constant"] = ((low + high) / 2) ** 2 * (0.5 - math.sin(10) / 20)
    return found


SMOOTH = {"model.centres": _grid(30), "local.l2": 0.001}
RBF = Lesson(
    name="rbf",
    title="Radial basis functions: as many centres as examples",
    group=GROUP,
    question="Thirty noisy examples of a sine curve, and Gaussians around 8 or 30 centres: who fits, and who "
    "forecasts?",
    scene={
        **{name: section for name, section in DIGITS.items() if name != "partition"},
        "data": {
            "kind": "sine",
            "clients": 1,
            "examples": 30,
            "held_out": 300,
            "amplitude": [1.0, 1.0],
            "phase": 0.0,
        },
        "faults": {"sensors": {"kind": "noise", "severity": 1.0, "clients": 1.0, "snr_db": 20.0}},
        "model": {"kind": "rbf", "centres": _grid(8), "width": 1.0},
        "local": {"optimizer": "newton", "local_lr": 1.0, "local_steps": 1, "batch_size": "full"},
        "evaluation": {"federated_every": 1},
        "run": {**DIGITS["run"], "rounds": 5, "seed": 1, "dtype": "float64"},
    },
    arms={
        "8 centres": {},
        "30 centres": {"model.centres": _grid(30), "model.width": 0.4},
        "30 centres, L2": {**SMOOTH, "model.width": 0.4},
        "too narrow": {**SMOOTH, "model.width": 0.05},
        "too wide": {**SMOOTH, "model.width": 6.0},
    },
    numbers=_rbf,
    look="The training loss, and the loss on 300 exact points of the curve that the client holds out. With 8 centres "
    "the network has {train_few:.2g} in training and {test_few:.2g} on the curve. With as many centres as examples "
    "it fits every example, {train_many:.1g}, noise and all, and has {test_many:.0f} on the curve: between the "
    "examples it swings wildly. A small penalty on the same Gaussians brings {test_l2:.2g}. Gaussians that are too "
    "narrow have {test_narrow:.2f}, and too wide ones {test_wide:.2f}.",
    change="--set data.examples=300 gives ten examples to each centre: nothing is interpolated any more, and 30 "
    "centres forecast as well without a penalty, {then_test_many:.2g}, as with it, {then_test_l2:.2g}. Too narrow "
    "and too wide stay bad: {then_test_narrow:.2f} and {then_test_wide:.2f}.",
    trial=("data.examples=300",),
    theory="With as many Gaussians as distinct points the matrix of their values is regular, so that some weights "
    "fit any targets exactly (Micchelli 1986). But regular is not well-conditioned: its condition is {condition:.1g} "
    "here, and the weights blow the noise up. L2 leaves out the directions that only noise needs (Broomhead and Lowe "
    "1988; Bishop 2006, section 3.1.4). Gaussians narrower than the gaps between examples say nothing there; wide "
    "ones are all alike. Both come near the best constant, whose loss is the curve's variance, {constant:.3f}.",
    claims=(
        Claim("With as many centres as examples the training loss is below 1e-12.", lambda n: n["train_many"] < 1e-12),
        Claim(
            "It forecasts worse than 8 centres, by a hundred times at least.",
            lambda n: n["test_many"] > 100 * n["test_few"],
        ),
        Claim(
            "With a penalty it is within five times the loss of 8 centres.", lambda n: n["test_l2"] < 5 * n["test_few"]
        ),
        Claim(
            "Too narrow and too wide come within a fifth of the best constant.",
            lambda n: all(abs(n[f"test_{k}"] / n["constant"] - 1) < 0.2 for k in ("narrow", "wide")),
        ),
    ),
    then={"test_many": 0.0011, "test_l2": 0.00112, "test_narrow": 0.286, "test_wide": 0.481},
    outcome=(
        Claim(
            "With ten examples a centre, 30 centres need no penalty.",
            lambda n: n["test_many"] < 2 * n["test_l2"] and n["train_many"] > 1e-6,
        ),
        Claim(
            "Too narrow and too wide are still worse by ten times.",
            lambda n: min(n["test_narrow"], n["test_wide"]) > 10 * n["test_few"],
        ),
    ),
)

ROWS = (PERCEPTRON, RBF)
