"""Which modules the kernel of convolutional networks covers, and what it says of others."""

import re

import pytest
import torch
from torch import nn

from clients.engines.native.choice import NO_KERNEL, kernel_of
from clients.engines.native.conv_form import Convolution, conv_form
from clients.modules.dropout import Dropout
from clients.training.options import LocalOptions
from clients.training.task import make_task


def task_of(population_of, *parts, shape=(2, 6, 6)):
    torch.manual_seed(0)
    return make_task(nn.Sequential(*parts), population_of([8, 8], shape), LocalOptions(), seed=0)


def test_form_has_the_sizes_of_each_part(population_of):
    task = task_of(
        population_of, nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()), nn.Identity(),
        nn.Conv2d(4, 5, (1, 3), stride=2, padding=(0, 1), bias=False), nn.Flatten(),
        nn.Linear(5 * 2 * 2, 7), nn.Tanh(), nn.Linear(7, 3, bias=False),
    )  # fmt: skip
    form, reason = conv_form(task)
    assert reason == ""
    assert form.shape == (2, 6, 6)
    assert form.convolutions == (
        Convolution(4, 3, 3, 1, 1, 1, 2, 2, relu=True, has_bias=True),
        Convolution(5, 1, 3, 2, 0, 1, 1, 1, relu=False, has_bias=False),
    )
    assert (form.widths, form.activations, form.biases) == ((20, 7, 3), ("tanh", None), (True, False))
    assert not form.mean
    assert not form.channels_last


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 3)], "covers no BatchNorm2d"),
        ([nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 3)], r"does not cover 1 \(Tanh\(\)\)"),
        ([nn.Conv2d(2, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, 3)], r"does not cover 0 \(Conv2d"),
        ([nn.Conv2d(2, 3, 3, dilation=2), nn.Flatten(), nn.Linear(12, 3)], r"does not cover 0 \(Conv2d"),
        ([nn.Conv2d(2, 3, 3, stride=(1, 2)), nn.Flatten(), nn.Linear(24, 3)], r"does not cover 0 \(Conv2d"),
        ([nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.Linear(108, 3)], "does not cover 0"),
        ([nn.Conv2d(2, 3, 3), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(3, 3)], r"does not cover 1 \(MaxPool2d"),
        ([nn.Conv2d(2, 3, 3), nn.MaxPool2d(2, 1), nn.Flatten(), nn.Linear(27, 3)], r"does not cover 1 \(MaxPool2d"),
        ([nn.Conv2d(2, 3, 2), nn.MaxPool2d(2, ceil_mode=True), nn.Flatten(), nn.Linear(27, 3)], "does not cover 1"),
        ([nn.MaxPool2d(2), nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3, 3)], r"does not cover 0 \(MaxPool2d"),
        ([nn.Conv2d(2, 3, 3), nn.MaxPool2d(2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, 3)], "does not cover 2"),
        ([nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 4), nn.Linear(4, 3)], r"does not cover 3 \(Linear"),
        ([nn.Conv2d(2, 3, 6), nn.Flatten(), nn.Linear(3, 3), nn.ReLU()], "that end in a linear layer"),
        ([nn.Conv2d(2, 3, 3), nn.ReLU(), Dropout(0.5), nn.Flatten(), nn.Linear(48, 3)], "it covers no dropout"),
        ([*[nn.Conv2d(2, 2, 1) for _ in range(17)], nn.Flatten(), nn.Linear(72, 3)], "16 convolutions and 16 linear"),
    ],
)
def test_other_networks_are_left_to_torch_with_a_reason(parts, words, population_of):
    task = task_of(population_of, *parts)
    form, reason = conv_form(task)
    assert form is None
    assert re.search(words, reason), reason
    assert kernel_of(task) == (None, reason)


def test_shared_frozen_and_hooked_parts_are_left_to_torch(population_of):
    twice = nn.Conv2d(2, 2, 1)
    hooked = nn.Conv2d(2, 2, 1)
    hooked.register_forward_hook(lambda *_: None)
    frozen = nn.Conv2d(2, 2, 1)
    frozen.weight.requires_grad_(False)
    for first in ([twice, twice], [hooked], [frozen]):
        task = task_of(population_of, *first, nn.Flatten(), nn.Linear(72, 3))
        assert conv_form(task)[0] is None
        assert kernel_of(task)[0] is None


def test_modules_without_convolutions_are_of_another_form(population_of):
    task = task_of(population_of, nn.Flatten(), nn.Linear(72, 4), nn.GELU(), nn.Linear(4, 3))
    assert conv_form(task) == (None, "")
    assert kernel_of(task) == (None, NO_KERNEL)
