"""Server transforms agree with one and two steps by hand from the papers' formulas."""

import math
from dataclasses import replace

import pytest
import torch

from clients.core import streams
from clients.core.errors import UserError
from server.algorithms import transforms
from server.algorithms.state import ServerState
from server.algorithms.transforms import Aggregate

W = torch.tensor([1.0, -2.0], dtype=torch.float64)


def aggregate(*g, share=1.0, **extras):
    vectors = {n: torch.tensor(v, dtype=torch.float64) for n, v in extras.items()}
    return Aggregate(torch.tensor(g, dtype=torch.float64), vectors, share)


def play(transform, *aggregates):
    state = ServerState(0, W, torch.zeros(0), transform.init(W))
    for a in aggregates:
        state = transform.step(state, a)
    assert state.round_index == len(aggregates)
    return state.params.tolist(), {n: v.tolist() for n, v in state.vectors.items()}


def test_descent_subtracts_the_aggregate():
    assert play(transforms.sgd(0.5), aggregate(2.0, -4.0)) == ([0.0, 0.0], {})


def test_nesterov_momentum_steps_by_the_gradient_and_the_velocity_ahead():
    """v = 2, 2 (first coordinate) and 0, 4; steps of 0.1 (g + 0.5 v) are 0.3, 0.2 and 0, 0.6."""
    w, vectors = play(transforms.momentum(0.1, 0.5, nesterov=True), aggregate(2.0, 0.0), aggregate(1.0, 4.0))
    assert w == pytest.approx([0.5, -2.6])
    assert vectors == {"momentum": [2.0, 4.0]}


def test_momentum_adds_velocities():
    """v = 0.5 v + g, w - 0.1 v: v = 2, 1 + 1 = 2; w = 1 - 0.2 - 0.2."""
    w, vectors = play(transforms.momentum(0.1, 0.5), aggregate(2.0, 0.0), aggregate(1.0, 4.0))
    assert w == pytest.approx([0.6, -2.4])
    assert vectors == {"momentum": [2.0, 4.0]}


TAU, LR, B1, B2 = 0.5, 0.1, 0.9, 0.99
ADAPTIVE = {
    "adagrad": transforms.adagrad(LR, B1, TAU),
    "yogi": transforms.yogi(LR, B1, B2, TAU),
    "adam": transforms.adam(LR, B1, B2, TAU),
}


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
def test_first_adaptive_step_matches_hand_computation(kind):
    second, expected = FIRST_STEPS[kind]
    w, vectors = play(ADAPTIVE[kind], aggregate(2.0, 0.0))
    assert w == pytest.approx([expected, -2.0], rel=1e-14)
    assert vectors["first_moment"] == pytest.approx([0.2, 0.0])
    assert vectors["second_moment"][0] == pytest.approx(second)


@pytest.mark.parametrize("kind", FIRST_STEPS)
def test_adaptive_steps_match_their_recursion(kind):
    """Yogi's second moment falls by (1 - beta2) g^2 where g^2 < v, and not in proportion to v."""
    gradients = (2.0, -1.0, 0.1, 0.0)
    w, vectors = play(ADAPTIVE[kind], *(aggregate(g, g) for g in gradients))
    expected = moments(kind, gradients)
    assert (w[0], vectors["first_moment"][0], vectors["second_moment"][0]) == pytest.approx(expected, rel=1e-13)


def test_second_moments_start_at_tau_squared():
    for kind in FIRST_STEPS:
        assert ADAPTIVE[kind].init(W)["second_moment"].tolist() == [0.25, 0.25]


def test_yogi_second_moment_falls_by_the_squared_gradient():
    (_, adam), (_, yogi) = (play(ADAPTIVE[k], aggregate(0.1, 0.1)) for k in ("adam", "yogi"))
    assert adam["second_moment"][0] == pytest.approx(0.99 * 0.25 + 0.01 * 0.01)
    assert yogi["second_moment"][0] == pytest.approx(0.25 - 0.01 * 0.01)


def test_scaffold_server_moves_model_and_control_variate():
    """w - server_lr g; c grows by |S|/N times the mean change of the clients' variates."""
    transform = transforms.control_variate(0.5)
    w, vectors = play(transform, aggregate(2.0, 0.0, share=0.25, variate_change=[4.0, -8.0]))
    assert w == [0.0, -2.0]
    assert vectors == {"server_variate": [1.0, -2.0]}
    _, vectors = play(transform, *[aggregate(0.0, 0.0, share=0.5, variate_change=[1.0, 1.0])] * 3)
    assert vectors == {"server_variate": [1.5, 1.5]}


def test_feddyn_server_moves_model_and_server_gradient():
    """h + alpha |S|/N g, then w - g - h / alpha: h = 0.5 x 0.5 x 2 = 0.5, w = 1 - 2 - 1; then h = 1, w = -2 - 2 - 2."""
    transform = transforms.dynamic(0.5)
    a = aggregate(2.0, 0.0, share=0.5)
    assert play(transform, a) == ([-2.0, -2.0], {"server_gradient": [0.5, 0.0]})
    assert play(transform, a, a) == ([-6.0, -2.0], {"server_gradient": [1.0, 0.0]})


@pytest.mark.parametrize("transform", [
    transforms.sgd(1.0), transforms.momentum(1.0, 0.9), transforms.adam(0.1),
    transforms.control_variate(1.0), transforms.dynamic(0.1),
])  # fmt: skip
def test_transforms_do_not_write_to_their_inputs(transform):
    state = ServerState(3, W, torch.zeros(0), transform.init(W))
    before = {n: v.clone() for n, v in state.vectors.items()}
    a = aggregate(1.0, 1.0, variate_change=[1.0, 1.0])
    new = transform.step(state, a)
    assert W.tolist() == [1.0, -2.0]
    assert a.pseudo_gradient.tolist() == [1.0, 1.0]
    assert all(torch.equal(state.vectors[n], before[n]) for n in before)
    assert new.params.data_ptr() != W.data_ptr()


def test_clip_norm_scales_down_and_never_up():
    """|(3, 4)| = 5 is scaled to 1; (0.3, 0.4) stays."""
    clip = transforms.clip_norm(1.0)
    assert play(clip, aggregate(3.0, 4.0))[0] == pytest.approx([1 - 0.6, -2 - 0.8])
    assert play(clip, aggregate(0.3, 0.4))[0] == pytest.approx([0.7, -2.4])
    assert play(clip, aggregate(0.0, 0.0))[0] == [1.0, -2.0]


def test_chain_feeds_each_transform_with_the_one_before():
    """Clip first: (0.6, 0.8), and momentum steps by 0.5 of it. Momentum first: its step is clipped."""
    clip, momentum = transforms.clip_norm(1.0), transforms.momentum(0.5, 0.9)
    w, vectors = play(transforms.chain(clip, momentum), aggregate(3.0, 4.0))
    assert w == pytest.approx([1 - 0.3, -2 - 0.4])
    assert vectors["momentum"] == pytest.approx([0.6, 0.8])
    w, vectors = play(transforms.chain(momentum, clip), aggregate(3.0, 4.0))
    assert w == pytest.approx([1 - 0.6, -2 - 0.8])
    assert vectors["momentum"] == [3.0, 4.0]


def test_chain_of_one_equals_that_transform():
    for transform in (transforms.sgd(0.5), ADAPTIVE["yogi"], transforms.dynamic(0.5)):
        a = aggregate(2.0, -1.0, share=0.5)
        assert play(transforms.chain(transform), a, a) == play(transform, a, a)


def test_chain_refuses_two_vectors_of_one_name():
    both = transforms.chain(transforms.momentum(1.0, 0.9), transforms.momentum(1.0, 0.5))
    with pytest.raises(UserError, match="two transforms that keep a vector 'momentum'"):
        both.init(W)


def test_chain_refuses_a_transform_with_apply_before_its_end():
    with pytest.raises(UserError, match=r"'dynamic 0\.5' before its end"):
        transforms.chain(transforms.dynamic(0.5), transforms.sgd(1.0))


def test_transform_reads_round_and_key():
    """Noise is addressed by (seed, round): the same round repeats it, another round or seed changes it."""

    def update(a, vectors, context):
        noise = torch.from_numpy(streams.normals(context.key, 2))
        return replace(a, pseudo_gradient=noise * context.round_index), vectors

    noisy = transforms.ServerTransform("noisy", update)
    start = ServerState(0, W, torch.zeros(0))
    first = noisy.step(start, aggregate(0.0, 0.0), seed=1)
    assert torch.equal(first.params, noisy.step(start, aggregate(0.0, 0.0), seed=1).params)
    assert not torch.equal(first.params, noisy.step(start, aggregate(0.0, 0.0), seed=2).params)
    again = noisy.step(first, aggregate(0.0, 0.0), seed=1)
    assert not torch.allclose(2 * (first.params - W), again.params - first.params)


@pytest.mark.parametrize("size", [1e-6, 0.05, 0.1, 0.5, 3.0])
def test_clipped_step_is_as_long_as_the_shorter_of_both(size):
    w, _ = play(transforms.clip_norm(0.1), aggregate(0.6 * size, 0.8 * size))
    step = min(size, 0.1)
    assert [1 - w[0], -2 - w[1]] == pytest.approx([0.6 * step, 0.8 * step], rel=1e-9)
    for norm in (0.0, -1.0):
        with pytest.raises(UserError, match="norm: must be > 0"):
            transforms.clip_norm(norm)


def test_names_say_what_a_chain_does():
    made = transforms.chain(transforms.clip_norm(0.5), transforms.momentum(0.25, 0.9), transforms.adam(0.01))
    assert made.name == "clip_norm 0.5, momentum 0.25, adam 0.01"
    others = [transforms.sgd(2.0), transforms.yogi(0.5), transforms.adagrad(), transforms.control_variate(1.5),
              transforms.dynamic(0.1)]  # fmt: skip
    assert [one.name for one in others] == ["sgd 2", "yogi 0.5", "adagrad 0.1", "control variate 1.5", "dynamic 0.1"]


def test_chain_of_nothing_subtracts_the_aggregate():
    nothing = transforms.chain()
    assert nothing.name == "chain"
    assert play(nothing, aggregate(0.5, -1.0)) == ([0.5, -1.0], {})


def test_chain_refuses_a_function_that_was_not_called():
    with pytest.raises(UserError, match=r"chain\[1\].*Call it with its numbers, such as fs.clip_norm\(1.0\)"):
        transforms.chain(transforms.sgd(), transforms.clip_norm)


def noise(name):
    def update(a, vectors, context):
        drawn = torch.from_numpy(streams.normals(context.key, 2))
        return replace(a, pseudo_gradient=a.pseudo_gradient + drawn), {name: drawn}

    return transforms.ServerTransform(name, update, lambda w: {name: torch.zeros(2).double()})


def test_each_place_of_a_chain_has_its_own_numbers_from_seed_and_round():
    """Seed 0 unless given; rounds count from the state's next; a nested chain's places follow its own."""
    nested = transforms.chain(noise("a"), transforms.chain(noise("b"), noise("c")))
    for seed, given in ((0, {}), (0, {"seed": 0}), (4, {"seed": 4})):
        state = ServerState(6, W, torch.zeros(0), nested.init(W))
        found = nested.step(state, aggregate(1.0, 1.0), **given)
        total = torch.ones(2).double()
        for name, place in (("a", "/0"), ("b", "/1/0"), ("c", "/1/1")):
            drawn = torch.from_numpy(streams.normals(streams.keys(seed, f"server_transform{place}", 7), 2))
            assert torch.equal(found.vectors[name], drawn)
            total += drawn
        torch.testing.assert_close(found.params, W - total, rtol=1e-14, atol=1e-14)
        assert found.round_index == 7


def test_defaults_are_as_documented():
    pairs = [(transforms.sgd(), transforms.sgd(1.0)), (transforms.adam(), transforms.adam(0.01, 0.9, 0.99, 1e-3)),
             (transforms.yogi(), transforms.yogi(0.01, 0.9, 0.99, 1e-3)),
             (transforms.adagrad(), transforms.adagrad(0.1, 0.0, 1e-3))]  # fmt: skip
    for default, given in pairs:
        assert play(default, aggregate(2.0, 0.001), aggregate(-1.0, 0.3)) == play(
            given, aggregate(2.0, 0.001), aggregate(-1.0, 0.3)
        )
