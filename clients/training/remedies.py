"""Apply the remedies of `[local]` to a batch: augmented features, and factors of its losses."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import I64
from clients.core.examples import CohortData
from clients.core.ragged import label_counts_of
from clients.training.augment import Mixed, augment, mix
from clients.training.class_balance import weights_of
from clients.training.task import LearningTask


def class_weight_table(task: LearningTask, data: CohortData, *, of_objective: bool = False) -> Tensor | None:
    """Return the weight of each class in each client's loss, [K, classes]; None where all weights are equal.

    Args:
        task: the options, and the federation's class counts where weights use them.
        data: the K clients' examples.
        of_objective: whether the weights are for full gradients, which use every example once. A full gradient is that
            of the expected loss of a local step, so under balanced sampling the weight of an example gets the factor
            n / (classes held x n_y).
    """
    local, classes = task.local, task.population.outputs
    balanced = of_objective and local.sampling == "class_balanced"
    if local.class_weights == "none" and not balanced:
        return None
    own = label_counts_of(lambda _: data, classes)(np.arange(len(data.sizes)))
    table = np.ones(own.shape)
    if local.class_weights != "none":
        table *= weights_of(own if task.class_counts is None else task.class_counts, local)
    if balanced:
        held = (own > 0).sum(1, keepdims=True)
        table *= np.where(own > 0, own.sum(1, keepdims=True) / np.maximum(held * own, 1), 1.0)
    return torch.from_numpy(table).to(task.dtype)


def remedied(
    task: LearningTask,
    features: Tensor,
    targets: Tensor,
    weights: Tensor | None,
    counts: I64,
    clients: I64,
    *,
    round_index: int,
    step: int | None,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return features, targets and `Batch.remedy` of the batches of k clients under the remedies of `task.local`.

    Args:
        task: the learning task.
        features: [k, b, *feature_shape].
        targets: [k, b] or [k, b, outputs].
        weights: class weights in each client's loss, [k, classes]; None where all are equal.
        counts: examples of each batch that are not padding, int64 (k,).
        clients: int64 (k,).
        round_index: the round.
        step: the local step, from 0; None leaves augmentation out, for full gradients.
    """
    mixed: Mixed | None = None
    if step is not None and task.local.augment.any:
        features, mixed = augment(
            task.local.augment, features, counts, clients, seed=task.seed, round_index=round_index, step=step
        )
    if task.population.task != "classification":
        return features, targets if mixed is None else mix(targets, mixed), {}
    scales = None if weights is None else weights.gather(1, targets)
    if mixed is None:
        return features, targets, {} if scales is None else {"scales": scales}
    scales = torch.ones(targets.shape, dtype=task.dtype, device=targets.device) if scales is None else scales
    others = {"others": targets.gather(1, mixed.partner), "other_scales": scales.gather(1, mixed.partner)}
    others["other_scales"] *= 1 - mixed.share
    return features, targets, {"scales": mixed.share * scales, **others}
