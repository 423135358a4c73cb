"""What is refused or stated about a user's module before any engine runs it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clients.core.errors import UserError
from clients.core.population import Population
from clients.models.build import build_model
from clients.models.options import CnnOptions, SmallCnnOptions
from clients.sources.custom import custom_population
from clients.training.options import LocalOptions
from clients.training.task import LearningTask, make_task


def population(shape: tuple[int, ...] = (4,)) -> Population:
    def client(k: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(k)
        return torch.randn(6, *shape, generator=generator), torch.arange(6) % 2

    return custom_population(client, [6, 6], outputs=2)


def task(module: nn.Module, dtype: torch.dtype = torch.float32) -> LearningTask:
    return make_task(module, population(), LocalOptions(), seed=1, dtype=dtype)


def test_hooks_on_gradients_of_parameters_are_refused():
    for attach in ("register_hook", "register_post_accumulate_grad_hook"):
        net = nn.Linear(4, 2)
        getattr(net.weight, attach)(lambda gradient: None)
        with pytest.raises(UserError, match=r"hooks on the gradients of parameters \(weight\)"):
            task(net)


def test_a_hook_on_a_module_is_kept():
    net = nn.Sequential(nn.Linear(4, 2))
    net[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    assert task(net).notices == ()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torch_script_is_refused_with_what_to_pass():
    with pytest.raises(UserError, match=r"TorchScript .*Pass the torch.nn.Module"):
        task(torch.jit.trace(nn.Linear(4, 2), torch.zeros(1, 4)))  # type: ignore[no-untyped-call]


class InPlace(nn.Module):
    def __init__(self, only_training: bool) -> None:
        super().__init__()
        self.layer, self.only_training = nn.Linear(4, 2), only_training

    def forward(self, x: Tensor) -> Tensor:
        if self.training or not self.only_training:
            x -= 1.0
        return self.layer(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("only_training", [True, False])
def test_model_that_changes_its_input_is_refused(only_training: bool):
    with pytest.raises(UserError, match=r"changes its input in place. Write x = x - 1"):
        task(InPlace(only_training))


class Probabilities(nn.Module):
    def __init__(self, logarithm: bool) -> None:
        super().__init__()
        self.layer, self.logarithm = nn.Linear(4, 2), logarithm

    def forward(self, x: Tensor) -> Tensor:
        function = F.log_softmax if self.logarithm else F.softmax
        return function(self.layer(x), dim=1)


def test_outputs_that_look_like_probabilities_are_stated():
    (notice,) = task(Probabilities(logarithm=False)).notices
    assert "look like probabilities" in notice
    assert task(Probabilities(logarithm=True)).notices == ()


class OwnType(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.float())  # type: ignore[no-any-return]


def test_a_type_that_forward_names_is_reported_with_the_type_of_the_run():
    with pytest.raises(UserError, match=r"The run computes with torch.float64 \(run.dtype\)"):
        task(OwnType(), torch.float64)


def test_images_with_channels_last_are_refused_by_built_in_convolutions():
    for options in (CnnOptions(), SmallCnnOptions()):
        with pytest.raises(UserError, match=r"looks like height x width x 3 channels. Move the channels"):
            build_model(options, population((16, 16, 3)), 1)
        build_model(options, population((3, 16, 16)), 1)


def test_own_convolution_on_images_with_channels_last_says_how_to_move_them():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(UserError, match=r"np.moveaxis\(x, -1, 1\)"):
        make_task(net, population((8, 6, 3)), LocalOptions(), seed=1)
