"""Trial passes of a model: its dropout sites, the random numbers it draws, the parameters that get no gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clients.core.errors import UserError, listed
from clients.core.user_code import described
from clients.modules.checks import named_tensors
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
        is_stateful: whether outputs depend on earlier passes, so that each client needs a fresh copy.
        only_plain: why clients can only be trained one by one; empty where they can be stacked.
        notices: sentences for a run's header.
    """

    sites: tuple[DropoutSite, ...] = ()
    unused: tuple[str, ...] = ()
    draws: tuple[str, ...] = ()
    is_stateful: bool = False
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
        UserError: a pass fails, its outputs get no gradient, or the passes of two copies give different outputs.
    """
    whole = (features, targets) if len(features) > 1 else (torch.cat((features,) * 2), torch.cat((targets,) * 2))
    other = tuple(_of_another_length(part) for part in whole)
    with generators_restored():
        found = _repeated(module, *whole, loss)
        again = _trained(copy_module(module), other[0], other[1], loss)
    first, draws = found.first, found.draws
    sites = sites_of(first.calls, len(whole[0]), again.calls, len(other[0]))
    obstacles = []
    if draws:
        obstacles.append(f"its training pass draws from {'; '.join(draws)}")
    if found.is_stateful:
        obstacles.append("its outputs depend on earlier passes, through a state outside its parameters and buffers")
    if sites is None:
        obstacles.append(f"its calls of dropout depend on the batch ({listed(_names(first.calls + again.calls))})")
    if first.unused != again.unused:
        varying = sorted(set(first.unused) ^ set(again.unused))
        obstacles.append(f"which parameters get a gradient depends on the batch ({listed(varying)})")
    obstacles += _counted_batches(module)
    always = tuple(name for name in first.unused if name in again.unused)
    notices = _notices(draws, obstacles, always, is_stateful=found.is_stateful)
    return PassFacts(sites or (), always, draws, found.is_stateful, "; ".join(obstacles), notices)


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


@dataclass(frozen=True)
class _Repeated:
    """A pass of a fresh copy, what it drew, and whether a second pass of the same copy gives other outputs."""

    first: _Pass
    draws: tuple[str, ...]
    is_stateful: bool


def _repeated(module: nn.Module, features: Tensor, targets: Tensor, loss: Loss) -> _Repeated:
    """Run a pass of two fresh copies, and a second one of the first copy, all from the same seed and tensors.

    Raises:
        UserError: the fresh copies give other outputs.
    """
    copied, passes = copy_module(module), []
    before = {name: value.detach().clone() for name, value in named_tensors(copied)}

    def run(which: nn.Module) -> None:
        Seeding(which).seed(_SEED)
        passes.append(_trained(which, features, targets, loss))

    Seeding(copied).seed(_SEED)
    draws = sources_drawn(copied, run)
    run(copy_module(module))
    with torch.no_grad():
        for name, value in named_tensors(copied):
            value.copy_(before[name])
    run(copied)
    first, fresh, second = (one.outputs for one in passes)
    if not _same(first, fresh):
        problem = (
            "gives other outputs in the training pass of another copy on the same batch: it draws from a generator "
            "that cannot be seeded, or its copies share a state"
        )
        fix = "Draw with torch's, NumPy's or Python's global generator, or with one that is an attribute of a module."
        raise UserError("model", problem, fix=fix)
    return _Repeated(passes[0], draws, not _same(first, second))


def _same(one: Tensor, other: Tensor) -> bool:
    largest = float(one.nan_to_num(0, 0, 0).abs().max())
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=_SAME * largest, equal_nan=True)


def _trained(module: nn.Module, features: Tensor, targets: Tensor, loss: Loss) -> _Pass:
    """Run one pass forward and backward.

    Raises:
        UserError: it fails, its outputs get no gradient, or a gradient is sparse.
    """
    recorder = CallRecorder(module)
    module.zero_grad(set_to_none=True)
    shape, given = tuple(features.shape), features.clone()
    try:
        outputs = module(features)
        value = loss(outputs, targets)
        if value.requires_grad:
            value.backward()  # type: ignore[no-untyped-call]
    except UserError:
        raise
    except Exception as error:  # a user's module may raise anything
        problem = f"fails in a training pass on features of shape {shape}: {described(error)}"
        raise UserError("model", problem, fix="Choose a model for this shape, or change its forward.") from error
    if not torch.equal(given, features):
        raise UserError("model", "changes its input in place", fix="Write x = x - 1, not x -= 1, in its forward.")
    if not value.requires_grad:
        problem = "has outputs that no trainable parameter reaches, so there is nothing to train"
        raise UserError("model", problem, fix="Look for detach(), torch.no_grad() or .data in its forward.")
    trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    sparse = [name for name, p in trainable if p.grad is not None and p.grad.layout != torch.strided]
    if sparse:
        raise UserError("model", f"has sparse gradients ({listed(sparse)})", fix="Use operations with sparse=False.")
    return _Pass(outputs.detach(), recorder.calls, tuple(name for name, p in trainable if p.grad is None))


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


def _notices(
    draws: tuple[str, ...], obstacles: list[str], unused: tuple[str, ...], *, is_stateful: bool
) -> tuple[str, ...]:
    found = []
    if obstacles:
        found.append(f"Only the plain engine can train the model: {'; '.join(obstacles)}.")
    if draws:
        found.append(
            "These random numbers are seeded for each client and local step. The stacked engine runs nn.Dropout and "
            "its kinds instead."
        )
    if is_stateful:
        found.append("Each client trains a fresh copy, so that the state does not pass from client to client.")
    if unused:
        many, them = (f"{len(unused)} parameters", "them") if len(unused) > 1 else ("a parameter", "it")
        found.append(
            f"No gradient reaches {many} of the model ({listed(unused)}). Optimizers skip {them}, as in torch."
        )
    return tuple(found)


def _names(calls: list[DropoutCall]) -> list[str]:
    return list(dict.fromkeys(call.name for call in calls))
