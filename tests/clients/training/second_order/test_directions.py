"""Newton directions, secant pairs and the line search agree with linear algebra and with torch.optim.LBFGS."""

from itertools import pairwise

import pytest
import torch

from clients.training.second_order.directions import SecantPairs, newton_directions
from clients.training.second_order.line_search import UPHILL, backtracked

GENERATOR = torch.Generator().manual_seed(3)


def random(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def bowls(clients, size):
    root = random(clients, size, size)
    return root @ root.transpose(1, 2) + 0.1 * torch.eye(size, dtype=torch.float64)


def test_newton_direction_solves_the_linear_system():
    h, g = bowls(4, 6), random(4, 6)
    torch.testing.assert_close(torch.bmm(h, newton_directions(h, g)[:, :, None])[:, :, 0], -g, rtol=1e-9, atol=1e-9)


def test_newton_leaves_directions_without_curvature_alone():
    """Client 0 has a regular Hessian; that of client 1 is 0 along its last two eigenvectors, up to rounding."""
    h, g = bowls(2, 5), random(2, 5)
    values, vectors = torch.linalg.eigh(h[1])
    values[:2] = 0.0
    h[1] = vectors @ torch.diag(values) @ vectors.T
    found = newton_directions(h, g)
    torch.testing.assert_close(found[1], -torch.linalg.pinv(h[1], rtol=1e-10) @ g[1], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found[0], -torch.linalg.solve(h[0], g[0]))


def test_newton_direction_of_a_diverged_client_is_nan_and_others_keep_theirs():
    h, g = bowls(2, 3), random(2, 3)
    h[0, 0, 0] = torch.inf
    found = newton_directions(h, g)
    assert not found[0].isfinite().any()
    torch.testing.assert_close(found[1], -torch.linalg.solve(h[1], g[1]))


def dense_bfgs(steps, slopes):
    """Return the inverse Hessian that BFGS makes of all pairs, by its rank-two formula."""
    s, y = steps[-1], slopes[-1]
    eye = torch.eye(len(s), dtype=s.dtype)
    found = (s @ y) / (y @ y) * eye
    for s, y in zip(steps, slopes, strict=True):
        rho = 1 / (s @ y)
        left = eye - rho * torch.outer(s, y)
        found = left @ found @ left.T + rho * torch.outer(s, s)
    return found


@pytest.mark.parametrize("history", [3, 20])
def test_two_loop_recursion_is_bfgs_of_the_last_pairs(history):
    clients, size, h = 3, 6, bowls(3, 6)
    pairs = SecantPairs(clients, history, h.new_zeros(size))
    places = [random(clients, size) for _ in range(8)]
    slopes = [torch.einsum("kij,kj->ki", h, w) for w in places]
    for w, g in zip(places, slopes, strict=True):
        pairs.add(w, g)
    found = pairs.directions(slopes[-1])
    for k in range(clients):
        s = [(b - a)[k] for a, b in pairwise(places)][-history:]
        y = [(b - a)[k] for a, b in pairwise(slopes)][-history:]
        torch.testing.assert_close(found[k], -dense_bfgs(s, y) @ slopes[-1][k], rtol=1e-9, atol=1e-9)


def test_pair_without_positive_curvature_is_left_out_of_one_client():
    size = 4
    pairs, alone = SecantPairs(2, 5, random(size)), SecantPairs(1, 5, random(size))
    w, g = [random(2, size) for _ in range(3)], [random(2, size) for _ in range(3)]
    g[1][0], g[2][0] = g[0][0] + (w[1] - w[0])[0], g[0][0] + (w[1] - w[0])[0] - (w[2] - w[1])[0]  # then downwards
    for i in range(3):
        pairs.add(w[i], g[i])
    for i in range(2):
        alone.add(w[i][:1], g[i][:1])
    torch.testing.assert_close(pairs.directions(g[2])[0], alone.directions(g[2][:1])[0])


def test_steps_equal_those_of_torch_lbfgs():
    """On log-sum-exp, which is no quadratic, for more steps than the history holds."""
    rows, start, lr, history = random(12, 5), random(5), 0.6, 4

    def loss(w):
        return torch.logsumexp(rows @ w, 0) + 0.05 * w.square().sum()

    theirs = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([theirs], lr=lr, max_iter=1, history_size=history)

    def closure():
        optimizer.zero_grad()
        value = loss(theirs)
        value.backward()
        return value

    ours, pairs = start[None].clone(), SecantPairs(1, history, start)
    for step in range(9):
        optimizer.step(closure)
        gradient = torch.func.grad(loss)(ours[0])[None]
        pairs.add(ours, gradient)
        lengths = lr * pairs.first_lengths(gradient)
        ours = ours + lengths[:, None] * pairs.directions(gradient)
        torch.testing.assert_close(ours[0], theirs.detach(), rtol=1e-10, atol=1e-12, msg=f"step {step}")


def test_backtracking_halves_until_the_end_is_not_uphill():
    """f = |w - 1|^2 / 2 from 0 along 1: the slope at t is t - 1, so a tenth uphill is reached below t = 1.1."""
    w, d = torch.zeros(4, 1), torch.ones(4, 1)
    found = backtracked(lambda at: at - 1.0, w, d, w - 1.0, torch.tensor([1.0, 1.05, 3.0, 40.0]))
    torch.testing.assert_close(found, torch.tensor([1.0, 1.05, 0.75, 0.625]))
    assert pytest.approx(0.1) == UPHILL


def test_backtracking_comes_back_from_infinity():
    found = backtracked(lambda at: at.exp() - 2.0, torch.zeros(1, 1), torch.full((1, 1), 1e4), torch.full((1, 1), -1.0),
                        torch.ones(1))  # fmt: skip
    assert 0.0 < found.item() * 1e4 < 0.75
