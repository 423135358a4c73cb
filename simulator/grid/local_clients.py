"""What trains and evaluates the clients of a `CohortGrid`: cohorts tile by tile, kept whole or reduced as they come."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from flwr.app import Message, MetricRecord, RecordDict
from torch import Tensor

from clients.core.arrays import F64, I64
from clients.engines.base import Engine
from clients.engines.evaluation import Evaluator
from clients.flower.codec import Codec
from clients.flower.decoding import model_arrays, read_work
from clients.flower.messages import (
    METRICS,
    QUERY,
    TRAIN,
    CohortMessages,
    CohortReplies,
    EvaluationReplies,
    Reduction,
)
from clients.flower.shim import FIRST_NODE
from clients.training.client_states import ClientStates
from clients.training.local import count_steps
from clients.training.losses import SCORE_NAMES
from clients.training.rules import PLAIN, LocalRule
from clients.training.task import LearningTask
from clients.training.work import CohortUpdate, CohortWork, concatenate
from server.dispersion.measures import DriftStream

DATA_CLIENTS = 256
"""Clients whose data are asked for together, so that a lazy population makes them in one go and keeps them near."""


@dataclass(frozen=True)
class LocalClients:
    """What trains and evaluates on a `CohortGrid`: an engine, an evaluator, and what the clients remember.

    Attributes:
        engine: trains tiles of clients.
        evaluator: evaluates.
        codec: how models travel.
        states: clients' own vectors.
        keep_bytes: largest cohort of updates that is kept whole.
        rule: the local rule of our strategy, for its messages where a wrapper has made them real.
    """

    engine: Engine
    evaluator: Evaluator
    codec: Codec
    states: ClientStates
    keep_bytes: int
    rule: LocalRule = PLAIN

    def train(self, asked: CohortMessages | Sequence[Message], work: CohortWork) -> CohortReplies:
        """Train a cohort, tile by tile."""
        combine = asked.combine if isinstance(asked, CohortMessages) else None
        size = work.num_clients * work.params.numel() * work.params.element_size()
        if combine is None or size <= self.keep_bytes:
            update = concatenate([self._tile(work, tile) for tile in self._tiles(work)])
            return CohortReplies(asked, update, work.params, self.codec)
        return self._reduced(asked, work, combine)

    def _tiles(self, work: CohortWork) -> Iterator[I64]:
        """Yield the cohort's tiles, a few hundred clients' data being made together: lazy data cost least that way."""
        tiles = self.engine.tiles(work)
        together = max(1, DATA_CLIENTS * len(tiles) // max(1, work.num_clients))
        for start in range(0, len(tiles), together):
            batch = tiles[start : start + together]
            if len(batch) > 1:
                self.evaluator.task.population.during(work.round_index).cohort(work.clients[np.concatenate(batch)])
            yield from batch

    def _tile(self, work: CohortWork, tile: I64) -> CohortUpdate:
        part = work if len(tile) == work.num_clients else replace(work, clients=work.clients[tile])
        width, dtype = work.params.numel(), work.params.dtype
        own = {n: self.states.gather(n, part.clients, width, dtype) for n in work.rule.own}
        if "buffers" in self.states.names():
            held = self.states.gather("buffers", part.clients, work.buffers.numel(), dtype)
            known = torch.from_numpy(self.states.has("buffers", part.clients))[:, None]
            own["buffers"] = torch.where(known, held, work.buffers)
        update, new = self.engine.train(part, own)
        for name, rows in new.items():
            self.states.put(name, part.clients, rows)
        return update

    def _reduced(
        self,
        asked: Sequence[Message],
        work: CohortWork,
        combine: Callable[[CohortUpdate], F64],
    ) -> CohortReplies:
        """Train tile by tile, keeping sums; coefficients need every client's steps, so those are counted ahead."""
        ahead = count_ahead(self.evaluator.task, work)
        coefficients = combine(ahead)
        stream = DriftStream(layers=self.codec.layers)
        total, buffers = torch.zeros_like(work.params), torch.zeros_like(work.buffers)
        examples = float((ahead.num_examples * (coefficients != 0)).sum())
        extras: dict[str, Tensor] = {}
        parts: list[CohortUpdate] = []
        order: list[I64] = []
        for tile in self._tiles(work):
            order.append(tile)
            u = self._tile(work, tile)
            rows, c = work.params - u.params, torch.from_numpy(coefficients[tile]).to(u.params.dtype)
            total += c @ rows
            share = torch.from_numpy(u.num_examples * (coefficients[tile] != 0) / max(1.0, examples)).to(u.params.dtype)
            buffers += share @ u.buffers
            alike = (c != 0).to(c.dtype) / max(1, int(np.count_nonzero(coefficients)))
            for name, vectors in u.extras.items():
                extras[name] = extras.get(name, torch.zeros_like(work.params)) + alike @ vectors
            stream.add(rows, coefficients[tile])
            empty = u.params.new_zeros(len(u.clients), 0)
            parts.append(replace(u, params=empty, buffers=empty, extras={}))
        update = concatenate(parts)
        drift = stream.result() if coefficients.any() else None
        if drift is not None:  # tiles come in order of local steps, updates in order of client
            drift = replace(drift, update_norm=drift.update_norm[np.argsort(np.concatenate(order))])
        return CohortReplies(asked, update, work.params, self.codec, Reduction(total, buffers, extras, drift))

    def evaluate(self, asked: Sequence[Message], work: CohortWork) -> EvaluationReplies:
        """Evaluate the broadcast model on each client's examples."""
        self.evaluator.load(work.params, work.buffers)
        name = SCORE_NAMES[self.evaluator.task.population.task]
        return EvaluationReplies(asked, self.evaluator.clients(work.clients, work.round_index), name)

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

    def _answer(self, messages: list[Message]) -> Iterable[Message]:
        kind, content = messages[0].metadata.message_type, messages[0].content
        clients = np.array([m.metadata.dst_node_id - FIRST_NODE for m in messages], np.int64)
        if kind == QUERY:
            return [Message(RecordDict({METRICS: MetricRecord({"client": int(c)})}), reply_to=m)
                    for c, m in zip(clients, messages, strict=True)]  # fmt: skip
        work = read_work(content, clients, self.codec, self.rule)
        return self.train(messages, work) if kind == TRAIN else self.evaluate(messages, work)


def count_ahead(task: LearningTask, work: CohortWork) -> CohortUpdate:
    """Return an update that holds only what is known before training: examples and steps of each client."""
    sizes = task.population.sizes[work.clients].astype(np.int64)
    steps = count_steps(task.local, sizes, work.clients, seed=task.seed, round_index=work.round_index)
    empty, zeros = work.params.new_zeros(work.num_clients, 0), np.zeros(work.num_clients)
    return CohortUpdate(
        clients=work.clients,
        params=empty,
        buffers=empty,
        num_examples=sizes,
        local_steps=steps,
        train_loss=zeros,
        train_errors=np.full(work.num_clients, -1),
        client_drift=zeros,
        gradient_norm=zeros,
    )
