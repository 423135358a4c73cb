"""Runs of engines with and without a kernel in C, and how their updates compare."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from clients.training.work import concatenate

NUMBERS = ("params", "train_loss", "client_drift", "gradient_norm")
COUNTS = ("clients", "num_examples", "local_steps", "train_errors")


def run(engine, work):
    """Train all tiles of a work; return their updates as one."""
    parts = [engine.train(replace(work, clients=work.clients[t]), {})[0] for t in engine.tiles(work)]
    return concatenate(parts)


def check_equal(one, other, bound):
    """Check that counts are equal and numbers within a bound, relative or absolute."""
    for name in COUNTS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in NUMBERS:
        x, y = (np.asarray(getattr(update, name), np.float64) for update in (one, other))
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, rtol=bound, atol=bound, err_msg=name)


def check_same_bits(one, other):
    """Check that all counts and numbers are the same to the last bit."""
    for name in (*COUNTS, *NUMBERS):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


class Paused:
    """A kernel whose calls return after some seconds, and which shares all work among threads."""

    def __init__(self, kernel, seconds):
        self.kernel, self.seconds = kernel, seconds

    def train(self, *arguments, **named):
        return self.kernel.train(*arguments, **named, seconds=self.seconds, few=0)
