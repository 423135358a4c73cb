"""Lessons on games of two players: a GAN that is one rotation, and one that draws digits."""

from __future__ import annotations

import cmath
import math
from typing import TYPE_CHECKING

import numpy as np

from clients.engines.samples.quality import FeatureSpace, frechet_distance
from clients.models.two_player.options import DiracGanOptions
from simulator.lessons.lesson import Claim, Lesson, Numbers, Runs
from simulator.lessons.reading import factor, last, series
from simulator.lessons.scenes import DIGITS, QUADRATIC, scene

if TYPE_CHECKING:
    from simulator.runs.run import Run

GROUP = "Games"
DISTANCE = "distance_to_optimum"
TURNS = 4
"""Whole turns over which a factor is measured: after each, both players are where they were, times the factor."""


def eigenvalue(run: Run) -> complex:
    """Return the eigenvalue of a round of the Dirac-GAN's map of (a, psi), a = theta - mean: that of largest modulus.

    A step of the generator is [[1, -eta], [0, 1]], and one of the discriminator [[1, 0], [eta, 1 - eta gamma]] with R1;
    consensus shrinks a likewise. A round is the product of its local steps.
    """
    from clients.modules.players import Turns  # imports torch, and the list of lessons is read without it

    model, local = run.session.scenario.model, run.session.scenario.local
    assert isinstance(model, DiracGanOptions), "the scene is a Dirac-GAN"
    eta, shrinks = local.local_lr, 1 - local.local_lr * model.gamma
    generator = np.array([[shrinks if model.regularisation == "consensus" else 1.0, -eta], [0.0, 1.0]])
    discriminator = np.array([[1.0, 0.0], [eta, 1.0 if model.regularisation == "none" else shrinks]])
    both = np.stack([generator[0], discriminator[1]])
    turns, whole = Turns(model.discriminator_steps), np.eye(2)
    for step in range(local.local_steps if isinstance(local.local_steps, int) else 1):
        one = generator if turns.moves("generator", step) else discriminator
        whole = (one if model.order == "alternating" else both) @ whole
    return complex(max(np.linalg.eigvals(whole), key=abs))


def turn(run: Run) -> float:
    """Return the rounds of a whole turn; inf where the players do not circle."""
    angle = abs(cmath.phase(eigenvalue(run)))
    return 2 * math.pi / angle if angle > 0 else math.inf


def factor_of(run: Run) -> float:
    """Return the factor a round of the distance, measured over as many whole turns as the run has, `TURNS` at most."""
    end, one = len(series(run, DISTANCE)) - 1, turn(run)
    turns = min(TURNS, int(end / one))
    return factor(run, DISTANCE, 0, round(turns * one) if turns else end)


def measured_turn(run: Run) -> float:
    """Return the rounds of a whole turn: the distance peaks twice in each on an ellipse; nan without two peaks."""
    values = series(run, DISTANCE)
    peaks = np.flatnonzero((values[1:-1] > values[:-2]) & (values[1:-1] >= values[2:])) + 1
    return 2 * float(peaks[-1] - peaks[0]) / (len(peaks) - 1) if len(peaks) > 1 else math.nan


def _circles(runs: Runs) -> Numbers:
    found: dict[str, float] = {}
    for arm, key in (("simultaneous", "spiral"), ("R1", "r1"), ("R1 too weak", "weak")):
        found[f"factor_{key}"] = factor_of(runs[arm])
        found[f"theory_{key}"] = abs(eigenvalue(runs[arm]))
    round_it, eta = runs["alternating"], runs["alternating"].session.scenario.local.local_lr
    away = series(round_it, DISTANCE)
    return found | {
        "low": float(away.min()),
        "high": float(away.max()),
        "theory_low": float(away[0]) / math.sqrt(1 + eta / 2),
        "theory_high": float(away[0]) / math.sqrt(1 - eta / 2) if eta < 2 else math.inf,
        "turn": measured_turn(round_it),
        "theory_turn": turn(round_it),
        "end_spiral": float(series(runs["simultaneous"], DISTANCE)[-1]),
        "end_r1": float(series(runs["R1"], DISTANCE)[-1]),
    }


CIRCLES = Lesson(
    name="gan-circles",
    title="Why a GAN circles, and what makes it settle",
    group=GROUP,
    question="The smallest GAN has a generator that is a point and a discriminator that is a slope: do they find "
    "their equilibrium?",
    scene=scene(
        QUADRATIC,
        data={"kind": "dirac", "points": [-1.0, 3.0]},
        model={"kind": "dirac_gan", "generator": 2.0},
        local={"local_lr": 0.1},
        run={"rounds": 300},
    ),
    arms={
        "simultaneous": {},
        "alternating": {"model.order": "alternating", "local.local_steps": 2},
        "R1": {"model.regularisation": "r1", "model.gamma": 1.0},
        "R1 too weak": {"model.regularisation": "r1", "model.gamma": 0.05},
    },
    numbers=_circles,
    look="The distance of both players from the equilibrium. It starts at 1. Where both move at once it grows by "
    "{factor_spiral:.4f} a round, to {end_spiral:.3g}. Where they take turns it stays between {low:.4f} and "
    "{high:.4f}, and a turn takes {turn:.1f} rounds. With R1 it shrinks by {factor_r1:.4f} a round, to "
    "{end_r1:.1g}; with a weak R1 it grows by {factor_weak:.4f}. The training loss says none of this: it is 0 four "
    "times in each turn.",
    change="--set local.local_lr=0.05 halves the step eta. A turn then takes {then_turn:.1f} rounds, twice as many, "
    "and the weak R1 keeps its distance: its gamma of 0.05 is equal to eta, and its factor {then_factor_weak:.4f}.",
    trial=("local.local_lr=0.05",),
    theory="With a = theta - mean and slope psi, a simultaneous step is a + i psi times 1 + i eta: a turn, and a "
    "factor sqrt(1 + eta^2) = {theory_spiral:.4f}. Turns keep a^2 + psi^2 + eta a psi, an ellipse between "
    "{theory_low:.4f} and {theory_high:.4f}, and turn by arccos(1 - eta^2/2) a round: {theory_turn:.1f} rounds. R1 "
    "adds gamma/2 |dD/dx|^2 at real examples to the discriminator's loss, and makes the factor sqrt(1 - eta gamma + "
    "eta^2), below 1 where gamma > eta: {theory_r1:.4f} and {theory_weak:.4f} (Mescheder, Geiger and Nowozin 2018).",
    claims=(
        Claim(
            "Simultaneous steps spiral outwards by sqrt(1 + eta^2).",
            lambda n: n["factor_spiral"] > 1 and abs(n["factor_spiral"] - n["theory_spiral"]) < 1e-9,
        ),
        Claim(
            "Players who take turns stay on the ellipse.",
            lambda n: (
                n["theory_low"] - 1e-9 < n["low"] < n["theory_low"] + 1e-3
                and n["theory_high"] - 1e-3 < n["high"] < n["theory_high"] + 1e-9
            ),
        ),
        Claim("A turn takes as many rounds as theory says.", lambda n: abs(n["turn"] / n["theory_turn"] - 1) < 0.02),
        Claim(
            "R1 settles, at theory's factor.",
            lambda n: n["factor_r1"] < 1 and abs(n["factor_r1"] - n["theory_r1"]) < 1e-3,
        ),
        Claim(
            "A gamma below eta does not settle.",
            lambda n: n["factor_weak"] > 1 and abs(n["factor_weak"] - n["theory_weak"]) < 1e-3,
        ),
    ),
    then={"turn": 125.5, "factor_weak": 1.0},
    outcome=(
        Claim("A turn takes twice as many rounds.", lambda n: abs(n["turn"] / (2 * 62.8057) - 1) < 0.02),
        Claim("The weak R1 keeps its distance.", lambda n: abs(n["factor_weak"] - 1) < 1e-4),
    ),
)

ARMS = (("R1", "r1"), ("no R1", "none"), ("R1, unlike clients", "skew"))
MEASURES = (("distance", "frechet_distance"), ("precision", "sample_precision"), ("coverage", "sample_coverage"))


def _between_real(run: Run) -> float:
    """Return the Fréchet distance of the test examples from the validation examples, as that of samples is measured.

    It is nan where the server lacks either.
    """
    population = run.session.population
    if population.validation is None or population.test is None:
        return math.nan
    both = [one.features.double().flatten(1).numpy() for one in (population.validation, population.test)]
    space = FeatureSpace.of(both[0])
    return frechet_distance(*map(space.features, both))


def _digits(runs: Runs) -> Numbers:
    found = {f"{name}_{key}": last(runs[arm], f"validation_{metric}") for arm, key in ARMS for name, metric in MEASURES}
    found |= {f"loss_{key}": last(runs[arm], "validation_loss") for arm, key in ARMS[:2]}
    return found | {"undecided": 2 * math.log(2), "real": _between_real(runs["R1"])}


DRAWN = Lesson(
    name="gan-digits",
    title="A GAN draws digits, and three measures of its samples",
    group=GROUP,
    question="Ten clients train a GAN on their digits: what do R1 and unlike clients change in what it draws?",
    scene=scene(
        DIGITS,
        data={"task": "generate", "validation_fraction": 0.2, "test_fraction": 0.2},
        partition={"clients": 10},
        model={"kind": "gan", "hidden": [64], "latent": 16},
        local={"optimizer": "adam", "beta1": 0.0, "local_lr": 0.004, "batch_size": "full"},
        engine={"tile": 10},
        run={"rounds": 15, "seed": 1},
    ),
    arms={
        "R1": {"model.gamma": 2.0},
        "no R1": {"model.regularisation": "none"},
        "R1, unlike clients": {"model.gamma": 2.0, "partition.kind": "dirichlet", "partition.concentration": 0.1},
    },
    numbers=_digits,
    look="The charts of samples. The Fréchet distance ends at {distance_r1:.2f} with R1 and at {distance_none:.2f} "
    "without it; real digits are {real:.2f} from other real digits. With R1 {precision_r1:.0%} of the samples lie "
    "among real digits, and {coverage_r1:.0%} of the real digits have a sample nearby; without it {precision_none:.0%} "
    "and {coverage_none:.0%}. Where each client has a few of the digits, precision is {precision_skew:.0%}, and "
    "coverage {coverage_skew:.0%}, at a distance of {distance_skew:.2f}. The validation loss, {loss_r1:.3f} and "
    "{loss_none:.3f}, does not rank them.",
    change="--set local.beta1=0.9 adds momentum, and the samples get worse: with R1 the Fréchet distance ends at "
    "about {then_distance_r1:.1f}, and without it at about {then_distance_none:.0f}. Past gradients of a game point "
    "the wrong way.",
    trial=("local.beta1=0.9",),
    theory="A discriminator that cannot tell samples from digits has the loss 2 log 2 = {undecided:.3f}, whatever both "
    "look like: the loss measures the players against each other. The Fréchet distance compares means and "
    "covariances (Heusel et al. 2017), precision and coverage count neighbours (Kynkäänniemi et al. 2019; Naeem et al. "
    "2020). Without R1 the players of a GAN need not settle, as gan-circles shows (Mescheder et al. 2018).",
    claims=(
        Claim("R1 at least halves the Fréchet distance.", lambda n: n["distance_r1"] < 0.5 * n["distance_none"]),
        Claim("With R1 most samples lie among real digits.", lambda n: n["precision_r1"] > 0.6),
        Claim("R1 covers half as many digits again.", lambda n: n["coverage_r1"] > 1.5 * n["coverage_none"]),
        Claim(
            "Samples of unlike clients are as precise, and farther from the digits.",
            lambda n: n["distance_skew"] > 1.3 * n["distance_r1"] and n["precision_skew"] > n["precision_r1"] - 0.15,
        ),
    ),
    then={"distance_r1": 1.07, "distance_none": 6.67},
    within=0.3,
    outcome=(
        Claim("With R1 the distance is larger by half at least.", lambda n: n["distance_r1"] > 1.5 * 0.552),
        Claim("Without R1 it is twice as far as before.", lambda n: n["distance_none"] > 2 * 2.11),
    ),
)

ROWS = (CIRCLES, DRAWN)
