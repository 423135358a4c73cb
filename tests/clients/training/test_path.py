"""Measures along a local path against sums by hand."""

import numpy as np
import pytest
import torch

from clients.core.parameters import Layout
from clients.training.path_measures import PathMeter, distances, is_measured, is_placed, squared_norms


def test_measured_steps_are_powers_of_two():
    assert [s for s in range(1, 70) if is_measured(s)] == [1, 2, 4, 8, 16, 32, 64]


def test_squared_norms_run_over_all_tensors():
    tensors = {"w": torch.tensor([[[1.0, 2.0]], [[0.0, 3.0]]]), "b": torch.tensor([2.0, 1.0])}
    assert squared_norms(tensors).tolist() == [pytest.approx(9.0), pytest.approx(10.0)]


def test_distances_are_measured_at_each_of_the_first_sixteen_steps():
    assert [s for s in range(1, 130) if is_placed(s)] == [*range(1, 17), 32, 64, 128]


def test_distances_run_over_all_tensors():
    start = {"w": torch.tensor([1.0, 1.0]), "b": torch.tensor(0.0)}
    layout = Layout.of(start)
    params = {"w": torch.tensor([[1.0, 3.0], [4.0, 1.0]]), "b": torch.tensor([1.0, -4.0])}
    found = distances(params, layout, layout.flatten(start))
    assert found.tolist() == pytest.approx([5**0.5, 5.0])


def test_drift_is_the_mean_over_steps_of_the_interpolated_squares():
    meter = PathMeter(3)
    meter.gradient(torch.tensor([4.0, 9.0, 1.0]))
    meter.position(1, torch.tensor([1.0, 2.0, 3.0]))
    meter.gradient(torch.tensor([16.0, 1.0]))
    meter.position(2, torch.tensor([2.0, 3.0]))  # the third client has finished
    meter.position(np.array([5, 2, 1]), torch.tensor([5.0, 3.0, 3.0]))
    first = 1 + 4 + (11 + 18 + 25)  # 4 at step 2, 25 at step 5, on a line between
    assert meter.drift().tolist() == pytest.approx([first / 5, (4 + 9) / 2, 9.0])
    assert meter.gradient_norm().tolist() == pytest.approx([4.0, 3.0, 1.0])


def test_client_without_steps_has_no_drift():
    assert PathMeter(2).drift().tolist() == [0.0, 0.0]


@pytest.mark.parametrize("total", [*range(1, 70), 100, 128, 1000])
def test_straight_path_at_constant_speed_is_exact_up_to_sixteen_steps_and_close_beyond(total):
    """Distance s after s steps: d_s = s^2, whose mean is (S + 1) (2 S + 1) / 6, and whose interpolation lies above."""
    meter = PathMeter(1)
    for s in range(1, total + 1):
        if is_placed(s) or s == total:
            meter.position(s, torch.tensor([float(s)]))
    mean, found = (total + 1) * (2 * total + 1) / 6, float(meter.drift()[0])
    if total <= 17:  # a last step next to a measured one leaves nothing to interpolate
        assert found == pytest.approx(mean, rel=1e-14)
    else:
        assert mean < found < mean * (1 + 1 / 14)
