"""Trains and evaluates the clients of a `CohortGrid`, tile by tile."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from flwr.app import Message, MetricRecord, RecordDict

from clients.core.arrays import I64
from clients.core.errors import StrategyError
from clients.engines.base import Engine
from clients.flower.codec import Codec
from clients.flower.decoding import decode_work, model_arrays
from clients.flower.messages import (
    METRICS,
    QUERY,
    TRAIN,
    CohortMessages,
    CohortReplies,
    EvaluationReplies,
)
from clients.flower.shim import FIRST_NODE
from clients.training.client_states import BUFFERS, ClientStates
from clients.training.local import count_steps
from clients.training.losses import SCORE_NAMES
from clients.training.task import LearningTask
from clients.training.work import CohortFacts, CohortUpdate, CohortWork, LocalWork, concatenate

DATA_CLIENTS = 256
"""Clients whose data are read together: an on-demand population makes them in one call and caches them."""


@dataclass(frozen=True)
class LocalClients:
    """Trains and evaluates the clients of a `CohortGrid` with an engine, and keeps client states.

    Attributes:
        engine: trains tiles of clients, and evaluates.
        codec: writes models to messages and reads them.
        states: client states.
        keep_bytes: largest cohort of updates that is kept whole.
        local: the client side of our algorithm, for messages that a wrapper has made real.
    """

    engine: Engine
    codec: Codec
    states: ClientStates
    keep_bytes: int
    local: LocalWork = field(default_factory=LocalWork)

    def train(self, sent: CohortMessages | Sequence[Message], work: CohortWork) -> CohortReplies:
        """Train a cohort, tile by tile.

        Raises:
            StrategyError: the updates do not fit `keep_bytes`, and the aggregation needs each of them.
        """
        if self.engine.progress is not None:
            batches = int(count_ahead(self.engine.task, work).local_steps.sum())
            self.engine.progress.begin("training", batches, "batches")
        if not isinstance(sent, CohortMessages) or sent.begin is None:
            update = concatenate([self._tile(work, tile) for tile in self._tiles(work)])
            return CohortReplies(sent, update, work.params, self.codec)
        size = work.num_clients * work.params.numel() * work.params.element_size()
        keep_rows = size <= self.keep_bytes
        if sent.needs_rows and not keep_rows:
            problem = f"is {self.keep_bytes}, and the aggregation needs the updates of the cohort whole: {size} bytes"
            fix = "Raise engine.keep_bytes, or set a smaller algorithm.cohort."
            raise StrategyError("engine.keep_bytes", problem, fix=fix)
        total = sent.begin(count_ahead(self.engine.task, work), keep_rows)
        for tile in self._tiles(work):
            total.add(self._tile(work, tile))
        result = total.result()
        return CohortReplies(sent, result.update, work.params, self.codec, result)

    def evaluate(self, sent: Sequence[Message], work: CohortWork) -> EvaluationReplies:
        """Evaluate the broadcast model on each client's examples."""
        return EvaluationReplies(sent, self.engine.evaluate(work), SCORE_NAMES[self.engine.task.population.task])

    def gather(self, messages: Sequence[Message]) -> Iterable[Message]:
        """Answer plain messages of any strategy, gathered into cohorts by kind, model and config."""

        def key(m: Message) -> tuple[str, int, tuple[int, ...]]:
            arrays = None if m.metadata.message_type == QUERY else model_arrays(m.content)
            return m.metadata.message_type, id(arrays), tuple(map(id, m.content.config_records.values()))

        groups: dict[tuple[str, int, tuple[int, ...]], list[Message]] = {}
        for message in messages:
            groups.setdefault(key(message), []).append(message)
        answers = [self._answer(sorted(g, key=lambda m: m.metadata.dst_node_id)) for g in groups.values()]
        if len(answers) == 1:
            return answers[0]
        return sorted(itertools.chain.from_iterable(answers), key=lambda m: m.metadata.src_node_id)

    def _tiles(self, work: CohortWork) -> Iterator[I64]:
        """Yield the cohort's tiles; the data of a few hundred clients are made together, which is fastest."""
        tiles = self.engine.tiles(work)
        together = max(1, DATA_CLIENTS * len(tiles) // max(1, work.num_clients))
        for start in range(0, len(tiles), together):
            batch = tiles[start : start + together]
            if len(batch) > 1:
                self.engine.task.population.during(work.round_index).cohort(work.clients[np.concatenate(batch)])
            yield from batch

    def _tile(self, work: CohortWork, tile: I64) -> CohortUpdate:
        part = work if len(tile) == work.num_clients else replace(work, clients=work.clients[tile])
        width, dtype = work.params.numel(), work.params.dtype
        held = {n: self.states.gather(n, part.clients, width, dtype) for n in work.client_state}
        if BUFFERS in self.states.names():
            kept = self.states.gather(BUFFERS, part.clients, work.buffers.numel(), dtype)
            known = torch.from_numpy(self.states.has(BUFFERS, part.clients))[:, None]
            held[BUFFERS] = torch.where(known, kept, work.buffers)
        update, new = self.engine.train(part, held)
        for name, rows in new.items():
            self.states.put(name, part.clients, rows)
        return update

    def _answer(self, messages: list[Message]) -> Iterable[Message]:
        kind, content = messages[0].metadata.message_type, messages[0].content
        clients = np.array([m.metadata.dst_node_id - FIRST_NODE for m in messages], np.int64)
        if kind == QUERY:
            return [Message(RecordDict({METRICS: MetricRecord({"client": int(c)})}), reply_to=m)
                    for c, m in zip(clients, messages, strict=True)]  # fmt: skip
        work = decode_work(content, clients, self.codec, self.local)
        return self.train(messages, work) if kind == TRAIN else self.evaluate(messages, work)


def count_ahead(task: LearningTask, work: CohortWork) -> CohortFacts:
    """Return the facts of a cohort that are known before it trains: examples and steps of each client."""
    sizes = task.population.sizes[work.clients].astype(np.int64)
    steps = count_steps(task.local, sizes, work.clients, seed=task.seed, round_index=work.round_index)
    return CohortFacts(work.clients, sizes, steps)
