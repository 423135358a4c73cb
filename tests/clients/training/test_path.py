"""Measures along a local path against sums by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clients.core.numbers.norms import LONG
from clients.core.parameters import Layout
from clients.training.path_measures import (
    MeasuredPaths,
    PathMeter,
    distances,
    is_measured,
    is_placed,
    measured_steps,
    placed_steps,
    squared_norms,
)


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


def test_distances_of_long_vectors_are_right_to_six_digits():
    draw = torch.Generator().manual_seed(3)
    start = {"w": torch.randn(LONG, generator=draw), "b": torch.randn(3, generator=draw)}
    params = {name: torch.randn(2, len(tensor), generator=draw) for name, tensor in start.items()}
    layout = Layout.of(start)
    found = distances(params, layout, layout.flatten(start))
    apart = torch.cat([params[name].double() - start[name].double() for name in start], 1)
    exact = torch.linalg.vector_norm(apart, dim=1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0.0)


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


@pytest.mark.parametrize("steps", [1, np.array([1, 1]), np.array([3, 3])])
def test_path_that_leaves_the_numbers_has_no_finite_drift_and_no_warning(steps):
    meter = PathMeter(2)
    meter.position(steps, torch.tensor([math.inf, 2.0], dtype=torch.float64))
    first, second = meter.drift()
    assert first == math.inf
    assert second == pytest.approx(4.0 if np.max(steps) == 1 else (0.5 * 2 * 4 + 4) / 3)
    large = PathMeter(1)
    for step in (1, 20):
        large.position(step, torch.tensor([1.2e154], dtype=torch.float64))  # squares of which two exceed float64
    assert large.drift().tolist() == [math.inf]
    large = PathMeter(1)
    large.position(1, torch.tensor([1e200], dtype=torch.float64))
    assert large.drift().tolist() == [math.inf]


def test_position_at_the_last_step_counts_once():
    meter = PathMeter(2)
    for steps in (1, np.array([1, 1]), 2, np.array([2, 2])):
        meter.position(steps, torch.tensor([3.0, 1.0]))
    assert meter.drift().tolist() == [9.0, 1.0]


def test_largest_gradient_norm_starts_at_zero_and_keeps_its_client():
    meter = PathMeter(3)
    assert meter.gradient_norm().tolist() == [0.0, 0.0, 0.0]
    meter.gradient(torch.tensor([0.25, 4.0]))
    meter.gradient(torch.tensor([1.0]))
    assert meter.gradient_norm().tolist() == [1.0, 2.0, 0.0]


def test_squared_norms_of_scalars_and_of_one_tensor():
    found = squared_norms({"w": torch.tensor([2.0, -3.0]), "v": torch.tensor([[1.0, 1.0], [0.0, 2.0]])})
    assert found.tolist() == pytest.approx([6.0, 13.0])
    assert found.dtype == torch.float64
    assert squared_norms({"w": torch.tensor([2.0])}).tolist() == [4.0]


@given(
    steps=st.lists(st.integers(0, 150), min_size=1, max_size=6),
    seed=st.integers(0, 2**32),
    broken=st.sampled_from([0.5, math.inf, math.nan]),
)
def test_measures_of_whole_paths_have_the_bits_of_a_meters(steps, seed, broken):
    random = np.random.default_rng(seed)
    taken = np.sort(np.array(steps))[::-1].copy()
    last = int(taken[0])
    measured, placed = (np.array(found(last), np.int64)[:, None] for found in (measured_steps, placed_steps))
    norms = np.where(measured <= taken, random.random((len(measured), len(taken))), 0.0)
    away = np.where(placed <= taken, 10.0 * random.random((len(placed), len(taken))), 0.0)
    away[:1, 0] *= broken
    ends = 10.0 * random.random(len(taken))
    for k, step in enumerate(taken):
        if is_placed(int(step)) and step:
            ends[k] = away[placed[:, 0] == step, k][0]
    meter = PathMeter(len(taken))
    for step, row in zip(measured[:, 0].tolist(), norms, strict=True):
        meter.gradient(torch.from_numpy(row[taken >= step]))
    for step, row in zip(placed[:, 0].tolist(), away, strict=True):
        meter.position(step, torch.from_numpy(row[taken >= step]))
    meter.position(taken, torch.from_numpy(ends))
    found = MeasuredPaths(taken, norms, away, ends)
    assert found.drift().tobytes() == meter.drift().tobytes()
    assert found.gradient_norm().tobytes() == meter.gradient_norm().tobytes()


def test_drift_of_a_whole_path_is_the_mean_over_steps_of_the_interpolated_squares():
    distances = np.array([[1.0, 2.0], [2.0, 0.0]])
    found = MeasuredPaths(np.array([2, 1]), np.array([[4.0, 9.0], [16.0, 0.0]]), distances, np.array([2.0, 2.0]))
    assert found.drift().tolist() == [2.5, 4.0]
    assert found.gradient_norm().tolist() == [4.0, 3.0]
    straight = np.array([float(s) for s in placed_steps(40)])[:, None]
    long = MeasuredPaths(np.array([40]), np.zeros((6, 1)), straight, np.array([40.0]))
    below = sum(s * s for s in range(1, 17)) + sum(256 + (1024 - 256) * (s - 16) / 16 for s in range(17, 33))
    by_hand = below + sum(1024 + (1600 - 1024) * (s - 32) / 8 for s in range(33, 41))
    assert long.drift().tolist() == pytest.approx([by_hand / 40])
