"""Flower messages read back: what a client is asked to do, and what clients returned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, RecordDict
from torch import Tensor

from clients.core.arrays import F64, I64
from clients.core.errors import StrategyError
from clients.engines.evaluation import CohortEvaluation
from clients.flower.codec import Codec, decode_vectors
from clients.flower.messages import ARRAYS, BY_CLASS, EXTRAS, ROUND, RULE, SHARED
from clients.training.class_metrics import ClassCounts
from clients.training.rules import LocalRule, proximal
from clients.training.work import CohortUpdate, CohortWork

PROXIMAL = "proximal-mu"
"""The key under which Flower's FedProx sends mu to its clients."""


def read_work(content: RecordDict, clients: I64, codec: Codec, own: LocalRule) -> CohortWork:
    """Read back what a message asks, of one client or of all that were sent the same.

    Args:
        content: of any strategy's message. One of ours names its local rule; another's is plain, or FedProx's where
            its config has `proximal-mu`.
        clients: whom it was sent to, (K,).
        codec: how models travel.
        own: the local rule of the algorithm that this side was set up for.

    Raises:
        StrategyError: it asks for another local rule than `own`, or does not say which round it is.
        ValueError: its arrays do not have the model's names and shapes.
    """
    config = {k: v for record in content.config_records.values() for k, v in record.items()}
    params, buffers = codec.decode(model_arrays(content))
    named = config.get(RULE)
    if named not in (None, own.name):
        problem = f"asks for the local rule {named!r}, and the clients were set up for {own.name!r}"
        raise StrategyError("algorithm", problem, fix="Start server and clients from the same scenario.")
    if not isinstance(config.get(ROUND), int):
        problem = f"sends messages whose config has no {ROUND!r}, by which batches are drawn"
        fix = "Pass on the config that configure_train is given, as Flower's strategies do."
        raise StrategyError("strategy", problem, fix=fix)
    rule = own if named is not None else proximal(number(config.get(PROXIMAL, 0.0)))
    shared = decode_vectors(content.array_records[SHARED], rule.shared, codec.dtype) if SHARED in content else {}
    return CohortWork(
        round_index=int(number(config[ROUND])),
        clients=clients,
        params=params,
        buffers=buffers,
        rule=rule,
        shared=shared,
    )


def stack_replies(
    replies: Iterable[Message], codec: Codec, client_of: Callable[[int], int], extras: Sequence[str] = ()
) -> CohortUpdate | None:
    """Read real replies back into one stacked update, sorted by client; None if no reply has content.

    Args:
        replies: of any grid; errors are skipped.
        codec: how the model's arrays are read.
        client_of: node id -> client, for replies without our metrics (a user's ClientApp); those have unknown steps
            (0) and drift (nan), and their losses from `train_loss`, as Flower's quickstarts call it.
        extras: names of the extra vectors to read.

    Raises:
        ValueError: a reply's arrays do not have the model's names and shapes, or it has no num-examples.
    """
    good = [m for m in replies if m.has_content()]
    if not good:
        return None
    metrics = [_metrics(m) for m in good]

    def column(name: str, default: float) -> F64:
        return np.array([number(m.get(name, m.get(name.replace("-", "_"), default))) for m in metrics], np.float64)

    clients = np.array(
        [
            int(number(v["client"])) if "client" in v else client_of(m.metadata.src_node_id)
            for m, v in zip(good, metrics, strict=True)
        ],
        np.int64,
    )
    examples = column("num-examples", np.nan)
    if np.isnan(examples).any():
        raise ValueError(f"client {clients[np.isnan(examples)][0]} returned no number as 'num-examples'")
    vectors = [codec.decode(model_arrays(m.content)) for m in good]
    order = np.argsort(clients, kind="stable")
    index = torch.from_numpy(order)
    return CohortUpdate(
        clients=clients[order],
        params=torch.stack([p for p, _ in vectors])[index],
        buffers=torch.stack([b for _, b in vectors])[index],
        num_examples=examples.astype(np.int64)[order],
        local_steps=column("local-steps", 0).astype(np.int64)[order],
        train_loss=column("train-loss", np.nan)[order],
        train_errors=column("train-errors", -1).astype(np.int64)[order],
        client_drift=column("client-drift", np.nan)[order],
        gradient_norm=column("gradient-norm", np.nan)[order],
        extras={n: _extra(good, n, codec.dtype)[index] for n in extras},
    )


def read_evaluation(
    replies: Iterable[Message], client_of: Callable[[int], int], score_name: str
) -> CohortEvaluation | None:
    """Read replies to an evaluation back, sorted by client.

    Args:
        replies: of any grid; errors are skipped.
        client_of: node id -> client.
        score_name: what our clients call their score; those of Flower's quickstarts say `eval_loss` and `eval_acc`.

    Returns:
        The evaluation; None where not every reply has a number of examples, a loss and a score by these names.
    """
    metrics = [(m.metadata.src_node_id, _metrics(m)) for m in replies if m.has_content()]
    rows = sorted(((client_of(node), record) for node, record in metrics), key=lambda row: row[0])
    wanted = [("num-examples",), ("loss", "eval_loss"), (score_name, "eval_acc")]
    named = [n for names in wanted for n in [n for n in names if all(n in record for _, record in rows)][:1]]
    if not rows or len(named) != len(wanted):
        return None
    sizes, losses, scores = (np.array([number(record[n]) for _, record in rows]) for n in named)
    clients, counts = np.array([c for c, _ in rows], np.int64), _class_counts([record for _, record in rows])
    return CohortEvaluation(clients, sizes.astype(np.int64), losses, scores, "client", counts)


def _class_counts(records: Sequence[Mapping[str, object]]) -> ClassCounts | None:
    """Read the counts by class of our own nodes; None where not every record has them, all of one length."""
    found = [[record.get(name) for name in BY_CLASS] for record in records]
    if not all(isinstance(values, list) for client in found for values in client):
        return None
    if len({len(values) for client in found for values in client if isinstance(values, list)}) != 1:
        return None
    right, actual, guessed = np.array(found, np.int64).swapaxes(0, 1)
    return ClassCounts(right, actual, guessed)


def _metrics(message: Message) -> Mapping[str, object]:
    return next(iter(message.content.metric_records.values()), {})


def model_arrays(content: RecordDict) -> ArrayRecord:
    """Return the model's arrays: under our name, or whatever a strategy calls its first arrays.

    Raises:
        ValueError: there are none.
    """
    records = content.array_records
    if not records:
        raise ValueError("there are no arrays")
    return records[ARRAYS] if ARRAYS in records else next(iter(records.values()))


def _extra(messages: Sequence[Message], name: str, dtype: torch.dtype) -> Tensor:
    return torch.stack([decode_vectors(m.content.array_records[EXTRAS], [name], dtype)[name] for m in messages])


def number(value: object) -> float:
    """Return a number of a Flower record, or nan for anything else."""
    return float(value) if isinstance(value, int | float) else float("nan")
