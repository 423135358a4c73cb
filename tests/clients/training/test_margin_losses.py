"""Losses of the margin, their derivatives, and what refuses them."""

import pytest
import torch

from clients.core.errors import UserError
from clients.models.build import build_model
from clients.models.options import SoftmaxOptions
from clients.training.losses import MARGIN_LOSSES, example_losses, margin_error, margin_losses, margins, trained_losses
from clients.training.options import LocalOptions
from clients.training.task import make_task


def test_margin_is_the_lead_over_the_best_rival():
    outputs = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0], [0.5, 0.5, 0.5]])
    found, rivals = margins(outputs, torch.tensor([1, 0, 0]))
    assert found.tolist() == [1.0, -2.0, 0.0]
    assert rivals.tolist() == [2, 1, 1]


@pytest.mark.parametrize(("loss", "expected"), [("hinge", 2.5), ("squared_hinge", 6.25), ("perceptron", 1.5)])
def test_losses_match_their_formulas(loss, expected):
    outputs, targets = torch.tensor([[0.0, 1.5], [0.0, 1.5]]), torch.tensor([0, 1])
    assert margin_losses(outputs, targets, loss).tolist() == [expected, 0.0]
    assert example_losses(outputs, targets, "classification", loss).tolist() == [expected, 0.0]
    scales = {"scales": torch.tensor([2.0, 1.0])}
    assert trained_losses(outputs, targets, "classification", 0.0, scales, loss).tolist() == [2 * expected, 0.0]


@pytest.mark.parametrize("loss", MARGIN_LOSSES)
def test_derivative_is_autograds(loss):
    outputs = torch.randn(3, 20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    outputs[0, 0] = 0.0  # ties count as mistakes
    outputs.requires_grad_()
    targets = torch.arange(60).reshape(3, 20) % 4
    losses = margin_losses(outputs, targets, loss)
    (expected,) = torch.autograd.grad(losses.sum(), outputs)
    found, d = margin_error(outputs.detach(), targets, loss)
    assert torch.equal(found, losses.detach())
    torch.testing.assert_close(d, expected)
    assert d[0, 0].any()


def test_margin_losses_need_classes_and_no_focal_exponent(population_of):
    numbers = population_of([3], (6,), 2, "regression")
    module = torch.nn.Linear(6, 2)
    with pytest.raises(UserError, match=r"local\.loss: is 'hinge', which needs class labels"):
        make_task(module, numbers, LocalOptions(loss="hinge"), seed=0)
    classes = population_of([3], (6,), 3)
    with pytest.raises(UserError, match=r"local\.focal_gamma: is 2.0, and the loss is 'perceptron': only"):
        make_task(build_model(SoftmaxOptions(), classes, 0), classes, LocalOptions(loss="perceptron", focal_gamma=2.0),
                  seed=0)  # fmt: skip
