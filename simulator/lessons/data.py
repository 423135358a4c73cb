"""Lessons on data: rare classes, noisy sensors, few examples, and many features."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from simulator.lessons.lesson import Claim, Lesson, Numbers, Runs
from simulator.lessons.reading import last, test_accuracy
from simulator.lessons.scenes import DIGITS, scene

if TYPE_CHECKING:
    from simulator.runs.run import Run

GROUP = "Data"


def _rare_accuracy(run: Run) -> float:
    """Return the mean test accuracy of the classes that are rare in training; nan where no test example is of them."""
    by_class = run.outcome.get("test_class_accuracy") or []
    rare = run.session.scenario.data.rare_classes  # type: ignore[union-attr]
    known = [by_class[label] for label in rare if by_class and by_class[label] is not None]
    return float(np.mean(known)) if known else math.nan


IMBALANCE_ARMS = {"plain": "plain", "class weights": "weights", "balanced batches": "batches", "focal loss": "focal"}


def _imbalance(runs: Runs) -> Numbers:
    found: dict[str, float] = {}
    for arm, key in IMBALANCE_ARMS.items():
        found[f"rare_{key}"], found[f"all_{key}"] = _rare_accuracy(runs[arm]), test_accuracy(runs[arm])
    return found


IMBALANCE = Lesson(
    name="imbalance",
    title="Rare classes, and three remedies",
    group=GROUP,
    question="The digits 3, 8 and 9 have one in fifty of their examples: which remedies find them on test data?",
    scene=scene(
        DIGITS,
        data={"rare_classes": [3, 8, 9], "rare_share": 0.02, "test_fraction": 0.3},
        model={"kind": "softmax"},
        run={"rounds": 25, "seed": 1},
    ),
    arms={
        "plain": {},
        "class weights": {"local.class_weights": "inverse"},
        "balanced batches": {"local.sampling": "class_balanced"},
        "focal loss": {"local.focal_gamma": 2.0},
    },
    numbers=_imbalance,
    look="Test accuracy on the three rare classes: {rare_plain:.1%} plain, {rare_weights:.1%} with class "
    "weights, {rare_batches:.1%} with balanced batches, {rare_focal:.1%} with the focal loss. On all test "
    "examples: {all_plain:.1%}, {all_weights:.1%}, {all_batches:.1%} and {all_focal:.1%}.",
    change="--set data.rare_share=0.3 makes the classes less rare: the plain network then finds "
    "{then_rare_plain:.0%} of them, class weights {then_rare_weights:.0%}. Of the gap of 76 points 16 are left.",
    trial=("data.rare_share=0.3",),
    theory="Cross-entropy on n_y examples of class y fits the training shares: where test shares differ, the "
    "logits are off by the log of the ratio of shares. Weights 1/n_y, or batches with equal shares of classes, "
    "make the expected loss that of equal shares (Japkowicz and Stephen 2002; Cui et al. 2019). The focal loss "
    "weighs by difficulty, not by class (Lin et al. 2017).",
    claims=(
        Claim(
            "Weights and balanced batches find rare classes better, by ten points at least.",
            lambda n: min(n["rare_weights"], n["rare_batches"]) > n["rare_plain"] + 0.1,
        ),
        Claim(
            "They are better on all test examples, too.",
            lambda n: min(n["all_weights"], n["all_batches"]) > n["all_plain"],
        ),
        Claim(
            "The focal loss helps the rare classes less than weights do.", lambda n: n["rare_focal"] < n["rare_weights"]
        ),
    ),
    then={"rare_plain": 0.733, "rare_weights": 0.896},
    outcome=(
        Claim(
            "Weights and balanced batches are still better on rare classes, by less than 25 points.",
            lambda n: all(0 < n[f"rare_{k}"] - n["rare_plain"] < 0.25 for k in ("weights", "batches")),
        ),
    ),
)


def _sensors(runs: Runs) -> Numbers:
    keys = (("clean", "clean"), ("3 of 10 noisy", "some"), ("all noisy", "all"))
    found = {f"accuracy_{key}": test_accuracy(runs[arm]) for arm, key in keys}
    return found | {f"loss_{key}": last(runs[arm], "train_loss") for arm, key in keys}


NOISY_SENSORS = Lesson(
    name="noisy-sensors",
    title="Noisy sensors",
    group=GROUP,
    question="What does noise as strong as four times the signal do, on three clients of ten and on all?",
    scene=scene(
        DIGITS,
        data={"test_fraction": 0.3},
        partition={"kind": "iid", "clients": 10},
        local={"local_steps": 10},
        engine={"tile": 10},
        run={"rounds": 25, "seed": 1},
    ),
    arms={
        "clean": {},
        "3 of 10 noisy": {"faults": {"sensors": {"kind": "noise", "severity": 1.0, "clients": 0.3, "snr_db": -6.0}}},
        "all noisy": {"faults": {"sensors": {"kind": "noise", "severity": 1.0, "clients": 1.0, "snr_db": -6.0}}},
    },
    numbers=_sensors,
    look="Accuracy on clean test examples: {accuracy_clean:.1%}, {accuracy_some:.1%} and {accuracy_all:.1%}. The "
    "training loss ends at {loss_clean:.3f}, {loss_some:.3f} and {loss_all:.3f}: the noisy clients cannot fit "
    "what they see, and the average hides which they are. `fedscape report` shows every client of every round.",
    change='--set "all noisy:faults.sensors.snr_db=6" is noise of a quarter of the signal: that arm then ends at '
    "{then_accuracy_all:.1%}, a few points below the clean one.",
    trial=("all noisy:faults.sensors.snr_db=6",),
    theory="For a linear model, noise of variance v on the inputs adds v |w|^2 to the expected squared error, as "
    "L2 does: training with noise is Tikhonov regularisation (Bishop 1995). At -6 dB it is four times the "
    "signal's own variance, so what is learnt is shrunk towards nothing.",
    claims=(
        Claim(
            "More noisy clients, less accuracy.", lambda n: n["accuracy_clean"] > n["accuracy_some"] > n["accuracy_all"]
        ),
        Claim("The training loss grows with the noise.", lambda n: n["loss_clean"] < n["loss_some"] < n["loss_all"]),
    ),
    then={"accuracy_all": 0.887},
    outcome=(
        Claim(
            "Noise of a quarter of the signal costs less than ten points.",
            lambda n: n["accuracy_clean"] - 0.1 < n["accuracy_all"] < n["accuracy_clean"],
        ),
    ),
)


def _few(runs: Runs) -> Numbers:
    keys = (("1,437 examples", "many"), ("90 examples", "few"), ("90, jitter", "jitter"), ("90, mixup", "mixup"))
    return {f"accuracy_{key}": test_accuracy(runs[arm]) for arm, key in keys}


FEW: dict[str, float] = {"data.validation_fraction": 0.25, "data.test_fraction": 0.7}
"""90 examples for training; 1,258 are for the test, where the arm with 1,437 has 180."""
FEW_SAMPLES = Lesson(
    name="few-samples",
    title="Few examples, and augmentation",
    group=GROUP,
    question="How much accuracy do 90 examples cost, and do changed copies of them bring some back?",
    scene=scene(
        DIGITS,
        model={"hidden": [64]},
        local={"local_lr": 0.1, "local_steps": 40, "batch_size": 16},
        run={"rounds": 25, "seed": 1},
    ),
    arms={
        "1,437 examples": {},
        "90 examples": FEW,
        "90, jitter": {**FEW, "local.augment.jitter": 0.3},
        "90, mixup": {**FEW, "local.augment.mixup": 0.4},
    },
    numbers=_few,
    look="Test accuracy: {accuracy_many:.1%} with 1,437 examples and {accuracy_few:.1%} with 90. With noise on "
    "the pixels in each step the 90 give {accuracy_jitter:.1%}, with mixtures of pairs {accuracy_mixup:.1%}.",
    change='--set "90, jitter:local.augment.jitter=2.0" drowns the digits in noise: that arm ends at '
    "{then_accuracy_jitter:.0%}, which is guessing.",
    trial=("90, jitter:local.augment.jitter=2.0",),
    theory="The gap between training and test error falls with the number of examples. Jitter says that near "
    "examples have the same label, mixup that what lies between two has both: prior knowledge in place of data "
    "(Bishop 1995; Zhang et al. 2018). Neither replaces examples, and either can hurt.",
    claims=(
        Claim("Ninety examples cost at least five points.", lambda n: n["accuracy_few"] < n["accuracy_many"] - 0.05),
        Claim(
            "The better augmentation brings some back, and not all.",
            lambda n: n["accuracy_few"] < max(n["accuracy_jitter"], n["accuracy_mixup"]) < n["accuracy_many"],
        ),
    ),
    then={"accuracy_jitter": 0.104},
    outcome=(
        Claim("Too much jitter is worse than none by far.", lambda n: n["accuracy_jitter"] < 0.3 < n["accuracy_few"]),
    ),
)

KEPT = ("64", "32", "16", "4")


def _features(runs: Runs) -> Numbers:
    found: dict[str, float] = {}
    for arm, key in zip(runs, KEPT, strict=True):
        found[f"accuracy_{key}"] = test_accuracy(runs[arm])
        found[f"kilobytes_{key}"] = last(runs[arm], "bytes_total") / 1000
    return found


FEATURE_SELECTION = Lesson(
    name="feature-selection",
    title="Many features, and a selection",
    group=GROUP,
    question="How many of 64 pixels does softmax regression need, if the clients choose by mutual information "
    "with the class?",
    scene=scene(
        DIGITS,
        data={"test_fraction": 0.3},
        partition={"kind": "iid", "clients": 10},
        model={"kind": "softmax"},
        local={"local_lr": 0.3, "local_steps": 10},
        engine={"tile": 10},
        run={"rounds": 25, "seed": 1},
    ),
    arms={
        f"{count} pixels": {}
        if count == "64"
        else {"features.select": "mutual_information", "features.keep": int(count)}
        for count in KEPT
    },
    numbers=_features,
    look="Test accuracy: {accuracy_64:.1%} with 64 pixels, {accuracy_32:.1%} with 32, {accuracy_16:.1%} with 16, "
    "{accuracy_4:.1%} with 4. All rounds together sent {kilobytes_64:.0f}, {kilobytes_32:.0f}, "
    "{kilobytes_16:.0f} and {kilobytes_4:.0f} kB.",
    change='--set "16 pixels:features.select=variance" chooses by variance, which knows nothing of the classes. On '
    "digits it is as good, {then_accuracy_16:.1%}: pixels that vary are those that digits differ in.",
    trial=("16 pixels:features.select=variance",),
    theory="Volume grows geometrically with dimension, so examples thin out (Bellman 1961). A filter ranks each "
    "feature by itself: mutual information finds what a class depends on, and also finds the same thing twice "
    "(Guyon and Elisseeff 2003). Its sums and counts are all that clients send.",
    claims=(
        Claim("Half of the pixels cost at most three points.", lambda n: n["accuracy_32"] > n["accuracy_64"] - 0.03),
        Claim("Four pixels are not enough.", lambda n: n["accuracy_4"] < n["accuracy_64"] - 0.2),
        Claim(
            "Half of the pixels send about half of the bytes.",
            lambda n: 0.45 < n["kilobytes_32"] / n["kilobytes_64"] < 0.55,
        ),
    ),
    then={"accuracy_16": 0.878},
    outcome=(
        Claim(
            "Variance comes within two points of mutual information.", lambda n: abs(n["accuracy_16"] - 0.879) < 0.02
        ),
    ),
)

ROWS = (IMBALANCE, NOISY_SENSORS, FEW_SAMPLES, FEATURE_SELECTION)
