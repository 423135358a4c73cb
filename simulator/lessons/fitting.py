"""Lessons on fitting: overfitting and what helps, zeros by L1, and the search for a learning rate."""

from __future__ import annotations

import math

from simulator.lessons.lesson import Claim, Lesson, Numbers, Runs
from simulator.lessons.reading import at_round, best, last
from simulator.lessons.scenes import DIGITS, scene

GROUP = "Fitting"
LOSS = "validation_loss"
FEW = {"test_fraction": 0.3, "validation_fraction": 0.6}
"""180 of the 1,797 digits are left for training."""

OVERFIT_ARMS = {"none": "none", "L2": "l2", "dropout": "dropout", "early stopping": "early"}


def _overfitting(runs: Runs) -> Numbers:
    found: dict[str, float] = {}
    for arm, key in OVERFIT_ARMS.items():
        found[f"best_{key}"], found[f"last_{key}"] = best(runs[arm], LOSS), last(runs[arm], LOSS)
    found["train_none"] = last(runs["none"], "train_loss")
    found["rounds_early"] = float(len(runs["early stopping"].rounds["round"]) - 1)
    return found


OVERFITTING = Lesson(
    name="overfitting",
    title="Overfitting: L2, dropout, early stopping",
    group=GROUP,
    question="A network learns 180 digits of which two in five have a wrong label: what keeps it from learning "
    "the mistakes?",
    scene=scene(
        DIGITS,
        data=FEW,
        faults={"labels": {"kind": "label_symmetric", "severity": 0.8}},
        model={"hidden": [128]},
        local={"optimizer": "adam", "local_lr": 0.003, "batch_size": 32, "local_steps": 10},
        run={"rounds": 40, "seed": 1},
    ),
    arms={
        "none": {},
        "L2": {"local.l2": 0.005},
        "dropout": {"model.dropout": 0.6},
        "early stopping": {
            "convergence.stop": "any",
            "convergence.plateau": {"metric": LOSS, "min_delta": 0.0, "patience": 5},
        },
    },
    numbers=_overfitting,
    look="Training and validation loss. Without a remedy the training loss falls to {train_none:.2g}, while the "
    "validation loss rises from its best, {best_none:.3f}, to {last_none:.3f}. With L2 it goes from "
    "{best_l2:.3f} to {last_l2:.3f}, with dropout from {best_dropout:.3f} to {last_dropout:.3f}. Early stopping "
    "ends in round {rounds_early:.0f}, at {last_early:.3f} (best {best_early:.3f}).",
    change="--set faults.labels.severity=0.01 gives nearly all right labels: what is left to overfit is little, "
    "and the remedies hardly matter.",
    trial=("faults.labels.severity=0.01",),
    theory="A model with more parameters than examples can learn any labels (Zhang et al. 2017). L2 shrinks "
    "weights; dropout trains an ensemble of thinner networks (Srivastava et al. 2014); on a quadratic, stopping "
    "after t steps of rate eta acts as L2 of about 1/(eta t) (Bishop 2006, section 5.5.2).",
    claims=(
        Claim(
            "Without a remedy the validation loss ends a tenth above its best.",
            lambda n: n["last_none"] > 1.1 * n["best_none"],
        ),
        Claim(
            "Each remedy ends below that.",
            lambda n: max(n["last_l2"], n["last_dropout"], n["last_early"]) < n["last_none"],
        ),
        Claim("Early stopping ends within a fifth of its best.", lambda n: n["last_early"] < 1.2 * n["best_early"]),
    ),
)


def _zeros(runs: Runs) -> Numbers:
    found: dict[str, float] = {}
    for arm, key in (("none", "none"), ("L2", "l2"), ("L1", "l1")):
        params = runs[arm].params
        found[f"zeros_{key}"] = float((params == 0).double().mean())
        found[f"accuracy_{key}"] = last(runs[arm], "validation_accuracy")
    return found


ZEROS = Lesson(
    name="l1-zeros",
    title="L1 sets weights to zero, L2 does not",
    group=GROUP,
    question="What do the two penalties do to the weights of softmax regression on the 64 pixels of a digit?",
    scene=scene(
        DIGITS,
        model={"kind": "softmax", "initialisation": "xavier"},
        local={"local_lr": 0.2, "local_steps": 40},
        run={"rounds": 20, "seed": 1},
    ),
    arms={"none": {}, "L2": {"local.l2": 0.01}, "L1": {"local.l1": 0.002}},
    numbers=_zeros,
    look="The share of parameters that are exactly 0 at the end: {zeros_none:.1%} without a penalty, "
    "{zeros_l2:.1%} with L2, {zeros_l1:.1%} with L1. Validation accuracy: {accuracy_none:.1%}, {accuracy_l2:.1%} "
    "and {accuracy_l1:.1%}.",
    change='--set "L1:local.l1=0.02" zeroes more, and costs accuracy.',
    trial=("L1:local.l1=0.02",),
    theory="L2 multiplies a weight by 1 - eta l2 in each step: it shrinks and never arrives. L1 moves it by eta "
    "l1 whatever its size, and its proximal step stops at 0: soft-thresholding (Tibshirani 1996; Parikh and Boyd "
    "2014, section 6.5.2). A subgradient step without it jumps across 0.",
    claims=(
        Claim("L1 zeroes more than a fifth of the parameters.", lambda n: n["zeros_l1"] > 0.2),
        Claim(
            "Without a penalty, and with L2, fewer than one in fifty is 0.",
            lambda n: max(n["zeros_none"], n["zeros_l2"]) < 0.02,
        ),
        Claim("L1 costs at most three points of accuracy.", lambda n: n["accuracy_l1"] > n["accuracy_none"] - 0.03),
    ),
)

GRID = ("0.001", "0.01", "0.1", "1", "10")


def _search(runs: Runs) -> Numbers:
    losses = {arm: last(runs[arm], LOSS) for arm in GRID}
    known = {arm: loss for arm, loss in losses.items() if math.isfinite(loss)}
    chosen = min(known, key=lambda arm: known[arm])
    test = {arm: float(runs[arm].outcome.get("test_accuracy") or math.nan) for arm in GRID}
    return {f"loss_{arm.replace('.', '_')}": loss for arm, loss in losses.items()} | {
        "chosen": runs[chosen].session.scenario.local.local_lr,
        "test_chosen": test[chosen],
        "first_round": at_round(runs[chosen], LOSS, 1),
    }


SEARCH = Lesson(
    name="hyper-parameter-search",
    title="A search for the learning rate",
    group=GROUP,
    question="Five rates, a factor of 10 apart: which one does validation choose, and how good is it on test examples?",
    scene=scene(DIGITS, model={"hidden": [32, 32]}, local={"batch_size": 16}, run={"rounds": 15, "seed": 1}),
    arms={rate: {"local.local_lr": float(rate)} for rate in GRID},
    numbers=_search,
    look="The last validation loss: {loss_0_001:.3f} at a rate of 0.001, {loss_0_01:.3f} at 0.01, {loss_0_1:.3f} "
    "at 0.1, {loss_1:.3f} at 1, {loss_10:.3g} at 10. Validation chooses {chosen:g}, whose loss is "
    "{first_round:.3f} after round 1; on test examples, which played no part in the choice, it has "
    "{test_chosen:.1%}.",
    change="--set run.rounds=60 moves the choice to a lower rate: the slow arms get the time that they need.",
    trial=("run.rounds=4",),
    theory="Loss against the logarithm of the rate is a bowl: too low does not arrive, too high does not settle. "
    "So search in factors, not in steps (Bengio 2012, section 3.3), and score the choice on other examples, "
    "since the least of several noisy losses is too low. `fedscape tune` searches several keys at once, with a "
    "target and seeds.",
    claims=(
        Claim("The choice lies inside the grid.", lambda n: 0.001 < n["chosen"] < 10),
        Claim(
            "The lowest and the highest rate are worse than the choice.",
            lambda n: not min(n["loss_0_001"], n["loss_10"]) <= min(n["loss_0_01"], n["loss_0_1"], n["loss_1"]),
        ),
        Claim("The choice generalises: above 85% on test examples.", lambda n: n["test_chosen"] > 0.85),
    ),
)

SIGN_ARMS = {"rate falls to 0": "falls", "constant rate": "constant", "falls too early": "early"}


def _signs(runs: Runs) -> Numbers:
    found: dict[str, float] = {}
    for arm, key in SIGN_ARMS.items():
        rounds = runs[arm].session.scenario.run.rounds
        found[f"change_{key}"] = last(runs[arm], "relative_change")
        found[f"agreement_{key}"] = last(runs[arm], "agreement")
        found[f"gain_{key}"] = at_round(runs[arm], LOSS, rounds - 10) - at_round(runs[arm], LOSS, rounds)
        found[f"loss_{key}"] = last(runs[arm], LOSS)
    return found


SIGNS = Lesson(
    name="three-signs",
    title="Three signs of convergence, and their disagreement",
    group=GROUP,
    question="Parameters settle, outputs agree, validation stops improving: do the three signs say the same?",
    scene=scene(
        DIGITS,
        model={"kind": "softmax"},
        local={"local_lr": 0.5, "local_steps": 20, "batch_size": 4},
        run={"rounds": 60, "seed": 1},
    ),
    arms={
        "rate falls to 0": {"local.schedule": {"kind": "cosine", "rounds": 64}},
        "constant rate": {},
        "falls too early": {"local.local_lr": 0.05, "local.schedule": {"kind": "step", "factor": 0.5, "every": 1}},
    },
    numbers=_signs,
    look="In the last round the parameters still change by {change_falls:.1g} of their length where the rate "
    "falls to 0, by {change_constant:.1g} at the constant rate, and by {change_early:.1g} where it falls too "
    "early. The share of outputs that agree with the round before is {agreement_falls:.1%}, "
    "{agreement_constant:.1%} and {agreement_early:.1%}. In the last ten rounds the validation loss fell by "
    "{gain_falls:.4f}, {gain_constant:.4f} and {gain_early:.4f}; it ends at {loss_falls:.3f}, "
    "{loss_constant:.3f} and {loss_early:.3f}.",
    change='--set "falls too early:local.schedule.every=20" lets that arm go on: it then ends near the first.',
    trial=("falls too early:local.schedule.every=20",),
    theory="Each sign is necessary and none is enough. With constant noisy steps the loss has arrived at its "
    "floor while the parameters walk around it for ever (Bottou, Curtis and Nocedal 2018, section 4.2). Where "
    "the rates' sum is finite all three signs say yes, and the model stands where the rate died, far from the "
    "minimum (Robbins and Monro 1951).",
    claims=(
        Claim(
            "At the constant rate the parameters move ten times as much as where the rate falls.",
            lambda n: n["change_constant"] > 10 * n["change_falls"] > 0,
        ),
        Claim(
            "Where the rate falls too early, all three signs say yes.",
            lambda n: n["change_early"] < 1e-4 and n["agreement_early"] > 0.999 and abs(n["gain_early"]) < 1e-4,
        ),
        Claim("It has at least twice the loss of the first arm.", lambda n: n["loss_early"] > 2 * n["loss_falls"]),
    ),
)

ROWS = (OVERFITTING, ZEROS, SEARCH, SIGNS)
