"""The Flower ClientApp of fedscape: one client on one node, trained by the plain engine.

It answers `train` and `evaluate` messages, and `query` with the index of its client. Messages may come from our
strategy or from Flower's own strategies. The latter use the plain local rule, or FedProx where their config has
`proximal-mu`. The client state stays on the node, in `context.state`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from clients.core.arrays import I64
from clients.core.errors import StrategyError
from clients.engines.plain import PlainEngine
from clients.flower.codec import Codec, decode_vectors, encode_vectors
from clients.flower.decoding import decode_work
from clients.flower.messages import METRICS, CohortReplies, EvaluationReplies
from clients.training.losses import SCORE_NAMES
from clients.training.work import CohortWork, LocalWork

STATE = "fedscape"
"""The record of `context.state` that holds the client state."""


@dataclass(frozen=True)
class ClientTask:
    """Everything a node needs to train any client of an experiment.

    Attributes:
        engine: trains and evaluates.
        codec: encodes and decodes models.
        local: the client half of the experiment's algorithm.
    """

    engine: PlainEngine
    codec: Codec
    local: LocalWork


Load = Callable[[Context], ClientTask]


def make_client_app(load: Load) -> ClientApp:
    """Return the ClientApp.

    Args:
        load: context -> the task. It is called for every message. It should cache slow parts in its module, because
            Flower's simulation sends the app to its workers again each time.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return train_client(message, context, load(context))

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return evaluate_client(message, context, load(context))

    @app.query()
    def query(message: Message, context: Context) -> Message:
        held = MetricRecord({"client": client_of(context)})
        return Message(RecordDict({METRICS: held}), reply_to=message)

    return app


def train_client(message: Message, context: Context, task: ClientTask) -> Message:
    """Train the node's client on the work in the message, and keep its state in `context.state`."""
    work = decode_work(message.content, _clients(context, task), task.codec, task.local)
    update, new = task.engine.train(work, _client_state(context, work))
    if new:
        context.state[STATE] = encode_vectors({name: rows[0] for name, rows in new.items()})
    return CohortReplies([message], update, work.params, task.codec)[0]


def evaluate_client(message: Message, context: Context, task: ClientTask) -> Message:
    """Evaluate the model of the message on the client's held-out examples, or on training examples without any."""
    work = decode_work(message.content, _clients(context, task), task.codec, task.local)
    name = SCORE_NAMES[task.engine.task.population.task]
    found = task.engine.evaluate(work)
    return next(iter(EvaluationReplies([message], found, name, by_class=True)))


def client_of(context: Context) -> int:
    """Return the client of a node: its partition id.

    Raises:
        StrategyError: the node has no partition id.
    """
    held = context.node_config.get("partition-id")
    if not isinstance(held, int) or isinstance(held, bool):
        fix = "Start the SuperNode with --node-config 'partition-id=0 num-partitions=2', each with its own id."
        raise StrategyError("node_config.partition-id", f"must be the client's index, got {held!r}", fix=fix)
    return held


def _clients(context: Context, task: ClientTask) -> I64:
    client, population = client_of(context), task.engine.task.population.num_clients
    if not 0 <= client < population:
        problem = f"must be one of the scenario's {population} clients, 0 to {population - 1}, got {client}"
        raise StrategyError("node_config.partition-id", problem)
    return np.array([client], np.int64)


def _client_state(context: Context, work: CohortWork) -> dict[str, Tensor]:
    """Return the client state, each vector [1, P]; before its first round, zeros and no buffers."""
    held = context.state.array_records.get(STATE, ArrayRecord())
    known = decode_vectors(held, held, work.params.dtype)
    return {n: torch.zeros_like(work.params)[None] for n in work.client_state} | {n: v[None] for n, v in known.items()}
