"""Remedies for unequal classes: class-balanced batches, and class weights in the loss."""

from __future__ import annotations

import numpy as np

from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.errors import UserError
from clients.core.examples import CohortData
from clients.core.population import Population
from clients.core.ragged import label_counts_of
from clients.training.local import Batches, batch_width, plan_batches, plan_counts
from clients.training.losses import MARGIN_LOSSES
from clients.training.options import LocalOptions

MOST_COUNTED = 1000
"""The most clients whose class counts are added up for `weights_from = "federation"`; a seeded sample of them."""
COUNTED_TOGETHER = 256
"""Clients counted together, which bounds the data that an on-demand population generates at once."""


def check_balance(local: LocalOptions, population: Population) -> None:
    """Check that the data have class labels where a remedy or a loss needs them, and that the loss has a focal form.

    Raises:
        UserError: they have not, or it has not; the error names the option.
    """
    if population.task == "classification":
        if local.focal_gamma and local.loss in MARGIN_LOSSES:
            problem = f"is {local.focal_gamma}, and the loss is {local.loss!r}: only cross-entropy has a focal form"
            raise UserError("local.focal_gamma", problem, fix="Leave it out, or set local.loss = 'cross_entropy'.")
        return
    used = {"sampling": local.sampling != "shuffle", "class_weights": local.class_weights != "none",
            "loss": local.loss != "auto", "focal_gamma": local.focal_gamma > 0}  # fmt: skip
    for name, is_used in used.items():
        if is_used:
            problem = f"is {getattr(local, name)!r}, which needs class labels, and this is {population.task}"
            raise UserError(f"local.{name}", problem, fix="Leave it out, or use data with class labels.")


def draw_batches(
    local: LocalOptions, data: CohortData, steps: I64, clients: I64, *, seed: int, round_index: int
) -> Batches:
    """Draw every batch of a round by `local.sampling`; see `clients.training.local.plan_batches`."""
    if local.sampling == "shuffle":
        return plan_batches(local, data.rows, data.offsets, steps, clients, seed=seed, round_index=round_index)
    return plan_balanced(local, data, steps, clients, seed=seed, round_index=round_index)


def plan_balanced(
    local: LocalOptions, data: CohortData, steps: I64, clients: I64, *, seed: int, round_index: int
) -> Batches:
    """Draw every batch of a round for K clients, with replacement; each class of a client is equally likely.

    Each draw takes one of the client's classes uniformly, then one of its examples of that class uniformly. Numbers of
    steps and batch sizes are those of `plan_batches`; a full batch has as many draws as the client has examples. The
    draws of client k depend only on (seed, round, clients[k]) and its labels.
    """
    sizes = data.sizes
    counts = plan_counts(local, sizes, steps)
    width = batch_width(local, sizes)
    labels = data.targets.numpy()[data.rows]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    grouped = data.rows[np.lexsort((labels, owner))]
    held, number = _cells(owner, labels)
    first = np.cumsum(number) - number  # start of each cell (client, class) among the grouped rows
    classes = np.bincount(held, minlength=len(sizes))
    start = np.cumsum(classes) - classes  # first cell of each client
    step = np.arange(counts.shape[1])
    drawn = streams.hashes(streams.keys(seed, "balanced batches", round_index, clients[:, None], step[None, :]), width)
    if not len(number):
        return Batches(np.zeros(drawn.shape, np.int64), counts, steps)
    # The two halves of a hash choose a class and an example: x n >> 32 is uniform in 0..n-1 up to n 2**-32.
    chosen = ((drawn >> np.uint64(32)) * np.maximum(classes, 1).astype(np.uint64)[:, None, None]) >> np.uint64(32)
    cell = np.minimum(start[:, None, None] + chosen.astype(np.int64), len(number) - 1)  # the last client may be empty
    place = ((drawn & np.uint64(0xFFFFFFFF)) * number[cell].astype(np.uint64)) >> np.uint64(32)
    return Batches(grouped[first[cell] + place.astype(np.int64)], counts, steps)


def _cells(owner: I64, labels: I64) -> tuple[I64, I64]:
    """Return the (client, class) pairs with examples, sorted: the client of each, and its number of examples."""
    classes = 1 + int(labels.max(initial=0))
    pairs, number = np.unique(owner * classes + labels, return_counts=True)
    return pairs // classes, number


def weights_of(counts: I64, local: LocalOptions) -> F64:
    """Return the weight of each class by its number of examples; the mean weight over these examples is 1.

    With n_y examples of class y, n in all: "inverse" is proportional to 1 / n_y; "effective" to 1 / E_y, where
    E_y = (1 - beta^n_y) / (1 - beta) is the effective number of examples (Cui et al. 2019, equation 2). Both are then
    divided by sum_y n_y w_y / n, so that the mean weight is 1 and the learning rate keeps its meaning (Cui et al. set
    sum_y w_y to the number of classes instead). A class without examples gets the weight of one example.

    Args:
        counts: int64 (..., classes).
        local: `class_weights` and `effective_beta`.

    Returns:
        float64 (..., classes); all 1 where there are no examples.

    Example:
        >>> weights_of(np.array([1, 3]), LocalOptions(class_weights="inverse")).tolist()
        [2.0, 0.6666666666666666]
    """
    n = np.maximum(counts, 1).astype(np.float64)
    raw = 1.0 / n if local.class_weights == "inverse" else _by_effective_number(n, local.effective_beta)
    mean = (counts * raw).sum(-1, keepdims=True) / np.maximum(counts.sum(-1, keepdims=True), 1)
    found: F64 = np.where(mean > 0, raw / np.where(mean > 0, mean, 1.0), 1.0)
    return found


def _by_effective_number(n: F64, beta: float) -> F64:
    found: F64 = (1.0 - beta) / -np.expm1(n * np.log(beta)) if beta else np.ones_like(n)
    return found


def federation_counts(local: LocalOptions, population: Population, seed: int) -> I64 | None:
    """Add up the clients' class counts before the first round, int64 (classes,); None where no weights need them.

    Clients report counts only. At most `MOST_COUNTED` clients are counted.
    """
    if local.class_weights == "none" or local.weights_from == "client":
        return None
    now = population.during(0)
    busy = np.flatnonzero(now.sizes).astype(np.int64)
    counted = busy[streams.choose(streams.keys(seed, "class counts"), len(busy), min(len(busy), MOST_COUNTED))]
    count = now.clients.label_counts or label_counts_of(now.cohort, now.outputs)
    parts = [count(part).sum(0) for part in np.array_split(counted, max(1, -(-len(counted) // COUNTED_TOGETHER)))]
    total: I64 = np.sum(parts, axis=0).astype(np.int64)
    return total
