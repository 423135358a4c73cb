"""Server transforms: one and two steps by hand, from the papers' formulas. A pseudo-gradient is subtracted."""

import math

import pytest
import torch

from server.algorithms import transforms
from server.algorithms.transforms import Aggregate

W = torch.tensor([1.0, -2.0], dtype=torch.float64)


def aggregate(*g, share=1.0, **extras):
    vectors = {n: torch.tensor(v, dtype=torch.float64) for n, v in extras.items()}
    return Aggregate(torch.tensor(g, dtype=torch.float64), vectors, share)


def play(transform, *aggregates):
    w, vectors = W, transform.vectors(W)
    for a in aggregates:
        w, vectors = transform.step(w, vectors, a)
    return w.tolist(), {n: v.tolist() for n, v in vectors.items()}


def test_descent():
    assert play(transforms.descent(0.5), aggregate(2.0, -4.0)) == ([0.0, 0.0], {})


def test_momentum():
    """v = 0.5 v + g, w - 0.1 v: v = 2, 1 + 1 = 2; w = 1 - 0.2 - 0.2."""
    w, vectors = play(transforms.momentum(0.1, 0.5), aggregate(2.0, 0.0), aggregate(1.0, 4.0))
    assert w == pytest.approx([0.6, -2.4])
    assert vectors == {"momentum": [2.0, 4.0]}


TAU, LR, B1, B2 = 0.5, 0.1, 0.9, 0.99


def moments(kind, gradients):
    """Reddi et al. 2021, algorithm 2, on one number from w = 1: v_-1 = tau^2, no bias correction."""
    w, m, v = 1.0, 0.0, TAU**2
    for g in gradients:
        m = B1 * m + (1 - B1) * g
        v = {
            "adagrad": v + g * g,
            "yogi": v - (1 - B2) * g * g * math.copysign(1.0, v - g * g),
            "adam": B2 * v + (1 - B2) * g * g,
        }[kind]
        w -= LR * m / (math.sqrt(v) + TAU)
    return w, m, v


FIRST_STEPS = {
    # m = 0.2; v = .25 + 4, .25 + .01 x 4 and .99 x .25 + .01 x 4.
    "adagrad": (4.25, 1 - 0.02 / (math.sqrt(4.25) + 0.5)),
    "yogi": (0.29, 1 - 0.02 / (math.sqrt(0.29) + 0.5)),
    "adam": (0.2875, 1 - 0.02 / (math.sqrt(0.2875) + 0.5)),
}


@pytest.mark.parametrize("kind", FIRST_STEPS)
def test_the_first_adaptive_step_by_hand(kind):
    second, expected = FIRST_STEPS[kind]
    w, vectors = play(transforms.adaptive(kind, LR, B1, B2, TAU), aggregate(2.0, 0.0))
    assert w == pytest.approx([expected, -2.0], rel=1e-14)
    assert vectors["first_moment"] == pytest.approx([0.2, 0.0])
    assert vectors["second_moment"][0] == pytest.approx(second)


@pytest.mark.parametrize("kind", FIRST_STEPS)
def test_several_adaptive_steps(kind):
    """Yogi's second moment falls by (1 - beta2) g^2 where g^2 < v, and not in proportion to v."""
    gradients = (2.0, -1.0, 0.1, 0.0)
    w, vectors = play(transforms.adaptive(kind, LR, B1, B2, TAU), *(aggregate(g, g) for g in gradients))
    expected = moments(kind, gradients)
    assert (w[0], vectors["first_moment"][0], vectors["second_moment"][0]) == pytest.approx(expected, rel=1e-13)


def test_second_moments_start_at_tau_squared():
    for kind in FIRST_STEPS:
        assert transforms.adaptive(kind, LR, B1, B2, TAU).vectors(W)["second_moment"].tolist() == [0.25, 0.25]


def test_yogi_falls_where_adam_forgets():
    (_, adam), (_, yogi) = (
        play(transforms.adaptive(k, LR, B1, B2, TAU), aggregate(0.1, 0.1)) for k in ("adam", "yogi")
    )
    assert adam["second_moment"][0] == pytest.approx(0.99 * 0.25 + 0.01 * 0.01)
    assert yogi["second_moment"][0] == pytest.approx(0.25 - 0.01 * 0.01)


def test_scaffolds_server():
    """w - server_lr g; c grows by |S|/N times the mean change of the clients' variates."""
    transform = transforms.control_variate(0.5)
    w, vectors = play(transform, aggregate(2.0, 0.0, share=0.25, variate_change=[4.0, -8.0]))
    assert w == [0.0, -2.0]
    assert vectors == {"server_variate": [1.0, -2.0]}
    _, vectors = play(transform, *[aggregate(0.0, 0.0, share=0.5, variate_change=[1.0, 1.0])] * 3)
    assert vectors == {"server_variate": [1.5, 1.5]}


def test_feddyns_server():
    """h + alpha |S|/N g, then w - g - h / alpha: h = 0.5 x 0.5 x 2 = 0.5, w = 1 - 2 - 1; then h = 1, w = -2 - 2 - 2."""
    transform = transforms.dynamic(0.5)
    a = aggregate(2.0, 0.0, share=0.5)
    assert play(transform, a) == ([-2.0, -2.0], {"server_gradient": [0.5, 0.0]})
    assert play(transform, a, a) == ([-6.0, -2.0], {"server_gradient": [1.0, 0.0]})


@pytest.mark.parametrize("transform", [
    transforms.descent(1.0), transforms.momentum(1.0, 0.9), transforms.adaptive("adam", 0.1, 0.9, 0.99, 1e-3),
    transforms.control_variate(1.0), transforms.dynamic(0.1),
])  # fmt: skip
def test_inputs_are_not_written_to(transform):
    vectors = transform.vectors(W)
    before = {n: v.clone() for n, v in vectors.items()}
    a = aggregate(1.0, 1.0, variate_change=[1.0, 1.0])
    new, _ = transform.step(W, vectors, a)
    assert W.tolist() == [1.0, -2.0]
    assert a.pseudo_gradient.tolist() == [1.0, 1.0]
    assert all(torch.equal(vectors[n], before[n]) for n in before)
    assert new.data_ptr() != W.data_ptr()
