"""Whether what a node reports of its clients is possible: counts, losses, what faults changed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import Message

from clients.core.arrays import F64, I32, I64, Bool
from clients.training.local import count_steps
from clients.training.options import LocalOptions
from clients.training.work import CohortUpdate

LARGEST_METRIC = float(np.finfo(np.float32).max)
"""The largest loss, drift or norm that training in float32 reports."""
MOST_HELD_OUT = 10
"""A client evaluates on at most this many times its training examples, and this many more."""


def impossible_counts(update: CohortUpdate, sizes: I32) -> str:
    """Return why numbers of examples are not possible, as a clause; empty where they are.

    Args:
        update: of one reply.
        sizes: training examples of each client (N,), as declared.
    """
    declared = sizes[update.clients]
    wrong = np.flatnonzero((update.num_examples < 0) | (update.num_examples > declared))
    if len(wrong):
        k = int(wrong[0])
        return (f"client {update.clients[k]} reports {update.num_examples[k]} training examples, "
                f"and {declared[k]} were declared")  # fmt: skip
    return "a number of local steps is negative" if (update.local_steps < 0).any() else ""


def impossible_steps(reply: Message, update: CohortUpdate, local: LocalOptions | None) -> str:
    """Return why reported local steps are not those of the scenario's local work, as a clause; empty where they may be.

    Args:
        reply: a reply without local steps is of another ClientApp, and passes.
        update: of the reply.
        local: local training, as the algorithm runs it; None checks nothing.
    """
    if local is None or not _reports(reply, "local-steps"):
        return ""
    whole = replace(local, partial_work=0.0)
    most = count_steps(whole, update.num_examples, update.clients, seed=0, round_index=1)
    wrong = (update.local_steps > most) | ((update.local_steps < 1) & (most > 0))
    wrong |= (update.train_errors < -1) | (update.train_errors > update.num_examples * np.maximum(most, 1))
    if not wrong.any():
        return ""
    k = int(wrong.argmax())
    if update.local_steps[k] > most[k] or update.local_steps[k] < 1:
        return f"client {update.clients[k]} reports {update.local_steps[k]} local steps, and its work has {most[k]}"
    return f"client {update.clients[k]} reports {update.train_errors[k]} errors in training"


def impossible_metrics(reply: Message, update: CohortUpdate) -> str:
    """Return why losses, drifts or norms are not possible, as a clause; empty where they are.

    A client without a local step has no loss. A metric that another ClientApp does not report is unknown.
    """
    for name, values, least in (
        ("train-loss", update.train_loss, -LARGEST_METRIC),
        ("client-drift", update.client_drift, 0.0),
        ("gradient-norm", update.gradient_norm, 0.0),
    ):
        if not _reports(reply, name):
            continue
        missing = np.isnan(values) & (update.local_steps == 0)
        wrong = ~((values >= least) & (values <= LARGEST_METRIC) | missing)
        if wrong.any():
            k = int(wrong.argmax())
            return f"client {update.clients[k]} reports {name} = {values[k]:g}"
    return ""


def impossible_faults(update: CohortUpdate, known: Collection[str] | None) -> str:
    """Return why counts of faults are not possible, as a clause; empty where they are.

    Args:
        update: of one reply.
        known: names of the scenario's faults in this round; None checks nothing.
    """
    counts = update.fault_counts
    if counts is None or known is None:
        return ""
    if set(counts.changed) != set(known):
        return "it counts other faults than the scenario has"
    for name in counts.changed:
        changed, effect = counts.changed[name], counts.effect[name]
        if not (_within(changed, 0.0, 1.0) & _within(effect, -LARGEST_METRIC, LARGEST_METRIC)).all():
            return f"its counts of the fault {name!r} are no shares and effects"
    return ""


def _within(values: F64, least: float, most: float) -> Bool:
    return np.asarray((values >= least) & (values <= most))


def most_held_out(sizes: I32, clients: I64) -> I64:
    """Return the most examples on which each client may evaluate, (K,)."""
    return np.asarray((sizes[clients].astype(np.int64) + 1) * MOST_HELD_OUT, np.int64)


def _reports(reply: Message, name: str) -> bool:
    record: Any = next(iter(reply.content.metric_records.values()), {})
    return name in record or name.replace("-", "_") in record
