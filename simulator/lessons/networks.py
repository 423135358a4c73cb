"""Lessons on networks: initialisation, vanishing and exploding gradients, activations, batch normalisation."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from simulator.lessons.lesson import Claim, Lesson, Numbers, Runs
from simulator.lessons.reading import at_round, last, rounds_to
from simulator.lessons.scenes import DIGITS, scene

if TYPE_CHECKING:
    from simulator.runs.run import Run

GROUP = "Networks"
LOSS, ACCURACY = "validation_loss", "validation_accuracy"
LAYER = re.compile(r"by_layer\.(\d+)\.aggregate_norm")


def first_to_last(run: Run) -> float:
    """Return how far round 1 moves the first layer, divided by how far it moves the last one."""
    layers = sorted(int(found[1]) for name in list(run.rounds) if (found := LAYER.fullmatch(name)))
    if not layers:
        return math.nan
    first, end = (at_round(run, f"by_layer.{layer}.aggregate_norm", 1) for layer in (layers[0], layers[-1]))
    return first / end if end > 0 else math.nan


def _initialisation(runs: Runs) -> Numbers:
    found: dict[str, float] = {"guess": math.log(10)}
    for arm, key in (("zero", "zero"), ("too small", "small"), ("Xavier", "xavier"), ("He", "he")):
        found[f"loss_{key}"] = last(runs[arm], LOSS)
        found[f"rounds_{key}"] = rounds_to(runs[arm], LOSS, 1.0)
    return found


INITIALISATION = Lesson(
    name="initialisation",
    title="Initial weights: zero, too small, Xavier, He",
    group=GROUP,
    question="Four ways to start the same deep ReLU network: which of them learn the digits?",
    scene=scene(DIGITS, model={"hidden": [32] * 6}, local={"local_lr": 0.05}, run={"rounds": 20, "seed": 1}),
    arms={
        "zero": {"model.initialisation": "zero"},
        "too small": {"model.initialisation": "he", "model.initial_scale": 0.1},
        "Xavier": {"model.initialisation": "xavier"},
        "He": {"model.initialisation": "he"},
    },
    numbers=_initialisation,
    look="The validation loss. Ten classes guessed alike cost log 10 = {guess:.3f}. From zero it stays at "
    "{loss_zero:.3f}, and from weights ten times too small at {loss_small:.3f}. From Xavier it ends at "
    "{loss_xavier:.3f}, from He at {loss_he:.3f}. Rounds to a loss of 1: {rounds_he:.0f} from He, "
    "{rounds_xavier:.0f} from Xavier, {rounds_small:.0f} from too small, {rounds_zero:.0f} from zero.",
    change="--set model.hidden=[32] leaves one hidden layer: weights too small then only cost a few rounds. Zero "
    "still fails, at any depth.",
    trial=("model.hidden=[32]",),
    theory="With all weights 0 every hidden unit of a layer has the same output and gradient, here 0: a saddle "
    "that descent does not leave. A layer of n inputs and weight variance v multiplies the signal's variance by "
    "n v / 2 under ReLU. He's v = 2/n keeps it; Xavier's is made for linear units and halves it; a tenth of He's "
    "weights divide it by 100 in each layer (Glorot and Bengio 2010; He et al. 2015).",
    claims=(
        Claim(
            "Zero and too small stay at the loss of guessing.",
            lambda n: min(n["loss_zero"], n["loss_small"]) > n["guess"] - 0.05,
        ),
        Claim("Xavier and He learn.", lambda n: max(n["loss_xavier"], n["loss_he"]) < 1.0),
        Claim("He is the first to come below a loss of 1.", lambda n: n["rounds_he"] < n["rounds_xavier"]),
    ),
)


def _vanishing(runs: Runs) -> Numbers:
    found: dict[str, float] = {"guess": math.log(10)}
    for arm, key in (("sigmoid", "sigmoid"), ("ReLU and He", "relu"), ("batch norm", "norm"), ("Adam", "adam")):
        found[f"ratio_{key}"] = first_to_last(runs[arm])
        found[f"loss_{key}"] = last(runs[arm], LOSS)
    return found


VANISHING = Lesson(
    name="vanishing-gradients",
    title="Vanishing gradients, and three cures",
    group=GROUP,
    question="Why does a deep sigmoid network not learn, and what helps?",
    scene=scene(
        DIGITS,
        model={"hidden": [32] * 5, "activation": "sigmoid", "initialisation": "xavier"},
        run={"rounds": 20, "seed": 1},
    ),
    arms={
        "sigmoid": {},
        "ReLU and He": {"model.activation": "relu", "model.initialisation": "he"},
        "batch norm": {"model.norm": "batch"},
        "Adam": {"local.optimizer": "adam", "local.local_lr": 0.01},
    },
    numbers=_vanishing,
    look="The updates of layers, and the validation loss. In round 1 the sigmoid network moves its first layer "
    "{ratio_sigmoid:.1g} times as far as its last; with ReLU and He {ratio_relu:.2g}, with batch normalisation "
    "{ratio_norm:.2g}, with Adam {ratio_adam:.2g} times. The loss ends at {loss_sigmoid:.3f} (guessing costs "
    "{guess:.3f}), {loss_relu:.3f}, {loss_norm:.3f} and {loss_adam:.3f}.",
    change="--set model.hidden=[32,32] makes the network shallow: sigmoid then learns too, later than the others.",
    trial=("model.hidden=[32,32]",),
    theory="Backwards through a layer the gradient is multiplied by the weights and by the activation's slope, "
    "which is at most 1/4 for the sigmoid: it shrinks geometrically with depth (Hochreiter 1991; Glorot and "
    "Bengio 2010). ReLU has slope 1; batch normalisation keeps the inputs where the slope is large (Ioffe and "
    "Szegedy 2015); Adam divides each gradient by its own size.",
    claims=(
        Claim(
            "Sigmoid moves its first layer less than a tenth as far as its last.", lambda n: n["ratio_sigmoid"] < 0.1
        ),
        Claim("Sigmoid stays at guessing.", lambda n: n["loss_sigmoid"] > n["guess"] - 0.05),
        Claim(
            "Each cure at least quadruples the first layer's share.",
            lambda n: min(n["ratio_relu"], n["ratio_norm"], n["ratio_adam"]) > 4 * n["ratio_sigmoid"],
        ),
        Claim("Each cure learns.", lambda n: max(n["loss_relu"], n["loss_norm"], n["loss_adam"]) < 1.2),
    ),
)


def _exploding(runs: Runs) -> Numbers:
    found: dict[str, float] = {}
    for arm, key in (("He", "he"), ("three times He", "large"), ("three times He, clipped", "clipped")):
        found[f"norm_{key}"] = at_round(runs[arm], "largest_gradient_norm", 1)
        found[f"accuracy_{key}"] = last(runs[arm], ACCURACY)
    return found


EXPLODING = Lesson(
    name="exploding-gradients",
    title="Exploding gradients, and clipping",
    group=GROUP,
    question="What do weights three times too large do in a deep network, and what does a limit on the "
    "gradient's norm do?",
    scene=scene(DIGITS, model={"hidden": [32] * 5}, local={"local_lr": 0.05}, run={"rounds": 20, "seed": 1}),
    arms={
        "He": {},
        "three times He": {"model.initial_scale": 3.0},
        "three times He, clipped": {"model.initial_scale": 3.0, "local.clip_norm": 3.0},
    },
    numbers=_exploding,
    look="The largest norm of a gradient in round 1: {norm_he:.3g} from He, {norm_large:.3g} from three times He "
    "(no number: the run is lost), and {norm_clipped:.3g} in the clipped run, whose steps follow a gradient cut "
    "to norm 3. Their accuracy ends at {accuracy_he:.1%}, {accuracy_large:.1%} and {accuracy_clipped:.1%}.",
    change='--set "three times He, clipped:local.clip_norm=1000" is a limit too high to help.',
    trial=("three times He, clipped:local.clip_norm=1000",),
    theory="Each of the layers multiplies the signal by 3 on the way forward, and the gradient by 3 on the way "
    "back: 3 to the power of the depth. A recurrent network does the same over its time steps. Clipping keeps "
    "the direction and bounds the step's length (Pascanu, Mikolov and Bengio 2013).",
    claims=(
        Claim(
            "Large weights have a gradient a hundred times as large.", lambda n: n["norm_clipped"] > 100 * n["norm_he"]
        ),
        Claim("Without clipping the run does not learn.", lambda n: not n["accuracy_large"] > 0.3),
        Claim("With clipping it does.", lambda n: n["accuracy_clipped"] > 0.5),
    ),
)

ACTIVATIONS = ("sigmoid", "tanh", "relu", "leaky_relu", "gelu")


def _activations(runs: Runs) -> Numbers:
    found: dict[str, float] = {}
    for arm in ACTIVATIONS:
        found[f"loss_{arm}"] = last(runs[arm], LOSS)
        found[f"rounds_{arm}"] = rounds_to(runs[arm], LOSS, 0.5)
    return found


ACTIVATION = Lesson(
    name="activations",
    title="Five activations compared",
    group=GROUP,
    question="How fast does the same network learn with sigmoid, tanh, ReLU, leaky ReLU and GELU?",
    scene=scene(DIGITS, model={"hidden": [32, 32], "initialisation": "xavier"}, run={"rounds": 25, "seed": 1}),
    arms={arm: {"model.activation": arm} for arm in ACTIVATIONS},
    numbers=_activations,
    look="The validation loss. Rounds until it is below 0.5: tanh {rounds_tanh:.0f}, ReLU {rounds_relu:.0f}, "
    "leaky ReLU {rounds_leaky_relu:.0f}, GELU {rounds_gelu:.0f}, sigmoid {rounds_sigmoid:.0f}. It ends at "
    "{loss_tanh:.3f}, {loss_relu:.3f}, {loss_leaky_relu:.3f}, {loss_gelu:.3f} and {loss_sigmoid:.3f}.",
    change="--set local.optimizer=adam --set local.local_lr=0.005 makes the differences small: Adam undoes the "
    "sigmoid's small slopes.",
    trial=("local.optimizer=adam", "local.local_lr=0.005"),
    theory="What matters is the slope where units work. At 0 it is 1/4 for the sigmoid, 1/2 for GELU, 1 for tanh "
    "and, on one side, for ReLU. The sigmoid's outputs also have a mean of 1/2, which acts as a shared bias of "
    "the next layer (LeCun et al. 1998, section 4.4).",
    claims=(
        Claim(
            "Sigmoid is the last to come below 0.5.",
            lambda n: n["rounds_sigmoid"] > max(n[f"rounds_{a}"] for a in ACTIVATIONS[1:]),
        ),
        Claim("The others all do within 15 rounds.", lambda n: max(n[f"rounds_{a}"] for a in ACTIVATIONS[1:]) <= 15),
    ),
)


def _norm(runs: Runs) -> Numbers:
    keys = (("plain, rate 0.1", "plain"), ("plain, rate 3", "fast"), ("batch norm, rate 3", "norm"))
    return {f"accuracy_{key}": last(runs[arm], ACCURACY) for arm, key in keys} | {
        f"rounds_{key}": rounds_to(runs[arm], "validation_error", 0.1) for arm, key in keys
    }


BATCH_NORM = Lesson(
    name="batch-normalisation",
    title="Batch normalisation",
    group=GROUP,
    question="Which learning rates does a network bear with and without batch normalisation?",
    scene=scene(DIGITS, model={"hidden": [32, 32, 32]}, run={"rounds": 20, "seed": 1}),
    arms={
        "plain, rate 0.1": {},
        "plain, rate 3": {"local.local_lr": 3.0},
        "batch norm, rate 3": {"local.local_lr": 3.0, "model.norm": "batch"},
    },
    numbers=_norm,
    look="Validation accuracy: the plain network ends at {accuracy_plain:.1%} with a rate of 0.1 and at "
    "{accuracy_fast:.1%} with a rate of 3. With batch normalisation it ends at {accuracy_norm:.1%} with the same "
    "3. Rounds to an accuracy of 90%: {rounds_plain:.0f}, {rounds_fast:.0f} and {rounds_norm:.0f}.",
    change="--set partition.kind=shards --set partition.clients=10 deals one or two labels to each client: batch "
    "statistics then differ between clients, and normalisation hurts.",
    trial=("partition.kind=shards", "partition.clients=10"),
    theory="A normalised layer does not depend on the scale of its weights, and its gradient falls as 1/|w|: too "
    "large a step enlarges w, which makes the next steps smaller (Ioffe and Szegedy 2015, section 3.3; Arora, Li "
    "and Lyu 2019).",
    claims=(
        Claim("Without normalisation a rate of 3 fails.", lambda n: not n["accuracy_fast"] > 0.5),
        Claim("With it the rate works.", lambda n: n["accuracy_norm"] > 0.75),
        Claim("The plain network needs the low rate.", lambda n: n["accuracy_plain"] > 0.85),
    ),
)

ROWS = (INITIALISATION, VANISHING, EXPLODING, ACTIVATION, BATCH_NORM)
