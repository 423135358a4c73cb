"""Measures along a local path against sums by hand."""

import numpy as np
import pytest
import torch

from clients.training.path_measures import PathMeter, is_measured, squared_norms


def test_measured_steps_are_powers_of_two():
    assert [s for s in range(1, 70) if is_measured(s)] == [1, 2, 4, 8, 16, 32, 64]


def test_squared_norms_run_over_all_tensors():
    tensors = {"w": torch.tensor([[[1.0, 2.0]], [[0.0, 3.0]]]), "b": torch.tensor([2.0, 1.0])}
    assert squared_norms(tensors).tolist() == [pytest.approx(9.0), pytest.approx(10.0)]


def test_drift_is_the_mean_height_of_the_trapezoids():
    meter = PathMeter(3)
    meter.gradient(torch.tensor([4.0, 9.0, 1.0]))
    meter.position(1, torch.tensor([2.0, 4.0, 6.0]))
    meter.gradient(torch.tensor([16.0, 1.0]))
    meter.position(2, torch.tensor([6.0, 8.0]))  # the third client has finished
    meter.position(np.array([5, 2, 1]), torch.tensor([10.0, 8.0, 6.0]))
    first = (0 + 2) / 2 + (2 + 6) / 2 + 3 * (6 + 10) / 2
    second = (0 + 4) / 2 + (4 + 8) / 2
    assert meter.drift().tolist() == pytest.approx([first / 5, second / 2, 3.0])
    assert meter.gradient_norm().tolist() == pytest.approx([4.0, 3.0, 1.0])


def test_client_without_steps_has_no_drift():
    assert PathMeter(2).drift().tolist() == [0.0, 0.0]


def test_straight_path_at_constant_speed_has_its_closed_form():
    """Distance s after s steps: the mean of s squared over [0, S] is at most the trapezoid, and close to it."""
    meter, total = PathMeter(1), 64
    for s in range(1, total + 1):
        if is_measured(s) or s == total:
            meter.position(s, torch.tensor([float(s * s)]))
    assert total**2 / 3 <= float(meter.drift()[0]) < 1.25 * total**2 / 3
