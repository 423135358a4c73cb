"""What a client's local training is: optimiser, batches, regularisation, learning-rate schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from clients.core import streams
from clients.core.arrays import I64
from clients.core.errors import UserError, require
from clients.core.options import STRICT
from clients.training.augment import AugmentOptions

OptimizerName = Literal["gd", "sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "adagrad"]
OPTIMIZERS: tuple[str, ...] = ("gd", "sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "adagrad")


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """How `local_lr` changes over rounds: a factor of the round t = 1, 2, ... after `warmup_rounds` of linear rise.

    constant 1; step `factor`^floor(t / every) (or one `factor` at each round of `at`); cosine from 1 to `floor` at
    `rounds`; inverse_time 1 / (1 + decay t).
    """

    __pydantic_config__: ClassVar = STRICT
    kind: Literal["constant", "step", "cosine", "inverse_time"] = "constant"
    warmup_rounds: int = 0
    factor: float = 0.1
    every: int | None = None
    at: tuple[int, ...] = ()
    rounds: int | None = None
    floor: float = 0.0
    decay: float = 0.01

    def __post_init__(self) -> None:
        require(self.warmup_rounds >= 0, "schedule.warmup_rounds", f"must be >= 0, got {self.warmup_rounds}")
        require(self.factor > 0, "schedule.factor", f"must be > 0, got {self.factor}")
        require(0 <= self.floor <= 1, "schedule.floor", f"must be in [0, 1], got {self.floor}")
        require(self.decay >= 0, "schedule.decay", f"must be >= 0, got {self.decay}")
        if self.kind == "step":
            require(
                (self.every is None) == bool(self.at), "schedule.every", "a step schedule needs either `every` or `at`"
            )
            require(self.every is None or self.every >= 1, "schedule.every", f"must be >= 1, got {self.every}")
        if self.kind == "cosine":
            require(
                self.rounds is not None and self.rounds >= 1, "schedule.rounds", "a cosine schedule needs `rounds` >= 1"
            )

    def scale(self, round_index: int) -> float:
        """Return the factor of `local_lr` in round `round_index` (from 1)."""
        if round_index <= self.warmup_rounds:
            return round_index / (self.warmup_rounds + 1)
        t = round_index - 1 - self.warmup_rounds
        if self.kind == "step":
            drops = t // self.every if self.every else sum(round_index > r for r in self.at)
            return self.factor**drops
        if self.kind == "cosine":
            assert self.rounds is not None
            done = min(1.0, t / max(1, self.rounds - 1 - self.warmup_rounds))
            return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done))
        return 1 / (1 + self.decay * t) if self.kind == "inverse_time" else 1.0


@dataclass(frozen=True, kw_only=True)
class LocalOptions:
    """Local training of one client in one round.

    Attributes:
        optimizer: as in `torch.optim`; "gd" is full-batch SGD; "momentum" and "nesterov" are SGD with `momentum`.
            The optimiser's state starts afresh each round.
        local_lr: local learning rate, > 0.
        batch_size: examples a step, or "full".
        local_epochs: passes over the client's data a round; exclusive with `local_steps`.
        local_steps: steps a round; one number, or one for each client.
        drop_last: leave out an epoch's partial batch (a client smaller than one batch keeps its only one).
        momentum, beta1, beta2, epsilon, rho: of the optimisers (rho is RMSprop's smoothing constant).
        l1, l2: penalty weights; they add l1 sign(w) and l2 w to the gradient (l2 is torch's `weight_decay`).
        decoupled_weight_decay: w is multiplied by 1 - local_lr x this before each step (as AdamW does).
        clip_norm, clip_value: clip each step's gradient, all parameters together by norm, or elementwise.
        gradient_noise: standard deviation, per coordinate, of Gaussian noise added to every step's gradient.
        partial_work: share of clients that in a round do only 1..E-1 of their E local epochs (or steps), drawn
            uniformly (the systems heterogeneity of Li et al. 2020).
        buffers: "average" (weighted mean, as parameters), "local" (each client keeps its own; the server keeps the
            mean for evaluation), "server" (clients start from the server's and theirs are discarded).
        schedule: of `local_lr` over rounds.
        sampling: "shuffle" (each epoch is a permutation of the client's examples) or "class_balanced" (every example of
            a batch is drawn afresh, each class that the client has being equally likely; as many steps as otherwise).
        class_weights: "none", "inverse" (to the class's number of examples) or "effective" (to its effective number,
            Cui et al. 2019); their mean over the counted examples is 1. A step's loss is the mean over its batch of
            w_y l: it is not divided by the batch's sum of weights, which would bias it towards common classes (and
            leave no weight at all in a batch of one class).
        effective_beta: of "effective"; 0 weighs classes alike, towards 1 it becomes "inverse".
        weights_from: whose examples are counted: each "client" its own, or those of the "federation", added up.
        focal_gamma: focal loss -(1 - p_y)^gamma log p_y (Lin et al. 2017, equation 4); 0 is cross-entropy.
        augment: how examples are changed before each step.

    The recorded `train_loss` is what was trained: weighted, focal and of augmented examples, without penalties.
    """

    __pydantic_config__: ClassVar = STRICT
    optimizer: OptimizerName = "sgd"
    local_lr: float = 0.1
    batch_size: int | Literal["full"] = 16
    local_epochs: int | None = None
    local_steps: int | tuple[int, ...] | None = None
    drop_last: bool = False
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    rho: float = 0.99
    l1: float = 0.0
    l2: float = 0.0
    decoupled_weight_decay: float = 0.0
    clip_norm: float | None = None
    clip_value: float | None = None
    gradient_noise: float = 0.0
    partial_work: float = 0.0
    buffers: Literal["average", "local", "server"] = "average"
    schedule: ScheduleOptions = ScheduleOptions()
    sampling: Literal["shuffle", "class_balanced"] = "shuffle"
    class_weights: Literal["none", "inverse", "effective"] = "none"
    effective_beta: float = 0.999
    weights_from: Literal["client", "federation"] = "client"
    focal_gamma: float = 0.0
    augment: AugmentOptions = field(default_factory=AugmentOptions)

    def __post_init__(self) -> None:
        require(math.isfinite(self.local_lr) and self.local_lr > 0, "local_lr", f"must be > 0, got {self.local_lr}")
        require(
            self.batch_size == "full" or self.batch_size >= 1,
            "batch_size",
            f"must be >= 1 or 'full', got {self.batch_size}",
        )
        require(
            self.local_epochs is None or self.local_epochs >= 1,
            "local_epochs",
            f"must be >= 1, got {self.local_epochs}",
        )
        steps = (self.local_steps,) if isinstance(self.local_steps, int) else self.local_steps or ()
        require(all(s >= 1 for s in steps), "local_steps", f"must be >= 1, got {self.local_steps}")
        require(
            self.local_epochs is None or self.local_steps is None,
            "local_steps",
            "cannot stand beside local_epochs",
            fix="Give one of the two.",
        )
        for name in ("momentum", "beta1", "beta2", "rho", "effective_beta"):
            value = getattr(self, name)
            require(0 <= value < 1, name, f"must be in [0, 1), got {value}")
        for name in ("l1", "l2", "decoupled_weight_decay", "gradient_noise", "focal_gamma"):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, name, f"must be >= 0, got {value}")
        for name in ("clip_norm", "clip_value"):
            value = getattr(self, name)
            require(value is None or value > 0, name, f"must be > 0, got {value}")
        require(self.epsilon > 0, "epsilon", f"must be > 0, got {self.epsilon}")
        require(0 <= self.partial_work <= 1, "partial_work", f"must be in [0, 1], got {self.partial_work}")
        if self.optimizer == "gd" and self.batch_size != "full":
            object.__setattr__(self, "batch_size", "full")

    def lr(self, round_index: int) -> float:
        """Return the local learning rate of a round."""
        return self.local_lr * self.schedule.scale(round_index)


def batches_per_epoch(local: LocalOptions, sizes: I64) -> I64:
    """Return how many batches each client's epoch has, int64 (K,); 0 for an empty client."""
    if local.batch_size == "full":
        return np.minimum(sizes, 1)
    whole, rest = np.divmod(sizes, local.batch_size)
    return np.where(local.drop_last & (whole > 0), whole, whole + (rest > 0))


def count_steps(local: LocalOptions, sizes: I64, clients: I64, *, seed: int, round_index: int) -> I64:
    """Return the local steps of each client in a round, int64 (K,), after `partial_work`; 0 for an empty client."""
    per_epoch = batches_per_epoch(local, sizes)
    if local.local_steps is None:
        units, unit = np.full(len(clients), local.local_epochs or 1), per_epoch
    else:
        each = np.asarray(local.local_steps, np.int64)
        units = np.full(len(clients), each) if each.ndim == 0 else each[clients]
        unit = np.minimum(sizes, 1)
    if local.partial_work:
        draw = streams.uniforms(streams.keys(seed, "partial_work", round_index, clients), 2)
        fewer = 1 + np.floor(draw[:, 1] * np.maximum(units - 1, 0)).astype(np.int64)
        units = np.where((draw[:, 0] < local.partial_work) & (units > 1), np.minimum(fewer, units - 1), units)
    return np.asarray(units * unit, np.int64)


def plan_counts(local: LocalOptions, sizes: I64, steps: I64) -> I64:
    """Return how many examples each step of each client sees, int64 (K, S); 0 past a client's last step."""
    width = batch_width(local, sizes)
    step = np.arange(int(steps.max(initial=0)))[None, :]
    per_epoch = np.maximum(batches_per_epoch(local, sizes), 1)
    counts: I64 = np.clip(sizes[:, None] - step % per_epoch[:, None] * width, 0, width) * (step < steps[:, None])
    return counts


def batch_width(local: LocalOptions, sizes: I64) -> int:
    """Return the examples of the largest batch there can be."""
    width = max(1, int(sizes.max(initial=1)))
    return width if local.batch_size == "full" else min(local.batch_size, width)


@dataclass(frozen=True)
class Batches:
    """Which examples each client's local steps use.

    Attributes:
        rows: int64 (K, S, B), positions in `CohortData.rows`-order of the whole cohort's `features`; padding repeats
            one of the client's rows.
        counts: int64 (K, S), examples in each batch; 0 past a client's last step.
        steps: int64 (K,).
    """

    rows: I64
    counts: I64
    steps: I64


def plan_batches(
    local: LocalOptions, rows: I64, offsets: I64, steps: I64, clients: I64, *, seed: int, round_index: int
) -> Batches:
    """Draw every batch of a round for K clients: each epoch is a fresh permutation of the client's examples.

    A client that fits in one batch takes its examples in their order: a permutation would change nothing but rounding.

    Args:
        local: batch size and whether partial batches are dropped.
        rows: int64 (M,), the clients' example indices, client after client.
        offsets: int64 (K + 1,), where each client's rows start and end.
        steps: int64 (K,), local steps of each client.
        clients: int64 (K,), client indices; client k's batches depend on (seed, round, clients[k]) alone.
        seed: root seed.
        round_index: the round.
    """
    sizes = np.diff(offsets)
    width = batch_width(local, sizes)
    per_epoch = np.maximum(batches_per_epoch(local, sizes), 1)
    counts = plan_counts(local, sizes, steps)
    most = counts.shape[1]
    order = np.zeros((len(clients), most * width), np.int64)
    small = np.flatnonzero(sizes <= width)
    if len(small):
        in_order = np.minimum(np.arange(width), np.maximum(sizes[small, None] - 1, 0))
        order[small] = np.tile(in_order, most)
    large = np.flatnonzero(sizes > width)
    if len(large):
        epochs = -(-steps[large] // per_epoch[large])
        client = np.repeat(large, epochs)
        epoch = np.arange(len(client)) - np.repeat(np.cumsum(epochs) - epochs, epochs)
        for part in _alike(sizes[client]):
            k, e = client[part], epoch[part]
            drawn = streams.permutations(streams.keys(seed, "batches", round_index, clients[k], e), sizes[k])
            start, end = e * per_epoch[k] * width, np.minimum((e + 1) * per_epoch[k], steps[k]) * width
            _write_runs(order, k, start, np.minimum(end - start, sizes[k]), drawn)
    order += np.minimum(offsets[:-1, None], max(0, len(rows) - 1))  # an empty last client starts past the end
    chosen = rows[order] if len(rows) else order
    return Batches(chosen.reshape(len(clients), most, width), counts, steps)


def _alike(sizes: I64) -> list[I64]:
    """Cut positions into groups of similar size, so that a few large rows do not widen the work for small ones."""
    if len(sizes) * int(sizes.max()) <= 2 * int(sizes.sum()) + 50_000:
        return [np.arange(len(sizes))]
    octave = np.frexp(sizes.astype(np.float64))[1]
    return [np.flatnonzero(octave == o) for o in np.unique(octave)]


def _write_runs(out: I64, rows: I64, start: I64, length: I64, values: I64) -> None:
    """Set out[rows[i], start[i] : start[i] + length[i]] = values[i, : length[i]] for every i."""
    width = int(length.max())
    if (length == width).all() and (start == start[0]).all():
        out[rows, int(start[0]) : int(start[0]) + width] = values[:, :width]
        return
    position = np.arange(width)[None, :]
    where = (rows * out.shape[1] + start)[:, None] + position
    used = position < length[:, None]
    out.reshape(-1)[where[used]] = values[:, :width][used]


def check_batches_of_one(local: LocalOptions, sizes: I64) -> None:
    """Refuse batches of one example, for models with batch normalisation.

    Raises:
        UserError: naming how many clients have one, and a fix.
    """
    sizes = sizes[sizes > 0]
    if local.batch_size == "full":
        alone = sizes == 1
    else:
        rest = sizes % local.batch_size
        alone = (sizes == 1) | ((rest == 1) & ~(local.drop_last & (sizes > local.batch_size))) | (local.batch_size == 1)
    if alone.any():
        raise UserError(
            "batch_size",
            f"batch normalisation needs batches of at least 2 examples, and {int(alone.sum())} clients would train on "
            f"one example alone (such as one of {int(sizes[alone][0])} examples at batch_size {local.batch_size})",
            fix="Set drop_last, another batch_size, a larger minimum client size, or group normalisation.",
        )
