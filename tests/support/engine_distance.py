"""How far two trainings of the same work are apart, and how far rounding may bring them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from clients.models.sequence_options import TransformerOptions
from clients.training.work import concatenate

NUMBERS = ("params", "buffers", "train_loss", "client_drift", "gradient_norm")
COUNTS = ("clients", "num_examples", "local_steps", "train_errors")


def run(engine, work, own):
    """Train tile by tile, as a round does."""
    parts, kept = [], {}
    for tile in engine.tiles(work):
        index = torch.from_numpy(tile)
        part = replace(work, clients=work.clients[tile])
        update, new = engine.train(part, {n: v[index] for n, v in own.items()})
        parts.append(update)
        for name, rows in new.items():
            kept.setdefault(name, torch.zeros(work.num_clients, rows.shape[1], dtype=rows.dtype))[index] = rows
    return concatenate(parts), kept


def distance(one, other):
    """Return the largest difference of two trainings, relative for numbers above 1."""
    (a, own_a), (b, own_b) = one, other
    for name in COUNTS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert own_a.keys() == own_b.keys()
    assert a.extras.keys() == b.extras.keys()
    pairs = [(n, getattr(a, n), getattr(b, n)) for n in NUMBERS]
    pairs += [(n, own_a[n], own_b[n]) for n in own_a] + [(n, a.extras[n], b.extras[n]) for n in a.extras]
    worst = 0.0
    for _name, x, y in pairs:
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        assert x.shape == y.shape
        assert np.isfinite(x).all()
        if x.size:
            worst = max(worst, float(np.max(np.abs(x - y) / np.maximum(1.0, np.abs(x)))))
    return worst


ADAPTIVE = ("rmsprop", "adam", "adamw", "adagrad")


def tolerance(case, usual):
    """Return the largest difference by rounding.

    After batch normalisation of two examples most gradients are 0 up to rounding, about 1e-16; so is that of a
    transformer's biases of keys, to which softmax is blind. An adaptive optimizer divides them by their own size plus
    epsilon = 1e-8, and steps of local_lr = 0.03 multiply what is left: up to 1e-7.
    """
    model, options = case[:2]
    vanishes = model.batch_norm or isinstance(model.options, TransformerOptions)
    return 1e-6 if vanishes and options["optimizer"] in ADAPTIVE else usual
