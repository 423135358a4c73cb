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
LOSS, ACCURACY, GRADIENT = "validation_loss", "validation_accuracy", "largest_gradient_norm"
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
    change="--set model.hidden=[32] leaves one hidden layer. Weights too small then learn too, later than the "
    "others: they end at a loss of {then_loss_small:.2f}. Zero still fails, at any depth: {then_loss_zero:.3f}.",
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
    then={"loss_small": 1.08, "loss_zero": 2.306},
    outcome=(
        Claim(
            "Too small leaves the loss of guessing far behind, and zero does not.",
            lambda n: n["loss_small"] < n["guess"] - 1 and n["loss_zero"] > n["guess"] - 0.05,
        ),
        Claim(
            "Too small is slower than Xavier and He.", lambda n: n["loss_small"] > max(n["loss_xavier"], n["loss_he"])
        ),
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
    change="--set model.hidden=[32] leaves one hidden layer: its weights then move {then_ratio_sigmoid:.2f} times as "
    "far as the last, and sigmoid learns too, later than the others: it ends at a loss of {then_loss_sigmoid:.2f}.",
    trial=("model.hidden=[32]",),
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
    then={"ratio_sigmoid": 0.563, "loss_sigmoid": 1.08},
    outcome=(
        Claim("Sigmoid learns.", lambda n: n["loss_sigmoid"] < n["guess"] - 1),
        Claim(
            "It is behind the others.",
            lambda n: n["loss_sigmoid"] > max(n["loss_relu"], n["loss_norm"], n["loss_adam"]),
        ),
    ),
)


def _exploding(runs: Runs) -> Numbers:
    short, long = runs["radius 1.3, clipped, 12 steps"], runs["radius 1.3, clipped"]
    model, data = long.session.scenario.model, long.session.scenario.data
    steps = data.window - short.session.scenario.data.window  # type: ignore[union-attr]

    def growth(metric: str, round_index: int) -> float:
        """Return the factor of a metric for each further time step; nan where there is none."""
        start, end = (at_round(run, metric, round_index) for run in (short, long))
        return (end / start) ** (1 / steps) if steps and start > 0 else math.nan

    return {
        "steps": float(data.window),  # type: ignore[union-attr]
        "norm_one": at_round(runs["radius 1"], GRADIENT, 1),
        "norm_short": at_round(short, GRADIENT, 1),
        "norm_long": at_round(long, GRADIENT, 1),
        "growth_gradient": growth(GRADIENT, 1),
        "growth_loss": growth(LOSS, 0),
        "radius": float(model.radius),  # type: ignore[union-attr]
        "theory": float(model.radius**2),  # type: ignore[union-attr]
        "loss_one": last(runs["radius 1"], LOSS),
        "loss_unclipped": last(runs["radius 1.3"], LOSS),
        "rounds_unclipped": float(len(runs["radius 1.3"].rounds["round"]) - 1),
        "start_long": at_round(long, LOSS, 0),
        "loss_long": last(long, LOSS),
        "clip": long.session.scenario.local.clip_norm or math.inf,
    }


EXPLODING = Lesson(
    name="exploding-gradients",
    title="Exploding gradients in a recurrent network, and clipping",
    group=GROUP,
    question="A recurrent network reads 48 speeds of a road and forecasts the next: what if its weights lengthen the "
    "state in each step?",
    scene={
        **{name: section for name, section in DIGITS.items() if name != "partition"},
        "world": {"days": 15},
        "data": {"kind": "traffic", "clients": 1, "window": 48, "horizon": 1, "stride": 1},
        "model": {"kind": "rnn", "hidden": 16, "activation": "identity", "radius": 1.3},
        "local": {"optimizer": "sgd", "local_lr": 0.005, "local_steps": 20, "batch_size": 32},
        "run": {**DIGITS["run"], "rounds": 10, "seed": 1, "dtype": "float64"},
    },
    arms={
        "radius 1": {"model.radius": 1.0},
        "radius 1.3": {},
        "radius 1.3, clipped": {"local.clip_norm": 10.0},
        "radius 1.3, clipped, 12 steps": {"local.clip_norm": 10.0, "data.window": 12},
    },
    numbers=_exploding,
    look="The largest norm of a gradient in round 1, and the validation loss. With a spectral radius of 1 the norm "
    "is {norm_one:.3g}, and the loss ends at {loss_one:.3f}. With {radius:g} it is {norm_short:.2g} over 12 time "
    "steps and {norm_long:.2g} over {steps:.0f}: each step multiplies it by {growth_gradient:.3f}, and the loss of "
    "the first model by {growth_loss:.3f}. Unclipped, the run is lost in round {rounds_unclipped:.0f} (loss "
    "{loss_unclipped:.3g}). Cut to norm {clip:g}, the same gradients lead the loss from {start_long:.2g} to "
    "{loss_long:.3f}.",
    change="--set model.activation=tanh bounds the state: neither the loss nor the gradient grows with the number of "
    "steps ({then_growth_loss:.2f} and {then_growth_gradient:.2f} a step), since the slope of tanh falls as the "
    "state grows. Even unclipped the run learns, to {then_loss_unclipped:.3f}.",
    trial=("model.activation=tanh",),
    theory="A state h' = U h + W x is multiplied by U in each step on the way forward, and its gradient by U "
    "transposed on the way back. Where all eigenvalues of U have the modulus r, T steps make r^T of the state, hence "
    "of the error, and r^T of the gradient once more: r^2 = {theory:.2f} a step, for the gradient and for the "
    "squared error. Below 1 what the first steps say vanishes alike. Clipping keeps the direction and bounds the "
    "step's length (Pascanu, Mikolov and Bengio 2013).",
    claims=(
        Claim(
            "Gradient and loss grow by the radius squared for each time step, within 10%.",
            lambda n: all(abs(n[f"growth_{k}"] / n["theory"] - 1) < 0.1 for k in ("gradient", "loss")),
        ),
        Claim("Without clipping the run is lost.", lambda n: not n["loss_unclipped"] < n["start_long"]),
        Claim(
            "With clipping it ends within twice the loss of radius 1.",
            lambda n: n["loss_long"] < 2 * n["loss_one"],
        ),
    ),
    then={"growth_loss": 1.0, "growth_gradient": 1.0, "loss_unclipped": 0.035},
    outcome=(
        Claim(
            "Neither loss nor gradient grows by more than 5% a step.",
            lambda n: max(n["growth_loss"], n["growth_gradient"]) < 1.05,
        ),
        Claim("Unclipped, the run learns.", lambda n: n["loss_unclipped"] < 0.3 * n["start_long"]),
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
    change="--set local.optimizer=adam --set local.local_lr=0.005 undoes most of the sigmoid's small slopes: it then "
    "needs {then_rounds_sigmoid:.0f} rounds, the others at most {then_rounds_tanh:.0f}, and it ends at "
    "{then_loss_sigmoid:.2f}.",
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
    then={"rounds_sigmoid": 12.0, "rounds_tanh": 3.0, "loss_sigmoid": 0.158},
    outcome=(
        Claim(
            "Sigmoid comes below 0.5, and is still the last.",
            lambda n: max(n[f"rounds_{a}"] for a in ACTIVATIONS[1:]) < n["rounds_sigmoid"] < math.inf,
        ),
        Claim("The others do within 5 rounds.", lambda n: max(n[f"rounds_{a}"] for a in ACTIVATIONS[1:]) <= 5),
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
    scene=scene(DIGITS, model={"hidden": [32, 32, 32]}, engine={"tile": 5}, run={"rounds": 20, "seed": 1}),
    arms={
        "plain, rate 0.1": {},
        "plain, rate 3": {"local.local_lr": 3.0},
        "batch norm, rate 3": {"local.local_lr": 3.0, "model.norm": "batch"},
    },
    numbers=_norm,
    look="Validation accuracy: the plain network ends at {accuracy_plain:.1%} with a rate of 0.1 and at "
    "{accuracy_fast:.1%} with a rate of 3. With batch normalisation it ends at {accuracy_norm:.1%} with the same "
    "3. Rounds to an accuracy of 90%: {rounds_plain:.0f}, {rounds_fast:.0f} and {rounds_norm:.0f}.",
    change="--set partition.kind=shards --set partition.clients=5 deals a few labels to each client: batch "
    "statistics then differ between clients, and normalisation helps less. It ends at {then_accuracy_norm:.0%}, the "
    "plain network with the low rate at {then_accuracy_plain:.0%}.",
    trial=(
        "partition.kind=shards",
        "partition.clients=5",
    ),
    theory="A normalised layer does not depend on the scale of its weights, and its gradient falls as 1/|w|: too "
    "large a step enlarges w, which makes the next steps smaller (Ioffe and Szegedy 2015, section 3.3; Arora, Li "
    "and Lyu 2019).",
    claims=(
        Claim("Without normalisation a rate of 3 fails.", lambda n: not n["accuracy_fast"] > 0.5),
        Claim("With it the rate works.", lambda n: n["accuracy_norm"] > 0.75),
        Claim("The plain network needs the low rate.", lambda n: n["accuracy_plain"] > 0.85),
    ),
    then={"accuracy_norm": 0.66, "accuracy_plain": 0.89},
    outcome=(
        Claim(
            "Normalisation at the high rate ends at least ten points below the plain network.",
            lambda n: n["accuracy_norm"] < n["accuracy_plain"] - 0.1,
        ),
        Claim("Without it the high rate still fails.", lambda n: not n["accuracy_fast"] > 0.5),
    ),
)

ROWS = (INITIALISATION, VANISHING, EXPLODING, ACTIVATION, BATCH_NORM)
