"""Augmentation of training batches by addressed random numbers.

Every number is addressed by (seed, round, client, local step, position in the batch). So all engines change a batch in
the same way, and the numbers of a client do not depend on the other clients of its cohort.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.core import streams
from clients.core.arrays import I64, U64
from clients.core.cards.transfer import sent
from clients.core.errors import UserError
from clients.core.population import Population
from clients.training.options import AugmentOptions


@dataclass(frozen=True)
class Mixed:
    """How mixup mixed a batch.

    Attributes:
        partner: position in the batch of the example that each example is mixed with, int64 [k, b].
        share: weight of the example itself, [k, 1].
    """

    partner: Tensor
    share: Tensor


def check_augment(options: AugmentOptions, population: Population) -> None:
    """Check that the augmentation fits these examples.

    Raises:
        UserError: it does not; the error names the option.
    """
    if not options.any:
        return
    named = next(n for n in ("time_shift", "scaling", "jitter", "mixup") if getattr(options, n))
    if population.task == "objective":
        problem = "changes training examples, and the examples of an objective are the coefficients of a function"
        raise UserError(f"local.augment.{named}", problem, fix="Leave it out.")
    shape = population.feature_shape
    if options.time_shift and len(shape) != 2:
        problem = f"moves windows [time, channels], and examples here have shape {list(shape)}, without a time axis"
        raise UserError("local.augment.time_shift", problem, fix="Leave it out.")
    if options.time_shift and options.time_shift >= shape[0]:
        problem = f"must be below the window's {shape[0]} steps, got {options.time_shift}"
        raise UserError("local.augment.time_shift", problem)
    if options.time_shift and population.task == "regression":
        problem = "moves windows, and the values to forecast would not move with them"
        raise UserError("local.augment.time_shift", problem, fix="Leave it out.")


def augment(
    options: AugmentOptions, features: Tensor, counts: I64, clients: I64, *, seed: int, round_index: int, step: int
) -> tuple[Tensor, Mixed | None]:
    """Change the batches of one local step of k clients.

    Args:
        options: the augmentations.
        features: [k, b, *feature_shape], floating-point; not written to.
        counts: examples of each batch that are not padding, int64 (k,).
        clients: int64 (k,).
        seed: root seed.
        round_index: the round.
        step: the local step, from 0.

    Returns:
        The new features, and how mixup mixed them; None without mixup.
    """
    k, b = features.shape[:2]
    address = (round_index, clients[:, None], step, np.arange(b)[None, :])
    if options.time_shift:
        features = _shifted(features, streams.keys(seed, "augment time_shift", *address), options.time_shift)
    if options.scaling:
        shape = (1, features.shape[3]) if features.dim() == 4 else (1,) * (features.dim() - 2)
        noise = _normals(streams.keys(seed, "augment scaling", *address), shape, features)
        features = features * noise.mul_(options.scaling).add_(1.0)
    if options.jitter:
        noise = _normals(streams.keys(seed, "augment jitter", *address), tuple(features.shape[2:]), features)
        features = features + noise.mul_(options.jitter)
    if not options.mixup:
        return features, None
    key = streams.keys(seed, "augment mixup", round_index, clients, step)
    from scipy.special import betaincinv  # imported here because it takes a tenth of a second

    share = betaincinv(options.mixup, options.mixup, streams.uniforms(key, 1))
    order = streams.permutations(streams.keys(seed, "augment partner", round_index, clients, step), counts)
    order = np.concatenate((order, np.broadcast_to(np.arange(order.shape[1], b), (k, b - order.shape[1]))), axis=1)
    device = features.device
    mixed = Mixed(sent(torch.from_numpy(order), device), sent(torch.from_numpy(share).to(features.dtype), device))
    return mix(features, mixed), mixed


def mix(values: Tensor, mixed: Mixed) -> Tensor:
    """Return share x own + (1 - share) x partner's of values [k, b, ...], by batch."""
    k = len(values)
    share = mixed.share.view(k, *[1] * (values.dim() - 1))
    others = values[torch.arange(k, device=values.device)[:, None], mixed.partner]
    return share * values + (1.0 - share) * others


def _normals(keys: U64, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return standard normal numbers [*keys.shape, *shape] of the type and on the device of a tensor.

    The numbers of a key depend only on the key. They are drawn in main memory, on all devices.
    """
    drawn = streams.normals(keys, int(np.prod(shape, dtype=np.int64)))
    return sent(torch.from_numpy(drawn).to(like.dtype).view(*keys.shape, *shape), like.device)


def _shifted(features: Tensor, keys: U64, most: int) -> Tensor:
    """Move windows [k, b, W, C] by whole steps in -most..most."""
    shift = np.floor(streams.uniforms(keys, 1) * (2 * most + 1)).astype(np.int64) - most
    index = np.clip(np.arange(features.shape[2]) - shift, 0, features.shape[2] - 1)
    places = sent(torch.from_numpy(index), features.device)
    return features.gather(2, places.unsqueeze(3).expand_as(features))
