"""Lessons on fitting: overfitting and what helps, zeros by L1, and the search for a learning rate."""

from __future__ import annotations

import math

from simulator.lessons.lesson import Claim, Lesson, Numbers, Runs
from simulator.lessons.reading import at_round, best, last, test_accuracy
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
    found["gain"] = found["last_none"] - min(found[f"last_{key}"] for key in OVERFIT_ARMS.values())
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
    "ends in round {rounds_early:.0f}, at {last_early:.3f} (best {best_early:.3f}). The best remedy gains {gain:.2f}.",
    change="--set faults.labels.severity=0.01 gives nearly all right labels, so that there is little to overfit: the "
    "validation loss without a remedy then rises from {then_best_none:.2f} to {then_last_none:.2f}, and the best "
    "remedy gains {then_gain:.2f}.",
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
    then={"best_none": 0.219, "last_none": 0.292, "gain": 0.06},
    outcome=(
        Claim("Without a remedy the loss rises by less than 0.1.", lambda n: n["last_none"] - n["best_none"] < 0.1),
        Claim(
            "No remedy gains as much as 0.1.",
            lambda n: n["last_none"] - min(n["last_l2"], n["last_dropout"], n["last_early"]) < 0.1,
        ),
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
    change='--set "L1:local.l1=0.02" zeroes {then_zeros_l1:.0%} of the parameters, and costs accuracy: '
    "{then_accuracy_l1:.1%}.",
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
    then={"zeros_l1": 0.628, "accuracy_l1": 0.928},
    outcome=(
        Claim("Ten times the penalty zeroes more than half of the parameters.", lambda n: n["zeros_l1"] > 0.5),
        Claim("It costs more than three points of accuracy.", lambda n: n["accuracy_l1"] < n["accuracy_none"] - 0.03),
    ),
)

GRID = ("0.001", "0.01", "0.1", "1", "10")


def _search(runs: Runs) -> Numbers:
    losses = {arm: last(runs[arm], LOSS) for arm in GRID}
    known = {arm: loss for arm, loss in losses.items() if math.isfinite(loss)}
    chosen = runs[min(known, key=known.__getitem__)] if known else None
    return {f"loss_{arm.replace('.', '_')}": loss for arm, loss in losses.items()} | {
        "chosen": math.nan if chosen is None else chosen.session.scenario.local.local_lr,
        "test_chosen": math.nan if chosen is None else test_accuracy(chosen),
        "first_round": math.nan if chosen is None else at_round(chosen, LOSS, 1),
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
    change="--set run.rounds=60 gives the slow arms time: 0.01 ends at {then_loss_0_01:.2f}, and 0.001 at "
    "{then_loss_0_001:.2f}, still near its start. The choice stays {then_chosen:g}, and has {then_test_chosen:.1%} "
    "on test examples.",
    trial=("run.rounds=60",),
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
    then={"loss_0_01": 0.354, "loss_0_001": 2.03, "chosen": 0.1, "test_chosen": 0.972},
    outcome=(
        Claim("The arm of 0.01 comes below 0.5.", lambda n: n["loss_0_01"] < 0.5),
        Claim(
            "The choice is the same and better: above 95% on test examples.",
            lambda n: n["chosen"] == 0.1 and n["test_chosen"] > 0.95,
        ),
    ),
)

SIGN_ARMS = {"rate falls to 0": "falls", "constant rate": "constant", "low rate": "low", "falls too early": "early"}
SIGN_KEYS = {"parameters_settle": "parameters", "outputs_agree": "outputs", "validation_plateaus": "validation"}
SIGN_NUMBERS = (("parameters", "constant"), ("outputs", "low"), ("validation", "low"))
"""The signs whose numbers the text shows."""
ANSWERS = {"yes": 1.0, "no": 0.0}


def _signs(runs: Runs) -> Numbers:
    """Return the signs of each arm's verdict, as outcome.json and the report have them, and its loss."""
    found: dict[str, float] = {}
    for arm, key in SIGN_ARMS.items():
        for sign in runs[arm].verdict.signs:
            name = SIGN_KEYS[sign.name]
            found[f"{name}_{key}"] = ANSWERS.get(sign.says, math.nan)
            if (name, key) in SIGN_NUMBERS:
                found[f"{name}_number_{key}"] = math.nan if sign.number is None else sign.number
        found[f"loss_{key}"] = last(runs[arm], LOSS)
    return found


def _answers(numbers: Numbers, key: str) -> list[float]:
    """Return the three answers of an arm: 1 for yes, 0 for no, nan."""
    return [numbers[f"{name}_{key}"] for name in SIGN_KEYS.values()]


SIGNS = Lesson(
    name="three-signs",
    title="Three signs of convergence, and their disagreement",
    group=GROUP,
    question="Parameters settle, outputs agree, validation plateaus: do the three signs of a run's verdict say the "
    "same?",
    scene=scene(
        DIGITS,
        model={"kind": "softmax"},
        local={"local_lr": 0.5, "local_steps": 20, "batch_size": 4},
        run={"rounds": 120, "seed": 1},
    ),
    arms={
        "rate falls to 0": {"local.schedule": {"kind": "cosine", "rounds": 120}},
        "constant rate": {},
        "low rate": {"local.local_lr": 0.02},
        "falls too early": {"local.local_lr": 0.05, "local.schedule": {"kind": "step", "factor": 0.5, "every": 1}},
    },
    numbers=_signs,
    look="The signs in the verdict of each run, under its curves: parameters settle, outputs agree, validation "
    "plateaus. Where the rate falls to 0: {parameters_falls:answer}, {outputs_falls:answer}, "
    "{validation_falls:answer}. At the constant rate: {parameters_constant:answer}, {outputs_constant:answer}, "
    "{validation_constant:answer}; a round still changes the parameters by {parameters_number_constant:.2g} of their "
    "norm. At the low rate: {parameters_low:answer}, {outputs_low:answer}, {validation_low:answer}; "
    "{outputs_number_low:.1%} of the outputs are those of the round before, and the validation loss changed by "
    "{validation_number_low:.3f} over the newest third. Where the rate falls too early: {parameters_early:answer}, "
    "{outputs_early:answer}, {validation_early:answer}. The losses end at {loss_falls:.3f}, {loss_constant:.3f}, "
    "{loss_low:.3f} and {loss_early:.3f}.",
    change='--set "falls too early:local.schedule.every=60" lets that arm go on. "Parameters settle" is then '
    "{then_parameters_early:answer}: it is on its way, at a loss of {then_loss_early:.2f}, where three yeses stood "
    "at seven times as much.",
    trial=("falls too early:local.schedule.every=60",),
    theory="Each sign is necessary and none is enough. With constant noisy steps the loss has arrived at its floor "
    "while the parameters walk around it for ever (Bottou, Curtis and Nocedal 2018, section 4.2). With small steps "
    "hardly any output flips in a round, though the loss still falls: agreement measures the step, not the distance. "
    "Where the rates' sum is finite all three signs say yes, and the model stands where the rate died, far from the "
    "minimum (Robbins and Monro 1951).",
    claims=(
        Claim("Where the rate falls to 0, all three signs say yes.", lambda n: _answers(n, "falls") == [1, 1, 1]),
        Claim(
            "At the constant rate the parameters do not settle, while validation plateaus.",
            lambda n: _answers(n, "constant")[::2] == [0, 1],
        ),
        Claim(
            "At the low rate outputs agree while validation still improves.", lambda n: _answers(n, "low")[1:] == [1, 0]
        ),
        Claim(
            "Where the rate falls too early, all three signs say yes, at twice the loss of the first arm at least.",
            lambda n: _answers(n, "early") == [1, 1, 1] and n["loss_early"] > 2 * n["loss_falls"],
        ),
    ),
    then={"parameters_early": 0.0, "loss_early": 0.266},
    outcome=(
        Claim("The last arm's parameters do not settle.", lambda n: n["parameters_early"] == 0),
        Claim("Its loss is less than a sixth of that before.", lambda n: n["loss_early"] < 1.928 / 6),
    ),
)

ROWS = (OVERFITTING, ZEROS, SEARCH, SIGNS)
