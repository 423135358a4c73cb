"""Small modules as users write them: dropout in every form, noise, kept outputs, locks, tied and unused parameters.

All take features [n, 8] and return [n, 3].
"""

import random
import threading
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class OnlyIfTraining(nn.Module):
    """Calls dropout only in training mode."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.drop = nn.Linear(8, 12), nn.Linear(12, 3), nn.Dropout(0.4)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.second(self.drop(x) if self.training else x)


class Shared(nn.Module):
    """One dropout object in two places, once inside a Sequential."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.4)
        self.first = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), self.drop)
        self.second, self.last = nn.Linear(12, 10), nn.Linear(10, 3)

    def forward(self, x):
        return self.last(self.drop(torch.tanh(self.second(self.first(x)))))


class Loop(nn.Module):
    """Calls one dropout object three times in a pass."""

    def __init__(self):
        super().__init__()
        self.inner, self.last, self.drop = nn.Linear(8, 8), nn.Linear(8, 3), nn.Dropout(0.3)

    def forward(self, x):
        for _ in range(3):
            x = self.drop(torch.tanh(self.inner(x)))
        return self.last(x)


class Flattened(nn.Module):
    """Flattens examples and steps before dropout."""

    def __init__(self):
        super().__init__()
        self.inner, self.last, self.drop = nn.Linear(2, 6), nn.Linear(24, 3), nn.Dropout(0.4)

    def forward(self, x):
        return self.last(self.drop(torch.tanh(self.inner(x.view(-1, 2)))).view(-1, 24))


class TimeFirst(nn.Module):
    """Has the batch in its second axis at dropout."""

    def __init__(self):
        super().__init__()
        self.inner, self.last, self.drop = nn.Linear(2, 6), nn.Linear(24, 3), nn.Dropout(0.4)

    def forward(self, x):
        h = self.drop(torch.tanh(self.inner(x.view(-1, 4, 2).transpose(0, 1))))
        return self.last(h.transpose(0, 1).reshape(-1, 24))


class OnWeights(nn.Module):
    """Drops weights: the mask does not depend on the batch."""

    def __init__(self):
        super().__init__()
        self.weight, self.drop = nn.Parameter(torch.randn(3, 8) * 0.3), nn.Dropout(0.4)

    def forward(self, x):
        return functional.linear(x, self.drop(self.weight))


class Channels(nn.Module):
    """A convolution and any kind of dropout."""

    def __init__(self, dimensions, drop):
        super().__init__()
        self.shape = {1: (-1, 1, 8), 2: (-1, 1, 2, 4), 3: (-1, 1, 2, 2, 2)}[dimensions]
        convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
        self.inner, self.last, self.drop = convolution(1, 4, 1), nn.Linear(32, 3), drop

    def forward(self, x):
        return self.last(self.drop(torch.tanh(self.inner(x.view(self.shape)))).flatten(1))


class Functional(nn.Module):
    """Calls dropout as a function."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, x):
        return self.second(functional.dropout(torch.relu(self.first(x)), 0.4, self.training))


class Encoder(nn.Module):
    """A transformer's layer, whose attention drops inside a function."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.3, batch_first=True)
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.encoder(x.view(-1, 2, 4)).flatten(1))


class Attention(nn.Module):
    """Attention with dropout."""

    def __init__(self):
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(4, 2, dropout=0.3, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        h = x.view(-1, 2, 4)
        return self.last(self.attention(h, h, h)[0].flatten(1))


class Recurrent(nn.Module):
    """Two recurrent layers with dropout between them."""

    def __init__(self, kind):
        super().__init__()
        self.layers = kind(2, 5, num_layers=2, dropout=0.3, batch_first=True)
        self.last = nn.Linear(5, 3)

    def forward(self, x):
        return self.last(self.layers(x.view(-1, 4, 2))[0][:, -1])


class GlobalNoise(nn.Module):
    """Draws from NumPy's and Python's global generators."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        if self.training:
            x = x * (1 + 0.2 * np.random.normal()) + 0.1 * random.random()  # noqa: NPY002 (a user's code)
        return self.last(x)


class OwnGenerators(nn.Module):
    """Draws from generators of torch and NumPy that it keeps."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(8, 3)
        self.noise, self.scale = torch.Generator().manual_seed(3), np.random.default_rng(2)

    def forward(self, x):
        if self.training:
            x = x * (1 + 0.2 * self.scale.normal()) + 0.1 * torch.randn(x.shape, generator=self.noise).to(x)
        return self.last(x)


class Sampling(nn.Module):
    """Draws in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        return self.last(x + 0.1 * torch.randn_like(x))


class CallsByLength(nn.Module):
    """Calls dropout once more for a batch of odd length."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.drop = nn.Linear(8, 8), nn.Linear(8, 3), nn.Dropout(0.3)

    def forward(self, x):
        x = torch.tanh(self.first(x))
        for _ in range(1 + len(x) % 2):
            x = self.drop(x)
        return self.last(x)


class Counting(nn.Module):
    """Its outputs depend on the number of passes so far, which is in no buffer."""

    def __init__(self):
        super().__init__()
        self.last, self.passes = nn.Linear(8, 3), 0

    def forward(self, x):
        self.passes += 1
        return self.last(x) * self.passes


class Unseedable(nn.Module):
    """Draws from a generator that is hidden in a function."""

    def __init__(self):
        super().__init__()
        hidden = np.random.default_rng()
        self.last, self.draw = nn.Linear(8, 3), lambda: float(hidden.normal())

    def forward(self, x):
        return self.last(x * self.draw())


class Keeping(nn.Module):
    """Keeps its activations, alone and in a list."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 12), nn.Linear(12, 3)
        self.kept = []

    def forward(self, x):
        self.hidden = torch.relu(self.first(x))
        self.kept = [self.hidden]
        return self.last(self.hidden)


class Locked(nn.Module):
    """Holds a lock."""

    def __init__(self):
        super().__init__()
        self.last, self.lock = nn.Linear(8, 3), threading.Lock()

    def forward(self, x):
        with self.lock:
            return self.last(x)


class LockedPart(nn.Module):
    """Holds a lock and a part in one attribute, which no copy can share."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(8, 3)
        self.held = (self.last, threading.Lock())

    def forward(self, x):
        return self.held[0](x)


class Closure(nn.Module):
    """Calls a function that refers to the object it was made in."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(8, 3)
        self.function = lambda x: self.last(x)

    def forward(self, x):
        return self.function(x)


class Tied(nn.Module):
    """One weight in two layers, and one normalisation under two names."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(8)
        self.again, self.last = self.norm, nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.second(torch.tanh(self.again(self.first(x)))))


class Unused(nn.Module):
    """Has a layer that forward leaves out, and a parameter that is not trained."""

    def __init__(self):
        super().__init__()
        self.last, self.left_out = nn.Linear(8, 3), nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.full((3,), 2.0), requires_grad=False)

    def forward(self, x):
        return self.last(x) * self.scale


class UsedByLength(nn.Module):
    """Uses a layer only for batches of odd length."""

    def __init__(self):
        super().__init__()
        self.last, self.sometimes = nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(x) + (self.sometimes(x) if len(x) % 2 else 0)


class ComplexScale(nn.Module):
    """Has a complex parameter and a complex buffer."""

    def __init__(self):
        super().__init__()
        self.last, self.phase = nn.Linear(8, 3), nn.Parameter(torch.ones(3, dtype=torch.complex64))
        self.register_buffer("turn", torch.ones(3, dtype=torch.complex64))

    def forward(self, x):
        return self.last(x) * (self.phase * self.turn).real


def perceptron(*middle):
    """Return a perceptron with parts after its activation."""
    return nn.Sequential(nn.Linear(8, 12), nn.Tanh(), *middle, nn.Linear(12, 3))


def shared_in_sequential():
    """Return a perceptron with one dropout object in two places."""
    drop = nn.Dropout(0.4)
    return nn.Sequential(nn.Linear(8, 9), nn.ReLU(), drop, nn.Linear(9, 7), nn.ReLU(), drop, nn.Linear(7, 3))


def reused_block():
    """Return a module that calls one Sequential with dropout twice."""
    block = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Dropout(0.4))
    return nn.Sequential(block, block, nn.Linear(8, 3))


def weight_norm():
    """Return a perceptron under torch's older weight normalisation, which keeps a tensor with a graph."""
    module = perceptron()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(module[0])
    return module


def parametrised():
    """Return a perceptron under torch's newer weight normalisation."""
    module = perceptron()
    nn.utils.parametrizations.weight_norm(module[0])
    return module


ADDRESSED = {
    "perceptron": lambda: perceptron(nn.Dropout(0.4)),
    "only if training": OnlyIfTraining,
    "shared": Shared,
    "shared in a Sequential": shared_in_sequential,
    "reused block": reused_block,
    "loop": Loop,
    "flattened": Flattened,
    "time first": TimeFirst,
    "on weights": OnWeights,
    "in place": lambda: nn.Sequential(nn.Linear(8, 12), nn.Dropout(0.4, inplace=True), nn.Linear(12, 3)),
    "Dropout1d": lambda: Channels(1, nn.Dropout1d(0.4)),
    "Dropout2d": lambda: Channels(2, nn.Dropout2d(0.4)),
    "Dropout3d": lambda: Channels(3, nn.Dropout3d(0.4)),
    "AlphaDropout": lambda: perceptron(nn.AlphaDropout(0.4)),
    "FeatureAlphaDropout": lambda: Channels(1, nn.FeatureAlphaDropout(0.4)),
}
"""Models whose dropout is addressed in both engines."""

DRAWING = {
    "function": (Functional, "torch's generator, in Functional.forward"),
    "encoder": (Encoder, "torch's generator, in 'encoder.self_attn' (MultiheadAttention)"),
    "attention": (Attention, "torch's generator, in 'attention' (MultiheadAttention)"),
    "lstm": (lambda: Recurrent(nn.LSTM), "torch's generator, in 'layers' (LSTM)"),
    "gru": (lambda: Recurrent(nn.GRU), "torch's generator, in 'layers' (GRU)"),
    "rrelu": (lambda: perceptron(nn.RReLU()), "torch's generator, in '2' (RReLU)"),
    "global generators": (
        GlobalNoise,
        "NumPy's global generator, in GlobalNoise.forward; Python's global generator, in GlobalNoise.forward",
    ),
    "own generators": (
        OwnGenerators,
        "its generator 'noise', in OwnGenerators.forward; its generator 'scale', in OwnGenerators.forward",
    ),
    "sampling": (Sampling, "torch's generator, in Sampling.forward"),
}
"""Models that draw otherwise, and what they draw from."""

COPIED = {"keeping": Keeping, "locked": Locked, "weight norm": weight_norm, "parametrised": parametrised}
"""Models that `copy.deepcopy` refuses before or after a pass, and one that it does not."""
