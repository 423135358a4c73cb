"""Augmentation of training batches: the examples a local step sees, changed by addressed random numbers.

Every number is addressed by (seed, round, client, local step, position in the batch), so all engines change a batch in
the same way, and no client's numbers depend on who trains beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from clients.core import streams
from clients.core.arrays import I64, U64
from clients.core.errors import UserError, require
from clients.core.options import STRICT
from clients.core.population import Population


@dataclass(frozen=True, kw_only=True)
class AugmentOptions:
    """How training examples are changed before each local step, in this order; 0 leaves each out.

    Attributes:
        time_shift: windows [W, C] move by a whole number of steps, uniform in -time_shift..time_shift, along the time
            axis; the reading at the edge fills what becomes empty.
        scaling: standard deviation of factors 1 + scaling N(0, 1): one a channel of a window [W, C] (Um et al. 2017),
            one an example of any other shape.
        jitter: standard deviation of Gaussian noise added to every number of the features, in their units.
        mixup: alpha of Beta(alpha, alpha), from which each step of a client draws its share s: examples become
            s x + (1 - s) x', where x' is another of the batch (a random permutation of it), and losses
            s l(y) + (1 - s) l(y'), or the squared error to s y + (1 - s) y' (Zhang et al. 2018, equation 2).
    """

    __pydantic_config__: ClassVar = STRICT
    time_shift: int = 0
    scaling: float = 0.0
    jitter: float = 0.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        for name in ("time_shift", "scaling", "jitter", "mixup"):
            value = getattr(self, name)
            require(np.isfinite(value) and value >= 0, f"augment.{name}", f"must be >= 0, got {value}")

    @property
    def any(self) -> bool:
        """Whether anything is changed."""
        return bool(self.time_shift or self.scaling or self.jitter or self.mixup)


@dataclass(frozen=True)
class Mixed:
    """What mixup made of a batch's targets.

    Attributes:
        partner: position in the batch of what each example is mixed with, int64 [k, b].
        share: share of its own, [k, 1].
    """

    partner: Tensor
    share: Tensor


def check_augment(options: AugmentOptions, population: Population) -> None:
    """Refuse what cannot be done to these examples.

    Raises:
        UserError: naming the option.
    """
    if not options.any:
        return
    named = next(n for n in ("time_shift", "scaling", "jitter", "mixup") if getattr(options, n))
    if population.task == "objective":
        problem = "changes training examples, and an objective's are the numbers of a function"
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
        options: what is done.
        features: [k, b, *feature_shape], floating-point; not written to.
        counts: examples of each batch that are not padding, int64 (k,).
        clients: int64 (k,).
        seed: root seed.
        round_index: the round.
        step: the local step, from 0.

    Returns:
        The features, and what mixup did; None without mixup.
    """
    k, b = features.shape[:2]
    address = (round_index, clients[:, None], step, np.arange(b)[None, :])
    if options.time_shift:
        features = _shifted(features, streams.keys(seed, "augment time_shift", *address), options.time_shift)
    if options.scaling:
        shape = (1, features.shape[3]) if features.dim() == 4 else (1,) * (features.dim() - 2)
        noise = _normals(streams.keys(seed, "augment scaling", *address), shape, features.dtype)
        features = features * noise.mul_(options.scaling).add_(1.0)
    if options.jitter:
        noise = _normals(streams.keys(seed, "augment jitter", *address), tuple(features.shape[2:]), features.dtype)
        features = features + noise.mul_(options.jitter)
    if not options.mixup:
        return features, None
    key = streams.keys(seed, "augment mixup", round_index, clients, step)
    from scipy.special import betaincinv  # a tenth of a second: only where it is needed

    share = betaincinv(options.mixup, options.mixup, streams.uniforms(key, 1))
    order = streams.permutations(streams.keys(seed, "augment partner", round_index, clients, step), counts)
    order = np.concatenate((order, np.broadcast_to(np.arange(order.shape[1], b), (k, b - order.shape[1]))), axis=1)
    mixed = Mixed(torch.from_numpy(order), torch.from_numpy(share).to(features.dtype))
    return mix(features, mixed), mixed


def mix(values: Tensor, mixed: Mixed) -> Tensor:
    """Return share x own + (1 - share) x partner's of values [k, b, ...], by batch."""
    k = len(values)
    share = mixed.share.view(k, *[1] * (values.dim() - 1))
    others = values[torch.arange(k)[:, None], mixed.partner]
    return share * values + (1.0 - share) * others


def _normals(keys: U64, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return standard normal numbers [*keys.shape, *shape]; those of a key depend on the key alone."""
    drawn = streams.normals(keys, int(np.prod(shape, dtype=np.int64)))
    return torch.from_numpy(drawn).to(dtype).view(*keys.shape, *shape)


def _shifted(features: Tensor, keys: U64, most: int) -> Tensor:
    """Move windows [k, b, W, C] by whole steps in -most..most."""
    shift = np.floor(streams.uniforms(keys, 1) * (2 * most + 1)).astype(np.int64) - most
    index = torch.from_numpy(np.clip(np.arange(features.shape[2]) - shift, 0, features.shape[2] - 1))
    return features.gather(2, index.unsqueeze(3).expand_as(features))
