"""The learning task that all engines share: a module, its layout, the population, local options."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from clients.core.arrays import I64
from clients.core.errors import UserError, listed
from clients.core.examples import Examples
from clients.core.parameters import Layout, buffer_layout, parameter_layout, read_vector
from clients.core.population import Population
from clients.core.population_parts import ExampleSpec
from clients.core.user_code import described
from clients.modules.checks import (
    cast_notice,
    check_copyable,
    check_dense_gradients,
    check_tensors,
    probability_notice,
)
from clients.modules.copies import copy_module, shared_attributes
from clients.modules.dropout import DropoutSite, with_addressed_dropout
from clients.modules.trial import PassFacts, evaluation_pass, failure_on_one, training_facts
from clients.training.augment import check_augment
from clients.training.class_balance import check_balance, federation_counts
from clients.training.local import check_batches_of_one, clients_with_batches_of_one
from clients.training.losses import example_losses
from clients.training.options import LocalOptions
from clients.training.second_order.checks import check_second_order


@dataclass(frozen=True)
class LearningTask:
    """A model, the data, and the options of local training. Engines copy `module` before they write to it.

    Attributes:
        module: the template, in training mode, with addressed dropout and the initial values.
        population: the clients and their data.
        local: options of local training.
        seed: root seed of every stream.
        parameters: layout of the trainable parameters, P elements.
        buffers: layout of the floating-point buffers, Q elements.
        passes: what trial passes of the model showed: dropout sites, random numbers, parameters without a gradient.
        dtype: floating-point type of parameters and features.
        count_errors: whether engines count wrongly classified examples during local training (mixed examples count by
            their own class).
        class_counts: training examples of each class over the federation, where class weights use them.
        device: where engines train and evaluate; populations stay in main memory.
        bf16: whether the passes of local training run under autocast to bfloat16.
        notices: sentences on what was guessed or changed when the task was made; a run's header prints them.
    """

    module: nn.Module
    population: Population
    local: LocalOptions
    seed: int
    parameters: Layout
    buffers: Layout
    passes: PassFacts
    dtype: torch.dtype
    count_errors: bool = False
    class_counts: I64 | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    bf16: bool = False
    notices: tuple[str, ...] = ()

    @property
    def sites(self) -> tuple[DropoutSite, ...]:
        """The calls of dropout in a training pass."""
        return self.passes.sites

    def initial(self) -> tuple[Tensor, Tensor]:
        """Return the initial parameters [P] and buffers [Q]."""
        return read_vector(self.module, self.parameters), read_vector(self.module, self.buffers).to(self.dtype)


def make_task(
    module: nn.Module,
    population: Population,
    local: LocalOptions,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    count_errors: bool = False,
    trained_elsewhere: bool = False,
) -> LearningTask:
    """Make a task; check with one batch that module, population and local options fit together.

    Args:
        module: the model; it is copied.
        population: the clients and their data.
        local: options of local training.
        seed: root seed of every stream.
        dtype: floating-point type of parameters and features.
        count_errors: whether engines count wrongly classified examples.
        trained_elsewhere: whether a user's ClientApp trains the clients; then `local` is not checked.

    Raises:
        UserError: the module has no parameters to train or complex ones, cannot be copied, fails on a batch, or its
            outputs do not fit the targets; clients would train on one example alone, and it fails on one; or the data
            lack what local training needs.
    """
    check_tensors(module)
    if not trained_elsewhere:
        check_copyable(module)
    notices = [cast_notice(module, dtype), _shared_notice(module)]
    given, module = module, with_addressed_dropout(module).to(dtype).train()
    layout = parameter_layout(module)
    if layout.size == 0:
        raise UserError("model", "has no trainable parameters", fix="Give at least one parameter requires_grad=True.")
    probe = probe_examples(population, dtype)
    notices += _check_evaluation(module, probe, population)
    facts, counts = PassFacts(), None
    if not trained_elsewhere:
        if local.augment.any and not probe.features.is_floating_point():
            raise UserError("local.augment", f"changes real numbers, and the features are {probe.features.dtype}")
        _check_local(population, local)
        check_dense_gradients(module)
        facts = _trial(given, module, probe, population)
        _check_one(module, probe, population, local)
        check_second_order(local, module, layout, facts, probe, population.task)
        counts = federation_counts(local, population, seed)
    return LearningTask(
        module, population, local, seed, layout, buffer_layout(module), facts, dtype,
        count_errors and population.task == "classification", counts, notices=(*filter(None, notices), *facts.notices),
    )  # fmt: skip


def _check_local(population: Population, local: LocalOptions) -> None:
    check_balance(local, population)
    check_augment(local.augment, population)
    steps = local.local_steps
    if isinstance(steps, tuple) and len(steps) != population.num_clients:
        raise UserError(
            "local.local_steps",
            f"lists {len(steps)} numbers for {population.num_clients} clients",
            fix="Give one number, or one for each client.",
        )


def _trial(given: nn.Module, module: nn.Module, probe: Examples, population: Population) -> PassFacts:
    """Run trial passes, and check that they train the copy and not the module it was made from."""
    held = {name: p.grad for name, p in given.named_parameters()}
    try:
        given.zero_grad(set_to_none=True)
        facts = training_facts(module, probe.features, probe.targets, _loss_of(population))
        reached = [name for name, p in given.named_parameters() if p.grad is not None]
    finally:
        for name, p in given.named_parameters():
            p.grad = held[name]
    if reached:
        problem = (
            f"has a function that refers to the model it was made in (a lambda or an inner function), so copies of the "
            f"model would train the original's {listed(reached)}"
        )
        raise UserError("model", problem, fix="Write the function as a method of the class.")
    return facts


def _check_one(module: nn.Module, probe: Examples, population: Population, local: LocalOptions) -> None:
    sizes = population.sizes.astype(np.int64)
    if clients_with_batches_of_one(local, sizes).any():
        check_batches_of_one(local, sizes, failure_on_one(module, probe.features, probe.targets, _loss_of(population)))


def _loss_of(population: Population) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return example_losses(_checked(outputs, len(targets), population), targets, population.task).mean()

    return loss


def _shared_notice(module: nn.Module) -> str:
    shared = shared_attributes(module)
    return f"Copies of the model share what cannot be copied: {listed(shared)}." if shared else ""


def probe_examples(population: Population, dtype: torch.dtype, size: int = 4) -> Examples:
    """Return the first few examples of the first clients that have any, for shape checks and timing."""
    owners = np.flatnonzero(population.sizes)[:size].astype(np.int64)
    if not len(owners):
        raise UserError("data", "no client has any training example", fix="Check the partition and the splits.")
    if population.clients.elsewhere:
        return _empty_examples(population.spec, dtype, size)
    data = population.cohort(owners)
    index = torch.from_numpy(data.rows[: max(2, size)])
    return Examples(cast_features(data.features[index], dtype), cast_targets(data.targets[index], dtype))


def _empty_examples(spec: ExampleSpec, dtype: torch.dtype, size: int) -> Examples:
    """Return examples of zeros, in the form of those that nodes hold."""
    features = torch.zeros(size, *spec.feature_shape, dtype=dtype)
    if spec.task == "classification":
        return Examples(features, torch.arange(size) % spec.outputs)
    return Examples(features, torch.zeros(size, spec.outputs, dtype=dtype))


def working_copy(module: nn.Module) -> nn.Module:
    """Return a copy to compute with. 2-D convolutions are channels last, up to twice as fast on a CPU.

    This applies only to modules of torch's own layers: a user's module may call `view` on its activations, which needs
    the usual layout.
    """
    copied = copy_module(module)
    parts = list(copied.modules())
    known = all(type(m).__module__.startswith(("torch.nn.", "clients.")) for m in parts)
    if known and any(isinstance(m, nn.Conv2d) for m in parts):
        copied = copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return copied


@contextmanager
def autocast(task: LearningTask) -> Iterator[None]:
    """Run a pass under autocast to bfloat16, where the task has `bf16`."""
    if not task.bf16:
        yield
        return
    with torch.autocast(task.device.type, dtype=torch.bfloat16, cache_enabled=False):
        yield


def cast_features(features: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast floating-point features to the task's type; integer features (tokens) stay integers."""
    return features.to(dtype) if features.is_floating_point() else features


def cast_targets(targets: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast regression targets to the task's type; classes stay integers."""
    return targets.to(dtype) if targets.is_floating_point() else targets


def _check_evaluation(module: nn.Module, probe: Examples, population: Population) -> list[str]:
    """Check the outputs of a copy of the module in evaluation mode; return notices on what it draws and returns.

    Raises:
        UserError: it fails, changes its features, or its outputs do not fit the targets.
    """
    features = probe.features.clone()
    try:
        outputs, draws = evaluation_pass(module, features)
    except Exception as error:  # a user's module may raise anything
        raise UserError(
            "model",
            f"fails on features of shape {population.feature_shape}: {described(error)}",
            fix=_fix_of_features(error, probe.features),
        ) from error
    if not torch.equal(features, probe.features):
        raise UserError("model", "changes its input in place", fix="Write x = x - 1, not x -= 1, in its forward.")
    checked = _checked(outputs, len(probe), population)
    example_losses(checked, probe.targets, population.task)
    notices = [probability_notice(checked)] if population.task == "classification" else []
    if draws:
        notices.append(f"In evaluation mode the model draws from {'; '.join(draws)}. Each evaluation is seeded alike.")
    return notices


def _checked(outputs: object, n: int, population: Population) -> Tensor:
    """Return the outputs for n examples if they fit the targets.

    Raises:
        UserError: they do not.
    """
    wanted = (n,) if population.task == "objective" else (n, population.outputs)
    if isinstance(outputs, Tensor) and tuple(outputs.shape) == wanted:
        return outputs
    got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    fix = "Give the model one output for each class or forecast value; labels go up to outputs - 1."
    about = [notice for notice in population.federation.notices if "targets are" in notice or "labels have" in notice]
    if about:
        fix += f" Of the data: {'; '.join(about)}."
    raise UserError("model", f"returns {got} for {n} examples where {population.task} needs {wanted}", fix=fix)


def _fix_of_features(error: Exception, features: Tensor) -> str:
    """Return what to change where a model fails on features: their type, if the error is about it, or their shape."""
    if features.is_floating_point() and "indices" in str(error) and "Long" in str(error):
        return "An embedding takes whole numbers: pass dtype=torch.int64 with the data."
    if not features.is_floating_point() and "dtype" in str(error):
        embed = "as ids of tokens they need a module with an embedding, fs.simulate(scenario, model=...)"
        return f"The features are {features.dtype}: {embed}; as numbers, dtype=torch.float32 where the data are made."
    if "dtype" in str(error):
        return (
            f"The run computes with {features.dtype} (run.dtype), and the model's parameters were cast to it. Do not "
            "name another type in its forward."
        )
    if features.ndim == 4 and features.shape[-1] in (1, 3, 4) and "channels" in str(error):
        return "The features look like height x width x channels: move the channels, x = np.moveaxis(x, -1, 1)."
    return "Choose a model for this shape, or reshape the data."
