"""Which models can have their batches split over devices and into micro-batches, and over how many devices."""

from __future__ import annotations

import torch

from clients.core.errors import EngineError
from clients.engines.ranks.batch_norm import KINDS, has_batch_norm
from clients.training.task import LearningTask, probe_examples, working_copy

_FIX = "Set local.devices = 1, and leave out local.micro_batch_size."
_SAME = 1e-3
"""Outputs are the same if they differ by less than this share of their largest value."""


def is_split(task: LearningTask) -> bool:
    """Return whether batches of a task are split: over several devices, or into micro-batches."""
    return task.local.micro_batch_size is not None or count_devices(task) > 1


def count_devices(task: LearningTask) -> int:
    """Return the number of ranks of a client's training.

    Cards are counted without using one, since ranks are forked before.

    Raises:
        EngineError: there are fewer cards.
    """
    wanted = task.local.devices
    if wanted == 1 or task.device.type != "cuda":
        return 1 if wanted == "auto" else wanted
    there = torch.cuda.device_count() - (task.device.index or 0)
    if wanted == "auto":
        return max(1, there)
    if wanted > there:
        problem = f"is {wanted}, and torch finds {there} CUDA cards from {task.device} on"
        raise EngineError("local.devices", problem, fix="Set 'auto', or engine.device = 'cpu' for processes.")
    return wanted


def check_split(task: LearningTask, devices: int) -> None:
    """Refuse a model whose batches cannot be split with the numbers of one device.

    Raises:
        EngineError: it draws random numbers, keeps a state, or an example's outputs depend on the others of its batch.
    """
    local = task.local
    key = "devices" if devices > 1 else "micro_batch_size"
    what = f"is {getattr(local, key)}, and batches of this model cannot be split"
    if task.passes.draws:
        problem = f"{what}: its training pass draws from {'; '.join(task.passes.draws)}"
        raise EngineError(f"local.{key}", problem, fix="Use nn.Dropout, whose masks are addressed, or one device.")
    if task.passes.is_stateful:
        raise EngineError(f"local.{key}", f"{what}: its outputs depend on earlier passes", fix=_FIX)
    if local.micro_batch_size is not None and has_batch_norm(task.module):
        problem = f"is {local.micro_batch_size}, and batch normalisation would take its statistics of micro-batches"
        fix = "Leave it out: over local.devices the statistics are those of the whole batch. Or use GroupNorm."
        raise EngineError("local.micro_batch_size", problem, fix=fix)
    if _mixes_examples(task):
        problem = f"{what}: outputs of an example depend on the other examples of its batch"
        raise EngineError(f"local.{key}", problem, fix=f"{_FIX} Of such layers, nn.BatchNorm alone is shared.")


@torch.no_grad()
def _mixes_examples(task: LearningTask) -> bool:
    """Return whether outputs of an example depend on others, with batch normalisation as in evaluation."""
    module = working_copy(task.module)
    for part in module.modules():
        if isinstance(part, KINDS):
            part.eval()
    features = probe_examples(task.population, task.dtype).features
    features = features if len(features) > 1 else torch.cat((features, features))
    whole = module(features)
    parts = torch.cat([module(features[:1]), module(features[1:])])
    largest = float(whole.nan_to_num(0, 0, 0).abs().max())
    return whole.shape != parts.shape or not torch.allclose(whole, parts, rtol=0, atol=_SAME * largest, equal_nan=True)
