"""Gradient programs equal autograd, and each module gets its program."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from clients.engines.batch import Batch
from clients.engines.dense import DenseProgram, dense_layers
from clients.engines.plain import PlainEngine
from clients.engines.programs import VmapProgram, examples_are_independent, make_program
from clients.engines.recurrent import GruProgram
from clients.engines.stacked import StackedEngine
from clients.models.build import build_model
from clients.models.options import GruOptions, LinearOptions, MlpOptions, SoftmaxOptions
from clients.training.losses import example_losses
from clients.training.options import LocalOptions
from clients.training.task import make_task, probe_examples
from clients.training.work import CohortWork

K, B = 3, 5


def task_of(module, population_of, shape=(6,), outputs=3, task="classification", **local):
    population = population_of([6, 4], shape, outputs, task, dtype=torch.float64)
    module = module if isinstance(module, nn.Module) else build_model(module, population, 1)
    return make_task(module, population, LocalOptions(**local), seed=1, dtype=torch.float64)


def program_of(task):
    return make_program(task, probe_examples(task.population, task.dtype).features)


def stack_of(task, shape, *, padded=True, seed=0):
    """Return K random models and batches for a task; in two of them some examples are padding."""
    random = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=random, dtype=torch.float64)

    params = {n: 0.7 * normal(K, *s) for n, s in zip(task.parameters.names, task.parameters.shapes, strict=True)}
    outputs = task.population.outputs
    if task.population.task == "classification":
        targets = torch.randint(outputs, (K, B), generator=random)
    else:
        targets = normal(K, B, outputs)
    counts = torch.tensor([B, 3, 1]) if padded else torch.full((K,), B)
    weights = (torch.arange(B) < counts[:, None]).double() / counts[:, None]
    masks = {s.name: (torch.rand(K, B, *s.shape, generator=random) > s.p).double() / (1 - s.p) for s in task.sites}
    return params, Batch(normal(K, B, *shape), targets, weights if padded else None, masks)


def autograd(task, params, batch):
    """Return gradients and losses of one model after another, by torch's own graph."""
    found, losses = {n: [] for n in params}, []
    for k in range(K):
        module = copy.deepcopy(task.module)
        for name, p in module.named_parameters():
            p.data = params[name][k].clone()
        for name, mask in batch.masks.items():
            module.get_submodule(name).mask = mask[k]
        each = example_losses(module(batch.features[k]), batch.targets[k], task.population.task)
        weights = torch.full((B,), 1 / B, dtype=torch.float64) if batch.weights is None else batch.weights[k]
        (each * weights).sum().backward()
        losses.append(each.detach())
        for name, p in module.named_parameters():
            found[name].append(p.grad)
    return {n: torch.stack(g) for n, g in found.items()}, torch.stack(losses)


HAND_WRITTEN = {
    "softmax": (SoftmaxOptions(), (6,), "classification", DenseProgram),
    "linear": (LinearOptions(), (2, 3), "regression", DenseProgram),
    "relu": (MlpOptions(hidden=(5, 4), dropout=0.5), (6,), "classification", DenseProgram),
    "tanh": (MlpOptions(hidden=(5, 4), activation="tanh", dropout=0.3), (6,), "classification", DenseProgram),
    "sigmoid": (MlpOptions(hidden=(5,), activation="sigmoid", dropout=0.1), (6,), "regression", DenseProgram),
    "no dropout": (MlpOptions(hidden=(5, 4, 3), activation="tanh"), (6,), "regression", DenseProgram),
    "gru": (GruOptions(hidden=4), (7, 2), "regression", GruProgram),
    "gru, one step": (GruOptions(hidden=4), (1, 3), "classification", GruProgram),
    "gru, one channel": (GruOptions(hidden=2), (5,), "regression", GruProgram),
    "vmap": (MlpOptions(hidden=(6,), activation="gelu", dropout=0.4), (6,), "classification", VmapProgram),
}


@pytest.mark.parametrize("name", HAND_WRITTEN)
@pytest.mark.parametrize("padded", [False, True])
def test_gradients_equal_autograds(name, padded, population_of):
    options, shape, kind, program_kind = HAND_WRITTEN[name]
    task = task_of(options, population_of, shape, task=kind)
    program = program_of(task)
    assert type(program) is program_kind
    params, batch = stack_of(task, shape, padded=padded)
    before = {n: p.clone() for n, p in params.items()}
    gradients, losses, outputs, buffers = program.gradients(params, {}, batch)
    expected, expected_losses = autograd(task, params, batch)
    for n in params:
        torch.testing.assert_close(gradients[n], expected[n], rtol=1e-10, atol=1e-12, msg=n)
        assert torch.equal(params[n], before[n]), "gradients leave parameters alone"
    assert all(g.norm() > 1e-4 for n, g in gradients.items() if n != "gru.weight_hh_l0" or "one step" not in name)
    torch.testing.assert_close(losses, expected_losses)
    assert outputs.shape[:2] == (K, B)
    assert buffers == {}


@pytest.mark.parametrize("name", ["softmax", "relu", "tanh", "linear"])
def test_fused_step_is_a_gradient_step(name, population_of):
    options, shape, kind, _ = HAND_WRITTEN[name]
    task = task_of(options, population_of, shape, task=kind)
    program = program_of(task)
    params, batch = stack_of(task, shape)
    gradients, losses, _, _ = program.gradients(params, {}, batch)
    expected = {n: 0.9 * p - 0.2 * gradients[n] for n, p in params.items()}
    stepped, _ = program.descend(params, batch, 0.2, 0.9)
    torch.testing.assert_close(stepped, losses)
    for n in params:
        torch.testing.assert_close(params[n], expected[n], rtol=1e-12, atol=1e-12)


class Shouting(nn.Sequential):
    def forward(self, x):
        return 2 * super().forward(x)


def hooked():
    module = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    module[0].register_forward_hook(lambda m, i, out: out + 1)
    return module


def frozen():
    module = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    module[0].weight.requires_grad_(False)
    return module


def tied():
    middle, act = nn.Linear(6, 6), nn.Tanh()
    return nn.Sequential(middle, act, middle, act, nn.Linear(6, 3))


def shared_activation():
    act = nn.Tanh()
    return nn.Sequential(nn.Linear(6, 4), act, nn.Sequential(nn.Identity(), nn.Linear(4, 5), act), nn.Linear(5, 3))


@pytest.mark.parametrize(
    ("module", "dense"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.ReLU(), nn.Dropout(0.2), nn.Linear(4, 3)), True),
        (lambda: nn.Sequential(nn.Linear(6, 4, bias=False), nn.Sigmoid(), nn.Linear(4, 3)), True),
        (shared_activation, True),
        (tied, False),
        (hooked, False),
        (frozen, False),
        (lambda: Shouting(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)), False),
        (lambda: nn.Sequential(nn.Linear(6, 3), nn.ReLU()), False),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)), False),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5), nn.ReLU(), nn.Linear(4, 3)), False),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 3)), False),
        (lambda: nn.Linear(6, 3), False),
    ],
)
def test_users_sequential_is_recognised_only_if_it_is_a_perceptron(module, dense, population_of):
    torch.manual_seed(0)
    task = task_of(module(), population_of, local_epochs=2, batch_size=3, local_lr=0.2)
    assert (dense_layers(task) is not None) == dense
    same_as_plain(task)


def same_as_plain(task):
    """Check that the stacked engine trains as the plain one; return the plain update."""
    params, buffers = task.initial()
    work = CohortWork(round_index=1, clients=np.arange(2), params=params, buffers=buffers)
    (plain, _), (stacked, _) = (engine(task).train(work, {}) for engine in (PlainEngine, StackedEngine))
    assert (plain.params - params).norm() > 1e-3
    torch.testing.assert_close(stacked.params, plain.params, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(stacked.buffers, plain.buffers, rtol=1e-10, atol=1e-11)
    return plain


class Centred(nn.Module):
    """Couples the examples of a batch, without a buffer."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def forward(self, x):
        return self.inner(x - x.mean(0))


class Watching(nn.Module):
    """Keeps a statistic of the batch in a buffer that does not change outputs."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)
        self.register_buffer("largest", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.largest.mul_(0.5).add_(x.detach().mean())
        return self.inner(x)


class Masked(nn.Module):
    """A user's buffer named `mask`, next to a built-in dropout."""

    def __init__(self):
        super().__init__()
        self.inner, self.drop = nn.Linear(6, 3), nn.Dropout(0.5)
        self.register_buffer("mask", torch.tensor([1.0, 0.0, 2.0, 1.0, 1.0, 0.0]))

    def forward(self, x):
        return self.inner(self.drop(x * self.mask))


class Twice(nn.Module):
    """Two parameters whose gradients are one tensor, and one without axes."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(6, 3)), nn.Parameter(torch.zeros(6, 3))
        self.temperature = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return (x @ (self.a + self.b) + 1) * self.temperature


@pytest.mark.parametrize(
    ("module", "independent"),
    [
        (Centred, False),
        (Watching, False),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)), False),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)), False),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 3)), True),
        (Masked, True),
        (Twice, True),
    ],
)
def test_coupling_between_examples_is_found_and_trained_correctly(module, independent, population_of):
    torch.manual_seed(1)
    task = task_of(module(), population_of, batch_size=4, local_epochs=3, l2=0.1)
    before = copy.deepcopy(task.module.state_dict())
    features = probe_examples(task.population, task.dtype).features
    state = torch.random.get_rng_state()
    assert examples_are_independent(task, features) == independent
    assert examples_are_independent(task, features[:1]) == independent
    assert torch.equal(state, torch.random.get_rng_state())
    after = task.module.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before), "the template is never written to"
    same_as_plain(task)


def test_gradients_share_no_memory(population_of):
    task = task_of(Twice(), population_of)
    params, batch = stack_of(task, (6,))
    gradients, *_ = program_of(task).gradients(params, {}, batch)
    assert torch.equal(gradients["a"], gradients["b"])
    gradients["a"].mul_(3)
    assert not torch.equal(gradients["a"], gradients["b"])
    assert all(g.is_contiguous() for g in gradients.values())


def test_noise_of_torch_modules_is_addressed(population_of):
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.AlphaDropout(0.5), nn.Linear(8, 3))
    task = task_of(module, population_of, batch_size=2, local_epochs=2)
    params, buffers = task.initial()
    work = CohortWork(round_index=1, clients=np.arange(2), params=params, buffers=buffers)
    torch.manual_seed(1)
    one, _ = PlainEngine(task).train(work, {})
    torch.manual_seed(2)
    other, _ = PlainEngine(task).train(work, {})
    assert torch.equal(one.params, other.params)
    later, _ = PlainEngine(task).train(CohortWork(**{**work.__dict__, "round_index": 2}), {})
    assert not torch.allclose(one.params, later.params)
