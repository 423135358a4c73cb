"""Uplinks: the part of an update that arrives, the part that a client keeps, and the bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clients.core.errors import UserError
from clients.training.uplink import IDENTITY, RESIDUAL, top_k
from server.algorithms.algorithm import Algorithm
from simulator.testing.checks import small_federation


def test_top_k_keeps_the_largest_entries_of_each_row():
    rows = torch.tensor([[1.0, -5.0, 2.0, 0.5], [0.0, 0.1, -0.2, 0.3]])
    kept = top_k(0.5).compress(rows)
    assert kept.tolist() == [[0.0, -5.0, 2.0, 0.0], [0.0, 0.0, pytest.approx(-0.2), pytest.approx(0.3)]]
    assert top_k(1e-9).compress(rows).count_nonzero(dim=1).tolist() == [1, 1]
    assert torch.equal(top_k(1.0).compress(rows), rows)


def test_top_k_counts_values_and_positions():
    assert top_k(0.1).size(1000, 4) == 100 * (4 + 4)
    assert top_k(0.1).size(1000, 8) == 100 * (8 + 4)
    assert IDENTITY.size(1000, 4) == 4000


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5, float("nan")])
def test_top_k_refuses_a_fraction_outside_its_range(fraction):
    with pytest.raises(UserError, match=r"fraction: must be in \(0, 1\]"):
        top_k(fraction)


def test_error_feedback_loses_nothing():
    """The part that arrived plus the part that the client keeps equals the whole update."""
    stepper = small_federation(Algorithm("x", uplink=top_k(0.2)))
    everyone = np.arange(6)
    before = stepper.client_state(RESIDUAL, everyone)
    assert not before.any()
    stepper.step()
    residual = stepper.client_state(RESIDUAL, everyone)
    arrived = stepper.session.start.params - stepper.update.params
    whole = small_federation(Algorithm("y"))
    whole.step()
    torch.testing.assert_close(arrived + residual, whole.session.start.params - whole.update.params)
    kept = int(np.ceil(0.2 * len(stepper.params)))
    assert arrived.count_nonzero(dim=1).tolist() == [kept] * 6


def test_error_feedback_reaches_a_loss_that_plain_top_k_does_not():
    """With one entry a round, feedback lowers the loss further in the same rounds."""
    losses = {}
    for feedback in (True, False):
        stepper = small_federation(Algorithm("x", uplink=top_k(0.07, error_feedback=feedback)), batch_size="full")
        stepper.step(60)
        losses[feedback] = float(np.average(stepper.update.train_loss, weights=stepper.update.num_examples))
    assert losses[True] < losses[False]


def test_record_has_the_bytes_of_the_uplink():
    lines = []
    for uplink in (IDENTITY, top_k(0.2)):
        stepper = small_federation(Algorithm("x", uplink=uplink))
        stepper.step()
        lines.append(stepper.result.line)
    p = len(stepper.params)
    assert lines[0]["bytes_up"] == 6 * 8 * p
    assert lines[1]["bytes_up"] == 6 * 12 * int(np.ceil(0.2 * p))
    assert lines[0]["bytes_down"] == lines[1]["bytes_down"]
