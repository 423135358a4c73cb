"""Jobs and their results as messages: the work of a cohort, updates, evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import I64
from clients.core.examples import FaultCounts
from clients.engines.evaluation import CohortEvaluation, ExampleScores
from clients.training.class_metrics import ClassCounts
from clients.training.work import CohortUpdate, CohortWork, LocalWork

_COLUMNS = ("num_examples", "local_steps", "train_loss", "train_errors", "client_drift", "gradient_norm")
_EVALUATED = ("num_examples", "loss", "score")


def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under a common prefix."""
    return {f"{prefix}/{name}": t for name, t in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that have a prefix, without it."""
    start = f"{prefix}/"
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def work_tensors(work: CohortWork) -> dict[str, Tensor]:
    """Return what a worker needs of a cohort's work, except its clients; it has the rule and the uplink."""
    return {"params": work.params, "buffers": work.buffers, **named("broadcast", work.broadcast)}


def work_of(round_index: int, tensors: Mapping[str, Tensor], clients: I64, local: LocalWork | None) -> CohortWork:
    """Return the work of some clients; `local` has the rule and the uplink, None for the plain ones."""
    local = local or LocalWork()
    return CohortWork(
        round_index=round_index,
        clients=clients,
        params=tensors["params"],
        buffers=tensors["buffers"],
        rule=local.rule,
        uplink=local.uplink,
        broadcast=under("broadcast", tensors),
    )


def update_columns(update: CohortUpdate) -> dict[str, Tensor]:
    """Return an update's numbers for each client, without its rows."""
    found = {name: torch.from_numpy(np.ascontiguousarray(getattr(update, name))) for name in ("clients", *_COLUMNS)}
    if update.fault_counts is not None:
        for kind in ("changed", "effect"):
            counts: Mapping[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = getattr(update.fault_counts, kind)
            found |= named(kind, {name: torch.from_numpy(v) for name, v in counts.items()})
        found["has_faults"] = torch.ones(0)
    if update.hashes is not None:
        found["hashes"] = torch.from_numpy(update.hashes)
    return found


def update_rows(update: CohortUpdate) -> dict[str, Tensor]:
    """Return an update's rows by the names of their sections."""
    return {"params": update.params, "buffers": update.buffers, **named("extras", update.extras)}


def update_of(columns: Mapping[str, Tensor], rows: Mapping[str, Tensor], seconds: float) -> CohortUpdate:
    """Return the update that `update_columns` and `update_rows` took apart; empty rows where there are none."""
    clients = columns["clients"].numpy()
    empty = torch.zeros(len(clients), 0)
    faults = None
    if "has_faults" in columns:
        changed, effect = (
            {name: t.numpy() for name, t in under(kind, columns).items()} for kind in ("changed", "effect")
        )
        faults = FaultCounts(changed, effect)
    return CohortUpdate(
        clients=clients,
        params=rows.get("params", empty),
        buffers=rows.get("buffers", empty),
        extras=under("extras", rows),
        fault_counts=faults,
        seconds=seconds,
        hashes=columns["hashes"].numpy() if "hashes" in columns else None,
        **{name: columns[name].numpy() for name in _COLUMNS},
    )


def evaluation_tensors(found: CohortEvaluation) -> dict[str, Tensor]:
    """Return an evaluation's numbers for each client."""
    columns = {name: torch.from_numpy(getattr(found, name)) for name in ("clients", *_EVALUATED)}
    if found.classes is not None:
        columns |= named(
            "classes", {f.name: torch.from_numpy(getattr(found.classes, f.name)) for f in fields(ClassCounts)}
        )
    return columns


def evaluation_of(columns: Mapping[str, Tensor], evaluated_on: str) -> CohortEvaluation:
    """Return the evaluation that `evaluation_tensors` took apart."""
    classes = under("classes", columns)
    examples, loss, score = (columns[name].numpy() for name in _EVALUATED)
    return CohortEvaluation(
        columns["clients"].numpy(),
        examples,
        loss,
        score,
        evaluated_on=evaluated_on,
        classes=ClassCounts(**{name: t.numpy() for name, t in classes.items()}) if classes else None,
    )


def scores_tensors(found: ExampleScores) -> dict[str, Tensor]:
    """Return the scores of examples by the names of their fields."""
    return {"losses": found.losses, "scores": found.scores, "predicted": found.predicted}


def scores_of(tensors: Mapping[str, Tensor]) -> ExampleScores:
    """Return the scores that `scores_tensors` took apart."""
    return ExampleScores(tensors["losses"], tensors["scores"], tensors["predicted"])


def joined(parts: list[CohortEvaluation]) -> CohortEvaluation:
    """Join the evaluations of consecutive clients."""
    if len(parts) == 1:
        return parts[0]
    classes = [p.classes for p in parts if p.classes is not None]
    return CohortEvaluation(
        np.concatenate([p.clients for p in parts]),
        np.concatenate([p.num_examples for p in parts]),
        np.concatenate([p.loss for p in parts]),
        np.concatenate([p.score for p in parts]),
        parts[0].evaluated_on,
        ClassCounts(*(np.concatenate([getattr(c, f.name) for c in classes]) for f in fields(ClassCounts)))
        if classes
        else None,
    )
