"""Options of local training: optimiser, batches, regularisation, augmentation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from clients.core.errors import require
from clients.core.numbers.bounds import AtMost, Within
from clients.core.options import (
    LossName,
    check_at_least,
    check_below_one,
    check_not_negative,
    check_positive,
    unread_of,
)
from clients.training.schedule_options import ScheduleOptions

OptimizerName = Literal["gd", "sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "adagrad", "newton", "lbfgs"]
OPTIMIZERS: tuple[str, ...] = ("gd", "sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "adagrad")
"""First-order optimisers, which go with every model and every other key."""
SECOND_ORDER: tuple[str, ...] = ("newton", "lbfgs")
"""Optimisers that use curvature: full batch, smooth models."""

TORCH_DECAY = 0.01
"""Default `weight_decay` of `torch.optim.AdamW`."""

READERS: dict[str, tuple[str, ...]] = {
    "momentum": ("momentum", "nesterov"),
    "beta1": ("adam", "adamw"),
    "beta2": ("adam", "adamw"),
    "rho": ("rmsprop",),
    "epsilon": ("adam", "adamw", "rmsprop", "adagrad"),
    "damping": ("newton",),
    "history": ("lbfgs",),
    "line_search": SECOND_ORDER,
}
"""The optimisers that read a constant."""

CLASS_WEIGHT_READERS: dict[str, tuple[str, ...]] = {
    "effective_beta": ("effective",),
    "weights_from": ("inverse", "effective"),
}
"""The class weights that read a key."""


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
            "newton" and "lbfgs" take full-batch steps of convex models: with the Hessian, or with secant pairs. Its
            state is reset each round.
        local_lr: local learning rate, > 0.
        batch_size: examples in a step, or "full".
        local_epochs: passes over the client's data in a round; excludes `local_steps`.
        local_steps: steps in a round; one number, or one for each client.
        drop_last: leave out the partial batch of an epoch (a client smaller than one batch keeps its batch).
        momentum, beta1, beta2, epsilon, rho: constants of the optimisers (rho is the smoothing constant of RMSprop).
        damping: added to the diagonal of the Hessian of "newton" (Levenberg's); shorter steps the larger it is.
        history: secant pairs that "lbfgs" keeps.
        line_search: "none" takes steps of "newton" and "lbfgs" as they are, times local_lr (1 is the method's own
            step); "backtracking" halves a step until the slope at its end is no longer uphill.
        l1: weight of the penalty l1 |w|, as a proximal step: after the optimiser's step, w moves towards 0 by l1 x how
            far the optimiser moves for a gradient of 1, and stops at 0 (soft-thresholding).
        l2: weight of the penalty l2 w^2 / 2; torch's `weight_decay`. It adds l2 w to the gradient, after clipping; with
            adamw it is decoupled.
        decoupled_weight_decay: w is multiplied by 1 - local_lr x this value before each step, as in AdamW. None is
            torch's default, 0.01, for adamw without `l2`, and 0 otherwise.
        clip_norm, clip_value: clip the gradient of each step by its norm over all parameters, or elementwise; the
            gradient of the loss, with noise and the algorithm's correction, and without penalties.
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
        loss: of an example. "auto" is the model's own ("svm" and "perceptron" have one), else cross-entropy for classes
            and the squared error for numbers. For classes also "cross_entropy", and with m the score of the true class
            less the largest other score, "hinge", max(0, 1 - m), "squared_hinge", its square, and "perceptron",
            max(0, -m). Evaluations report the same loss.
        focal_gamma: focal loss -(1 - p_y)^gamma log p_y (Lin et al. 2017, equation 4); 0 is cross-entropy.
        augment: changes of examples before each step.
        devices: devices over which each client's batches are split, by torch's DistributedDataParallel: cards, or as
            many processes where clients train on the CPU; "auto" takes all cards from `engine.device` on, and one
            process. The numbers are those of one device within rounding. Batch normalisation has the statistics of the
            whole batch. Above 1, clients train one after another on the plain engine.
        micro_batch_size: the most examples that pass through the model at once on a device. The gradients of a
            step's micro-batches are accumulated, so a step has the numbers of the whole batch within rounding.
        given_batch_size: no key: the `batch_size` that was given and that a full-batch optimiser replaced by "full".

    A local step, in torch's order: gradient of the loss; noise; the algorithm's correction; clipping by norm, then by
    value; decoupled decay; the optimiser's step along gradient + l2 w; the proximal step of l1.

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
    damping: float = 0.0
    history: Annotated[int, Within(1, 1000, why="each is two vectors as long as the model")] = 10
    line_search: Literal["none", "backtracking"] = "backtracking"
    l1: float = 0.0
    l2: float = 0.0
    decoupled_weight_decay: float | None = None
    clip_norm: float | None = None
    clip_value: float | None = None
    gradient_noise: float = 0.0
    partial_work: float = 0.0
    buffers: Literal["average", "local", "server"] = "average"
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    sampling: Literal["shuffle", "class_balanced"] = "shuffle"
    class_weights: Literal["none", "inverse", "effective"] = "none"
    effective_beta: float = 0.999
    weights_from: Literal["client", "federation"] = "client"
    loss: LossName = "auto"
    focal_gamma: float = 0.0
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    devices: Annotated[int, Within(1, 1024, why="each is a process")] | Literal["auto"] = 1
    micro_batch_size: AtMost | None = None
    given_batch_size: int | None = field(
        default=None, init=False, repr=False, compare=False, metadata={"is_key": False}
    )

    def __post_init__(self) -> None:
        check_positive(self, "local_lr")
        require(
            self.batch_size == "full" or self.batch_size >= 1,
            "batch_size",
            f"must be >= 1 or 'full', got {self.batch_size}",
        )
        check_at_least(self, 1, "local_epochs", "micro_batch_size")
        require(
            self.devices == "auto" or self.devices >= 1,
            "devices",
            f"must be >= 1 or 'auto', got {self.devices}",
        )
        require(all(s >= 1 for s in _each(self.local_steps)), "local_steps", f"must be >= 1, got {self.local_steps}")
        require(
            self.local_epochs is None or self.local_steps is None,
            "local_steps",
            "cannot be combined with local_epochs",
            fix="Give one of the two. To remove the other: --set local_epochs= or --set local_steps=.",
        )
        check_below_one(self, "momentum", "beta1", "beta2", "rho", "effective_beta")
        check_not_negative(self, "damping", "l1", "l2", "gradient_noise", "focal_gamma")
        check_at_least(self, 1, "history")
        if self.decoupled_weight_decay is not None:
            check_not_negative(self, "decoupled_weight_decay")
        for name in ("clip_norm", "clip_value"):
            value = getattr(self, name)
            allowed = value is None or 0 < value < math.inf
            require(allowed, name, f"must be > 0 and finite, got {value}", fix="Leave it out for no clipping.")
        check_positive(self, "epsilon")
        require(0 <= self.partial_work <= 1, "partial_work", f"must be in [0, 1], got {self.partial_work}")
        if self.optimizer in SECOND_ORDER:
            self._check_second_order()
        if self.optimizer in ("gd", *SECOND_ORDER) and self.batch_size != "full":
            object.__setattr__(self, "given_batch_size", self.batch_size)
            object.__setattr__(self, "batch_size", "full")

    def _check_second_order(self) -> None:
        """Refuse keys under which a step is no step of one smooth function."""
        used = {
            "l1": self.l1, "decoupled_weight_decay": self.decoupled_weight_decay, "clip_norm": self.clip_norm,
            "clip_value": self.clip_value, "gradient_noise": self.gradient_noise, "augment": self.augment.any,
            "sampling": self.sampling != "shuffle", "devices": self.devices != 1,
            "micro_batch_size": self.micro_batch_size,
        }  # fmt: skip
        key = next((key for key, value in used.items() if value), "")
        problem = f"is not defined for optimizer {self.optimizer!r}, whose steps are those of one smooth function"
        require(not key, key, problem, fix="Leave it out (l2 is allowed), or choose a first-order optimizer.")

    def unread(self) -> dict[str, str]:
        """Return why a key has no effect, for each key that the other keys leave without one.

        Example:
            >>> LocalOptions(momentum=0.5).unread()["momentum"]
            "optimizer 'sgd' does not read it; 'momentum', 'nesterov' do"
        """
        found = unread_of(self.optimizer, READERS, "optimizer")
        if self.given_batch_size is not None:
            found["batch_size"] = f"optimizer {self.optimizer!r} takes all examples of a client in each step"
        if self.batch_size == "full":
            found["drop_last"] = "with batch_size 'full' no batch is partial"
        if self.micro_batch_size is not None and self.batch_size != "full" and self.micro_batch_size >= self.batch_size:
            found["micro_batch_size"] = f"no batch is larger (batch_size {self.batch_size})"
        if (self.local_epochs or 1) == 1 and set(_each(self.local_steps)) <= {1}:
            work = "one epoch" if self.local_steps is None else "one step"
            found["partial_work"] = f"a client's work is {work} and cannot be less"
        found |= unread_of(self.class_weights, CLASS_WEIGHT_READERS, "class_weights")
        return found

    @property
    def coupled_decay(self) -> float:
        """The factor of w that is added to the gradient."""
        return 0.0 if self.optimizer == "adamw" else self.l2

    @property
    def decoupled_decay(self) -> float:
        """The decay that is applied apart from the gradient: AdamW's `weight_decay`, and `decoupled_weight_decay`."""
        own = self.l2 if self.optimizer == "adamw" else 0.0
        if self.decoupled_weight_decay is not None:
            return own + self.decoupled_weight_decay
        return TORCH_DECAY if self.optimizer == "adamw" and not own else own

    def lr(self, round_index: int) -> float:
        """Return the local learning rate of a round."""
        return self.local_lr * self.schedule.scale(round_index)


def _each(steps: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the numbers of `local_steps`: one, one for each client, or none."""
    return (steps,) if isinstance(steps, int) else steps or ()
