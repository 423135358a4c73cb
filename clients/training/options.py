"""Options of local training: optimiser, batches, regularisation, learning-rate schedule, augmentation."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from clients.core.bounds import AtMost, Rounds
from clients.core.errors import require
from clients.core.options import check_at_least, check_below_one, check_not_negative, check_positive

OptimizerName = Literal["gd", "sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "adagrad"]
OPTIMIZERS: tuple[str, ...] = ("gd", "sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "adagrad")

READERS: dict[str, tuple[str, ...]] = {
    "momentum": ("momentum", "nesterov"),
    "beta1": ("adam", "adamw"),
    "beta2": ("adam", "adamw"),
    "rho": ("rmsprop",),
    "epsilon": ("adam", "adamw", "rmsprop", "adagrad"),
}
"""The optimisers that read a constant."""


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """How `local_lr` changes over rounds: a factor of t = 0, 1, 2, ..., the rounds since the linear warm-up.

    constant: 1; step: `factor`^floor(t / every), or one `factor` after each round of `at`; cosine: from 1 down to
    `floor` at round `rounds`; inverse_time: 1 / (1 + decay t).

    Attributes:
        kind: the schedule.
        warmup_rounds: rounds of linear increase at the start.
        factor: factor of each step.
        every: rounds between steps.
        at: rounds after which a step follows, instead of `every`.
        rounds: round at which the cosine reaches `floor`.
        floor: final value of the cosine, 0 to 1.
        decay: decay per round of inverse_time.
    """

    kind: Literal["constant", "step", "cosine", "inverse_time"] = "constant"
    warmup_rounds: Rounds = 0
    factor: float = 0.1
    every: Rounds | None = None
    at: tuple[Rounds, ...] = ()
    rounds: Rounds | None = None
    floor: float = 0.0
    decay: float = 0.01

    def __post_init__(self) -> None:
        require(self.warmup_rounds >= 0, "schedule.warmup_rounds", f"must be >= 0, got {self.warmup_rounds}")
        require(self.factor > 0, "schedule.factor", f"must be > 0, got {self.factor}")
        require(0 <= self.floor <= 1, "schedule.floor", f"must be in [0, 1], got {self.floor}")
        require(self.decay >= 0, "schedule.decay", f"must be >= 0, got {self.decay}")
        if self.kind == "step":
            either = (self.every is None) == bool(self.at)
            require(either, "schedule.every", "a step schedule needs either `every` or `at`")
            require(self.every is None or self.every >= 1, "schedule.every", f"must be >= 1, got {self.every}")
        if self.kind == "cosine":
            given = self.rounds is not None and self.rounds >= 1
            require(given, "schedule.rounds", "a cosine schedule needs `rounds` >= 1")

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
class AugmentOptions:
    """Changes of training examples before each local step, in this order; 0 turns each off.

    Attributes:
        time_shift: windows [W, C] move by a whole number of steps, uniform in -time_shift..time_shift, along the time
            axis; the reading at the edge fills the gap.
        scaling: standard deviation of factors 1 + scaling N(0, 1): one for each channel of a window [W, C] (Um et al.
            2017), one for each example of any other shape.
        jitter: standard deviation of Gaussian noise added to every number of the features, in their units.
        mixup: alpha of Beta(alpha, alpha), from which each step of a client draws its share s. Examples become
            s x + (1 - s) x', where x' is another example of the batch, by a random permutation. Losses become
            s l(y) + (1 - s) l(y'), or the squared error to s y + (1 - s) y' (Zhang et al. 2018, equation 2).
    """

    time_shift: int = 0
    scaling: float = 0.0
    jitter: float = 0.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        for name in ("time_shift", "scaling", "jitter", "mixup"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"augment.{name}", f"must be >= 0, got {value}")

    @property
    def any(self) -> bool:
        """Whether anything is changed."""
        return bool(self.time_shift or self.scaling or self.jitter or self.mixup)


@dataclass(frozen=True, kw_only=True)
class LocalOptions:
    """Local training of one client in one round.

    Attributes:
        optimizer: as in `torch.optim`; "gd" is full-batch SGD; "momentum" and "nesterov" are SGD with `momentum`.
            Its state is reset each round.
        local_lr: local learning rate, > 0.
        batch_size: examples in a step, or "full".
        local_epochs: passes over the client's data in a round; excludes `local_steps`.
        local_steps: steps in a round; one number, or one for each client.
        drop_last: leave out the partial batch of an epoch (a client smaller than one batch keeps its batch).
        momentum, beta1, beta2, epsilon, rho: constants of the optimisers (rho is the smoothing constant of RMSprop).
        l1, l2: penalty weights; they add l1 sign(w) and l2 w to the gradient (l2 is torch's `weight_decay`).
        decoupled_weight_decay: w is multiplied by 1 - local_lr x this value before each step, as in AdamW.
        clip_norm, clip_value: clip the gradient of each step by its norm over all parameters, or elementwise.
        gradient_noise: standard deviation, per coordinate, of Gaussian noise added to every step's gradient.
        partial_work: share of clients that do only 1 to E - 1 of their E local epochs (or steps) in a round, drawn
            uniformly (the systems heterogeneity of Li et al. 2020).
        buffers: "average" (weighted mean, as for parameters), "local" (each client keeps its own, and the server keeps
            the mean for evaluation), "server" (clients start from the server's buffers, and theirs are discarded).
        schedule: schedule of `local_lr` over rounds.
        sampling: "shuffle" (each epoch is a permutation of the client's examples) or "class_balanced" (each
            example of a batch is drawn with replacement, and each class of the client is equally likely; the number of
            steps is the same).
        class_weights: "none", "inverse" (by the class's number of examples) or "effective" (by its effective number,
            Cui et al. 2019); the mean weight over the counted examples is 1. The loss of a step is the mean of w_y l
            over its batch. It is not divided by the sum of the batch's weights: that would favour common classes, and
            the weights would cancel in a batch of one class.
        effective_beta: constant of "effective"; 0 gives equal weights, and values near 1 approach "inverse".
        weights_from: the examples counted for class weights: each client's own ("client"), or all ("federation").
        focal_gamma: focal loss -(1 - p_y)^gamma log p_y (Lin et al. 2017, equation 4); 0 is cross-entropy.
        augment: changes of examples before each step.

    The recorded `train_loss` is the training loss: weighted, focal, on augmented examples, without penalties.
    """

    optimizer: OptimizerName = "sgd"
    local_lr: float = 0.1
    batch_size: AtMost | Literal["full"] = 16
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
        check_positive(self, "local_lr")
        require(
            self.batch_size == "full" or self.batch_size >= 1,
            "batch_size",
            f"must be >= 1 or 'full', got {self.batch_size}",
        )
        check_at_least(self, 1, "local_epochs")
        steps = (self.local_steps,) if isinstance(self.local_steps, int) else self.local_steps or ()
        require(all(s >= 1 for s in steps), "local_steps", f"must be >= 1, got {self.local_steps}")
        require(
            self.local_epochs is None or self.local_steps is None,
            "local_steps",
            "cannot be combined with local_epochs",
            fix="Give one of the two. To remove the other: --set local_epochs= or --set local_steps=.",
        )
        check_below_one(self, "momentum", "beta1", "beta2", "rho", "effective_beta")
        check_not_negative(self, "l1", "l2", "decoupled_weight_decay", "gradient_noise", "focal_gamma")
        for name in ("clip_norm", "clip_value"):
            value = getattr(self, name)
            require(value is None or value > 0, name, f"must be > 0, got {value}")
        require(self.epsilon > 0, "epsilon", f"must be > 0, got {self.epsilon}")
        require(0 <= self.partial_work <= 1, "partial_work", f"must be in [0, 1], got {self.partial_work}")
        if self.optimizer == "gd" and self.batch_size != "full":
            object.__setattr__(self, "batch_size", "full")

    def unread(self, named: Collection[str] = ()) -> list[str]:
        """Return a sentence for each constant that was changed and that the optimiser does not read.

        Args:
            named: keys that count as changed even at their default.

        Example:
            >>> LocalOptions(momentum=0.5).unread()
            ["local.momentum = 0.5 has no effect: optimizer 'sgd' does not read it; 'momentum', 'nesterov' do"]
        """
        sentences, default = [], LocalOptions.__dataclass_fields__
        for key, readers in READERS.items():
            value = getattr(self, key)
            if self.optimizer not in readers and (key in named or value != default[key].default):
                does = "do" if len(readers) > 1 else "does"
                who = ", ".join(map(repr, readers))
                sentences.append(
                    f"local.{key} = {value} has no effect: optimizer {self.optimizer!r} does not read it; {who} {does}"
                )
        return sentences

    def lr(self, round_index: int) -> float:
        """Return the local learning rate of a round."""
        return self.local_lr * self.schedule.scale(round_index)
