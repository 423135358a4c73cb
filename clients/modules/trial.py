"""Trial passes of a model: its dropout sites, the random numbers it draws, the parameters that get no gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clients.core.errors import UserError
from clients.modules.checks import listed
from clients.modules.copies import copy_module
from clients.modules.dropout import DropoutSite
from clients.modules.dropout_sites import CallRecorder, DropoutCall, sites_of
from clients.modules.randomness import Seeding, generators_restored, sources_drawn

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) -> the mean loss."""
_SEED = 1
_SAME = 1e-3
"""Two passes are the same if their outputs differ by less than this share of their largest value."""


@dataclass(frozen=True)
class PassFacts:
    """What trial passes found.

    Attributes:
        sites: the calls of dropout in a training pass, in order; none where they depend on the batch.
        unused: parameters that get no gradient.
        draws: generators that a training pass draws from beside addressed dropout, in words.
        only_plain: why clients can only be trained one by one; empty where they can be stacked.
        notices: sentences for a run's header.
    """

    sites: tuple[DropoutSite, ...] = ()
    unused: tuple[str, ...] = ()
    draws: tuple[str, ...] = ()
    only_plain: str = ""
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Pass:
    outputs: Tensor
    calls: list[DropoutCall]
    unused: tuple[str, ...]


def training_facts(module: nn.Module, features: Tensor, targets: Tensor, loss: Loss) -> PassFacts:
    """Run training passes of copies of a module, forward and backward, and return what they show.

    Args:
        module: as returned by `with_addressed_dropout`, in training mode; it is not changed.
        features: a batch [n, ...] of at least one example.
        targets: its targets [n, ...].
        loss: see `Loss`.

    Raises:
        UserError: a pass fails, its outputs get no gradient, or a second pass gives other outputs than the first.
    """
    whole = (features, targets) if len(features) > 1 else (torch.cat((features,) * 2), torch.cat((targets,) * 2))
    other = tuple(_of_another_length(part) for part in whole)
    with generators_restored():
        first, draws = _twice(module, *whole, loss)
        again = _trained(copy_module(module), other[0], other[1], loss)
    sites = sites_of(first.calls, len(whole[0]), again.calls, len(other[0]))
    obstacles = []
    if draws:
        obstacles.append(f"its training pass draws from {'; '.join(draws)}")
    if sites is None:
        obstacles.append(f"its calls of dropout depend on the batch ({listed(_names(first.calls + again.calls))})")
    if first.unused != again.unused:
        varying = sorted(set(first.unused) ^ set(again.unused))
        obstacles.append(f"which parameters get a gradient depends on the batch ({listed(varying)})")
    obstacles += _counted_batches(module)
    always = tuple(name for name in first.unused if name in again.unused)
    return PassFacts(sites or (), always, draws, "; ".join(obstacles), _notices(draws, obstacles, always))


def evaluation_pass(module: nn.Module, features: Tensor) -> tuple[object, tuple[str, ...]]:
    """Return the outputs of a copy of a module in evaluation mode, and the generators that it draws from, in words."""
    outputs: list[object] = []
    with generators_restored(), torch.no_grad():
        draws = sources_drawn(copy_module(module).eval(), lambda copied: outputs.append(copied(features)))
    return outputs[0], draws


def failure_on_one(module: nn.Module, features: Tensor, targets: Tensor, loss: Loss) -> str:
    """Return why a training pass on the first example alone fails; empty if it does not."""
    with generators_restored():
        try:
            _trained(copy_module(module), features[:1], targets[:1], loss)
        except UserError as error:
            return error.problem
    return ""


def _twice(module: nn.Module, features: Tensor, targets: Tensor, loss: Loss) -> tuple[_Pass, tuple[str, ...]]:
    """Run two passes of one copy on the same batch from the same state; return the first and what it drew.

    Raises:
        UserError: the outputs differ.
    """
    copied = copy_module(module)
    before = {name: value.detach().clone() for name, value in _named_tensors(copied)}
    seeding, passes = Seeding(copied), []

    def run(_: nn.Module) -> None:
        seeding.seed(_SEED)
        passes.append(_trained(copied, features, targets, loss))

    seeding.seed(_SEED)
    draws = sources_drawn(copied, run)
    with torch.no_grad():
        for name, value in _named_tensors(copied):
            value.copy_(before[name])
    run(copied)
    first, second = passes[0].outputs, passes[1].outputs
    largest = float(first.nan_to_num(0, 0, 0).abs().max())
    if first.shape != second.shape or not torch.allclose(first, second, rtol=0, atol=_SAME * largest, equal_nan=True):
        problem = (
            "gives other outputs in a second training pass on the same batch: it keeps a state outside its parameters "
            "and buffers, which would pass from client to client, or draws from a generator that cannot be seeded"
        )
        fix = (
            "Keep the state in a buffer (register_buffer). Draw with torch's, NumPy's or Python's global generator, or "
            "with one that is an attribute of a module."
        )
        raise UserError("model", problem, fix=fix)
    return passes[0], draws


def _trained(module: nn.Module, features: Tensor, targets: Tensor, loss: Loss) -> _Pass:
    """Run one pass forward and backward.

    Raises:
        UserError: it fails, its outputs get no gradient, or a gradient is sparse.
    """
    recorder = CallRecorder(module)
    module.zero_grad(set_to_none=True)
    shape = tuple(features.shape)
    try:
        outputs = module(features)
        value = loss(outputs, targets)
        if value.requires_grad:
            value.backward()  # type: ignore[no-untyped-call]
    except UserError:
        raise
    except Exception as error:  # a user's module may raise anything
        line = " ".join(str(error).split())
        problem = f"fails in a training pass on features of shape {shape}: {type(error).__name__}: {line}"
        raise UserError("model", problem, fix="Choose a model for this shape, or change its forward.") from error
    if not value.requires_grad:
        problem = "has outputs that no trainable parameter reaches, so there is nothing to train"
        raise UserError("model", problem, fix="Look for detach(), torch.no_grad() or .data in its forward.")
    trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    sparse = [name for name, p in trainable if p.grad is not None and p.grad.layout != torch.strided]
    if sparse:
        raise UserError("model", f"has sparse gradients ({listed(sparse)})", fix="Use operations with sparse=False.")
    return _Pass(outputs.detach(), recorder.calls, tuple(name for name, p in trainable if p.grad is None))


def _named_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _of_another_length(part: Tensor) -> Tensor:
    """Return other examples than those of a batch, in another order and number, at least two."""
    turned = part.flip(0)
    return turned[:-1] if len(part) > 2 else torch.cat((turned, part[:1]))


def _counted_batches(module: nn.Module) -> list[str]:
    """Return an obstacle for batch normalisation whose running mean depends on the number of batches seen."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    found = [n for n, m in module.named_modules()
             if isinstance(m, kinds) and m.track_running_stats and m.momentum is None]  # fmt: skip
    if not found:
        return []
    return [f"batch normalisation with momentum=None counts batches in an integer buffer ({listed(found)})"]


def _notices(draws: tuple[str, ...], obstacles: list[str], unused: tuple[str, ...]) -> tuple[str, ...]:
    found = []
    if obstacles:
        found.append(f"Only the plain engine can train the model: {'; '.join(obstacles)}.")
    if draws:
        found.append(
            "These random numbers are seeded for each client and local step. The stacked engine runs nn.Dropout and "
            "its kinds instead."
        )
    if unused:
        many, them = (f"{len(unused)} parameters", "them") if len(unused) > 1 else ("a parameter", "it")
        found.append(
            f"No gradient reaches {many} of the model ({listed(unused)}). Optimizers skip {them}, as in torch."
        )
    return tuple(found)


def _names(calls: list[DropoutCall]) -> list[str]:
    return list(dict.fromkeys(call.name for call in calls))
