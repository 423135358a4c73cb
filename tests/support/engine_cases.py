"""Cases of local training: models with data that fit, optimisers, rules, remedies and shapes of the work."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

from clients.models import linear_options as linear
from clients.models import network_options as networks
from clients.models import options as kinds
from clients.models import sequence_options as sequences
from clients.models.build import build_model
from clients.models.two_player.options import GanOptions
from clients.training import rules
from clients.training.options import OPTIMIZERS, AugmentOptions, LocalOptions
from clients.training.task import make_task
from clients.training.work import CohortWork


class Residual(nn.Module):
    """A user's module: two biases that add up, layer normalisation, a skip connection, an unused parameter."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 3)
        self.norm, self.extra = nn.LayerNorm(6), nn.Parameter(torch.zeros(6))
        self.unused = nn.Parameter(torch.ones(2))
        self.register_buffer("mask", torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0]))

    def forward(self, x):
        return self.second(self.norm(x + torch.tanh(self.first(x) + self.extra)) * self.mask)


@dataclass(frozen=True)
class Model:
    """A model for a draw: its options (or module), and the data it needs."""

    options: object
    shape: tuple[int, ...] = (6,)
    outputs: int = 3
    task: str = "classification"

    @property
    def batch_norm(self):
        return getattr(self.options, "norm", "") == "batch"


MODELS = {
    "softmax": Model(kinds.SoftmaxOptions()),
    "logistic": Model(linear.LogisticOptions(), outputs=2),
    "svm": Model(linear.SvmOptions()),
    "svm, two classes": Model(linear.SvmOptions(squared=True, bias=False), outputs=2),
    "perceptron": Model(linear.PerceptronOptions(), outputs=2),
    "linear": Model(kinds.LinearOptions(), outputs=2, task="regression"),
    "relu": Model(kinds.MlpOptions(hidden=(7, 5), dropout=0.3)),
    "tanh": Model(kinds.MlpOptions(hidden=(5,), activation="tanh", dropout=0.5), outputs=2, task="regression"),
    "sigmoid": Model(kinds.MlpOptions(hidden=(5,), activation="sigmoid", initialisation="xavier", dropout=0.25)),
    "gelu": Model(kinds.MlpOptions(hidden=(6,), activation="gelu", norm="group", groups=1, dropout=0.2)),
    "leaky": Model(kinds.MlpOptions(hidden=(5,), activation="leaky_relu", initialisation="torch")),
    "batch norm": Model(kinds.MlpOptions(hidden=(6,), norm="batch", dropout=0.5)),
    "cnn": Model(kinds.SmallCnnOptions(channels=(3, 4)), shape=(1, 5, 5)),
    "cnn, batch norm": Model(kinds.SmallCnnOptions(channels=(2, 3), norm="batch"), shape=(4, 4)),
    "cnn1d": Model(kinds.Cnn1dOptions(channels=(3, 4), kernel=2), shape=(7, 2)),
    "gru": Model(kinds.GruOptions(hidden=4), shape=(5, 2), outputs=2, task="regression"),
    "gru, classes": Model(kinds.GruOptions(hidden=3), shape=(5, 2), outputs=3),
    "gru, one channel": Model(kinds.GruOptions(hidden=3), shape=(4,), outputs=3),
    "autoencoder": Model(networks.AutoencoderOptions(hidden=(5,), code=2), outputs=6, task="regression"),
    "rbf": Model(networks.RbfOptions(centres=4)),
    "rbf, all trained": Model(networks.RbfOptions(centres=4, trained="all"), outputs=2, task="regression"),
    "transformer": Model(sequences.TransformerOptions(width=4, heads=2, layers=2, feed_forward=5), shape=(4, 2)),
    "transformer, one channel": Model(
        sequences.TransformerOptions(width=4, heads=1, feed_forward=3, positions="sinusoidal"),
        shape=(5,),
        outputs=2,
        task="regression",
    ),
    "lstm": Model(sequences.LstmOptions(hidden=3), shape=(4, 2), outputs=2, task="regression"),
    "lstm, one channel": Model(sequences.LstmOptions(hidden=3), shape=(4,)),
    "rnn": Model(sequences.RnnOptions(hidden=3, radius=1.2), shape=(4, 2), outputs=2, task="regression"),
    "rnn, one channel": Model(sequences.RnnOptions(hidden=3, activation="relu"), shape=(4,)),
    "double well": Model(kinds.DoubleWellModelOptions(start=0.5), outputs=3, task="objective"),
    "quadratic": Model(kinds.ParameterVectorOptions(start=0.5), outputs=3, task="objective"),
    "gan": Model(GanOptions(hidden=(5,), latent=2), outputs=2, task="objective"),
    "gan, alternating": Model(
        GanOptions(hidden=(4, 3), latent=2, order="alternating", discriminator_steps=2, regularisation="none"),
        outputs=2,
        task="objective",
    ),
    "user's": Model(Residual()),
}
RULES = {
    "plain": rules.PLAIN,
    "proximal": rules.proximal(0.5),
    "variate 1": rules.control_variate(1),
    "variate 2": rules.control_variate(2),
    "dynamic": rules.dynamic(0.1),
}


REMEDIES = {
    "balanced batches": {"sampling": "class_balanced"},
    "weights": {"class_weights": "inverse"},
    "effective weights": {"class_weights": "effective", "effective_beta": 0.9, "weights_from": "federation"},
    "focal": {"focal_gamma": 2.0},
    "shallow focal": {"focal_gamma": 0.5, "class_weights": "inverse", "weights_from": "federation"},
    "noise": {"augment": {"jitter": 0.1, "scaling": 0.2}},
    "shift": {"augment": {"time_shift": 2, "scaling": 0.1}},
    "mixup": {"augment": {"mixup": 0.3}},
    "all": {"sampling": "class_balanced", "class_weights": "effective", "focal_gamma": 1.5,
            "augment": {"jitter": 0.1, "scaling": 0.1, "mixup": 1.0}},
}  # fmt: skip
"""Remedies of imbalance, by what they are."""


def fitting(model):
    """Return the remedies that a model's data allow."""
    if model.task == "objective":
        return []
    names = list(REMEDIES) if model.task == "classification" else ["noise", "mixup"]
    return [n for n in names if n != "shift" or len(model.shape) == 2]


@st.composite
def cases(draw):
    """Draw a model, local options, client sizes, a rule, the round and a seed."""
    model = MODELS[draw(st.sampled_from(sorted(MODELS)))]
    pairs = 2 if model.batch_norm else 1  # batch normalisation refuses batches of one
    sizes = [pairs * n for n in draw(st.lists(st.integers(1, 14), min_size=1, max_size=5))]
    one_of = st.sampled_from
    bare = draw(st.booleans())  # plain SGD, for the fused step of the hand-written program
    options = {
        "optimizer": draw(st.sampled_from(OPTIMIZERS)),
        "local_lr": 0.03,
        "batch_size": draw(st.one_of(st.just("full"), st.integers(1, 6).map(lambda b: b * pairs))),
        "drop_last": draw(st.booleans()),
        "l1": 0.0 if bare else draw(one_of([0.0, 0.01])),
        "l2": draw(one_of([0.0, 0.1])),
        "decoupled_weight_decay": 0.0 if bare else draw(one_of([0.0, 0.5])),
        "clip_norm": None if bare else draw(one_of([None, 0.5])),
        "clip_value": None if bare else draw(one_of([None, 0.1])),
        "gradient_noise": 0.0 if bare else draw(one_of([0.0, 0.1])),
        "partial_work": draw(one_of([0.0, 0.0, 0.6])),
        "buffers": draw(one_of(["average", "local"])),
    }
    remedies = fitting(model)
    if remedies and draw(st.booleans()):
        chosen = dict(REMEDIES[draw(one_of(remedies))])
        options |= chosen | ({"augment": AugmentOptions(**chosen["augment"])} if "augment" in chosen else {})
    each = st.lists(st.integers(1, 6), min_size=len(sizes), max_size=len(sizes)).map(tuple)
    unit = draw(st.sampled_from(["local_epochs", "local_steps", "each"]))
    if unit == "each":
        options["local_steps"] = draw(each)
    else:
        options[unit] = draw(st.integers(1, 3 if unit == "local_epochs" else 6))
    turns = getattr(model.options, "order", "") == "alternating"  # refused with option II: see finishing.py
    fitting_rules = [name for name in sorted(RULES) if not (turns and name == "variate 2")]
    rule = "plain" if bare and draw(st.booleans()) else draw(st.sampled_from(fitting_rules))
    return model, options, sizes, rule, draw(st.integers(1, 50)), draw(st.integers(0, 9))


def make(case, population_of, dtype, device=torch.device("cpu")):  # noqa: B008 (immutable)
    """Return the task on a device, the work and the client states."""
    model, options, sizes, rule, round_index, seed = case
    population = population_of(sizes, model.shape, model.outputs, model.task, seed, dtype)
    module = model.options if isinstance(model.options, nn.Module) else build_model(model.options, population, seed)
    task = make_task(module, population, LocalOptions(**options), seed=seed, dtype=dtype, count_errors=True)
    task = replace(task, device=device)
    params, buffers = task.initial()
    noise = torch.Generator().manual_seed(seed)

    def near(*shape):
        return torch.randn(*shape, len(params), generator=noise, dtype=torch.float64).to(dtype) * 0.05

    rule = RULES[rule]
    work = CohortWork(
        round_index=round_index,
        clients=np.arange(len(sizes)),
        params=params + near(),
        buffers=buffers,
        rule=rule,
        broadcast={n: near() for n in rule.broadcast},
    )
    own = {n: near(len(sizes)) for n in rule.client_state}
    if options["buffers"] == "local" and len(buffers):
        own["buffers"] = buffers.expand(len(sizes), -1) * torch.linspace(0.5, 1.5, len(sizes), dtype=dtype)[:, None]
    return task, work, own
