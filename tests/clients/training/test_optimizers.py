"""Each optimiser on one client is a loop over `torch.optim`, whichever engine runs it."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.models.build import build_model
from clients.models.options import MlpOptions
from clients.training.local import count_steps, plan_batches
from clients.training.optimizers import TorchSgd
from clients.training.options import LocalOptions
from clients.training.schedule_options import ScheduleOptions
from clients.training.task import make_task
from clients.training.work import CohortWork

LR = 0.05
BETAS = {"betas": (0.8, 0.95), "eps": 1e-6}
SGD, ADAM = torch.optim.SGD, torch.optim.Adam
CASES = {
    "gd": ({"optimizer": "gd"}, lambda p: SGD(p, LR)),
    "sgd": ({"optimizer": "sgd"}, lambda p: SGD(p, LR)),
    "sgd, l2": ({"optimizer": "sgd", "l2": 0.3}, lambda p: SGD(p, LR, weight_decay=0.3)),
    "momentum": ({"optimizer": "momentum", "momentum": 0.7}, lambda p: SGD(p, LR, momentum=0.7)),
    "momentum, l2": (
        {"optimizer": "momentum", "momentum": 0.7, "l2": 0.3},
        lambda p: SGD(p, LR, momentum=0.7, weight_decay=0.3),
    ),
    "momentum 0": ({"optimizer": "momentum", "momentum": 0.0}, lambda p: SGD(p, LR)),
    "nesterov": ({"optimizer": "nesterov"}, lambda p: SGD(p, LR, momentum=0.9, nesterov=True)),
    "nesterov 0": ({"optimizer": "nesterov", "momentum": 0.0}, lambda p: SGD(p, LR)),
    "adam": ({"optimizer": "adam", "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-6}, lambda p: ADAM(p, LR, **BETAS)),
    "adam, l2": ({"optimizer": "adam", "l2": 0.3}, lambda p: ADAM(p, LR, weight_decay=0.3)),
    "adamw": (
        {"optimizer": "adamw", "decoupled_weight_decay": 0.4, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-6},
        lambda p: torch.optim.AdamW(p, LR, weight_decay=0.4, **BETAS),
    ),
    "rmsprop": (
        {"optimizer": "rmsprop", "rho": 0.8, "epsilon": 1e-4},
        lambda p: torch.optim.RMSprop(p, LR, alpha=0.8, eps=1e-4),
    ),
    "rmsprop, l2": ({"optimizer": "rmsprop", "l2": 0.3}, lambda p: torch.optim.RMSprop(p, LR, weight_decay=0.3)),
    "adagrad": ({"optimizer": "adagrad", "epsilon": 1e-5}, lambda p: torch.optim.Adagrad(p, LR, eps=1e-5)),
    "adagrad, l2": (
        {"optimizer": "adagrad", "l2": 0.3},
        lambda p: torch.optim.Adagrad(p, LR, weight_decay=0.3, eps=1e-8),
    ),
}


def given(population_of, **options):
    """Return a task of one client with 22 examples, its work, and its batches as lists of row numbers."""
    population = population_of([22], dtype=torch.float64)
    local = LocalOptions(**({"local_lr": LR, "batch_size": 5, "local_epochs": 2} | options))
    module = build_model(MlpOptions(hidden=(5,), activation="tanh", initialisation="xavier"), population, 1)
    task = make_task(module, population, local, seed=4, dtype=torch.float64)
    params, buffers = task.initial()
    clients = np.arange(1)
    data = population.cohort(clients)
    steps = count_steps(local, data.sizes, clients, seed=4, round_index=3)
    plan = plan_batches(local, data.rows, data.offsets, steps, clients, seed=4, round_index=3)
    batches = [plan.rows[0, s, : plan.counts[0, s]] for s in range(int(steps[0]))]
    return task, CohortWork(round_index=3, clients=clients, params=params, buffers=buffers), data, batches


def by_hand(task, data, batches, optimizer_of, between=lambda module: None, after=lambda module, step: None):
    """Train a copy of the module with a plain loop; return its parameters."""
    module = copy.deepcopy(task.module)
    optimizer = optimizer_of(module.parameters())
    for step, rows in enumerate(batches, 1):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(data.features[rows]), data.targets[rows])
        loss.backward()
        between(module)
        optimizer.step()
        after(module, step)
    return nn.utils.parameters_to_vector(module.parameters()).detach()


def both(task, work):
    return [engine(task).train(work, {})[0].params[0] for engine in (PlainEngine, StackedEngine)]


def check(task, work, expected):
    assert (expected - work.params).norm() > 0.02
    for params in both(task, work):
        torch.testing.assert_close(params, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_optimizer_equals_a_torch_optim_loop(name, population_of):
    options, optimizer_of = CASES[name]
    task, work, data, batches = given(population_of, **options)
    assert [len(b) for b in batches] == ([22, 22] if name == "gd" else [5, 5, 5, 5, 2] * 2)
    check(task, work, by_hand(task, data, batches, optimizer_of))


def test_sgd_equals_torch_optim_beyond_the_measured_steps(population_of):
    task, work, data, batches = given(population_of, local_epochs=None, local_steps=23, l2=0.1)
    assert len(batches) == 23
    check(task, work, by_hand(task, data, batches, lambda p: SGD(p, LR, weight_decay=0.1)))


def test_decoupled_weight_decay_goes_with_any_optimizer(population_of):
    task, work, data, batches = given(population_of, optimizer="momentum", decoupled_weight_decay=0.5)

    def decay(module):
        with torch.no_grad():
            for p in module.parameters():
                p.mul_(1 - LR * 0.5)

    check(task, work, by_hand(task, data, batches, lambda p: SGD(p, LR, momentum=0.9), decay))


@pytest.mark.parametrize(("optimizer", "reach"), [
    ("sgd", lambda t: 1.0),
    ("momentum", lambda t: sum(0.9**j for j in range(t))),
    ("nesterov", lambda t: 1 + 0.9 * sum(0.9**j for j in range(t))),
])  # fmt: skip
def test_l1_is_a_proximal_step_as_long_as_the_optimizers(optimizer, reach, population_of):
    """The threshold is l1 x local_lr x the optimizer's step for gradients of 1."""
    task, work, data, batches = given(population_of, optimizer=optimizer, l1=0.02)
    of = {"sgd": {}, "momentum": {"momentum": 0.9}, "nesterov": {"momentum": 0.9, "nesterov": True}}[optimizer]

    def threshold(module, step):
        with torch.no_grad():
            for p in module.parameters():
                p.copy_(nn.functional.softshrink(p, 0.02 * LR * reach(step)))

    check(task, work, by_hand(task, data, batches, lambda p: SGD(p, LR, **of), after=threshold))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_clipping_equals_torchs(optimizer, population_of):
    of = {"sgd": lambda p: SGD(p, LR), "adam": lambda p: ADAM(p, LR)}[optimizer]
    for options, clip in (
        ({"clip_norm": 0.3}, lambda m: nn.utils.clip_grad_norm_(m.parameters(), 0.3)),
        ({"clip_norm": 1e6}, lambda m: None),
        ({"clip_value": 0.05}, lambda m: nn.utils.clip_grad_value_(m.parameters(), 0.05)),
    ):
        task, work, data, batches = given(population_of, optimizer=optimizer, **options)
        check(task, work, by_hand(task, data, batches, of, clip))


def torch_factors(make, rounds):
    """Return the learning-rate factors of a torch scheduler stepped once a round."""
    optimizer = SGD([nn.Parameter(torch.zeros(1))], 1.0)
    scheduler, factors = make(optimizer), []
    for _ in range(rounds):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


def test_schedules_equal_torchs():
    schedules = torch.optim.lr_scheduler
    pairs = [
        (ScheduleOptions(kind="constant"), lambda o: schedules.ConstantLR(o, factor=1.0)),
        (ScheduleOptions(kind="step", every=4, factor=0.5), lambda o: schedules.StepLR(o, 4, 0.5)),
        (ScheduleOptions(kind="step", at=(3, 7), factor=0.1), lambda o: schedules.MultiStepLR(o, [3, 7], 0.1)),
        (ScheduleOptions(kind="cosine", rounds=12), lambda o: schedules.CosineAnnealingLR(o, 11)),
        (
            ScheduleOptions(kind="cosine", rounds=12, floor=0.2),
            lambda o: schedules.CosineAnnealingLR(o, 11, eta_min=0.2),
        ),
        (
            ScheduleOptions(kind="inverse_time", decay=0.3),
            lambda o: schedules.LambdaLR(o, lambda t: 1 / (1 + 0.3 * t)),
        ),
    ]
    for options, make in pairs:
        ours = [options.scale(t) for t in range(1, 13)]
        assert ours == pytest.approx(torch_factors(make, 12), abs=1e-12), options.kind
    assert ScheduleOptions(kind="cosine", rounds=5).scale(50) == 0


def test_warm_up_rises_to_the_schedule_and_shifts_it():
    warm = ScheduleOptions(kind="step", every=2, factor=0.5, warmup_rounds=3)
    assert [warm.scale(t) for t in range(1, 8)] == [0.25, 0.5, 0.75, 1, 1, 0.5, 0.5]


def test_round_index_sets_the_local_lr(population_of):
    schedule = ScheduleOptions(kind="step", every=2, factor=0.5)
    task, work, data, batches = given(population_of, schedule=schedule)
    check(task, work, by_hand(task, data, batches, lambda p: SGD(p, LR * 0.5)))


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.3}, {"momentum": 0.7}, {"momentum": 0.9, "nesterov": True}])
def test_sgd_has_the_bits_of_the_optimizer_of_torch(options):
    """Parameters without a gradient in a step keep their value and their velocity."""
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(5, 3, generator=generator), torch.randn(7, generator=generator)]
    ours, theirs = ([nn.Parameter(p.clone()) for p in start] for _ in range(2))
    plain = {"weight_decay": 0.0, "momentum": 0.0, "nesterov": False}
    optimizers = TorchSgd(ours, LR, **plain | options), SGD(theirs, LR, **options)
    for step in range(4):
        gradients = [torch.randn(p.shape, generator=generator) for p in start]
        for params, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            assert all(p.grad is None for p in params)
            for p, g in zip(params, gradients, strict=True):
                p.grad = None if step == 2 and p.dim() == 1 else g.clone()
            optimizer.step()
    assert all(torch.equal(a, b) and not torch.equal(a, c) for a, b, c in zip(ours, theirs, start, strict=True))
