"""Trains and evaluates the clients of a `CohortGrid`, tile by tile."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from flwr.app import Message, MetricRecord, RecordDict
from torch import Tensor

from clients.core.arrays import I64
from clients.core.errors import FedscapeError, StrategyError, UserError
from clients.core.user_code import described, is_of_users_code, passes
from clients.engines.base import Engine
from clients.flower.codec import Codec
from clients.flower.decoding import model_arrays
from clients.flower.decoding_work import decode_work
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
from clients.training.work import CohortFacts, CohortUpdate, CohortWork, LocalWork, UpdateSum, concatenate
from server.rounds.cohort_sum import CohortSum
from simulator.workers.dealing import Block
from simulator.workers.engine import WorkersEngine
from simulator.workers.passes import BlockResult, train
from simulator.workers.workplace import DATA_CLIENTS


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
            update = concatenate(list(self._updates(work)))
            return CohortReplies(sent, update, work.params, self.codec)
        size = work.num_clients * work.params.numel() * work.params.element_size()
        keep_rows = size <= self.keep_bytes
        if sent.needs_rows and not keep_rows:
            problem = f"is {self.keep_bytes}, and the aggregation needs the updates of the cohort whole: {size} bytes"
            fix = "Raise engine.keep_bytes, or set a smaller algorithm.cohort."
            raise StrategyError("engine.keep_bytes", problem, fix=fix)
        total = sent.begin(count_ahead(self.engine.task, work), keep_rows)
        if keep_rows or not isinstance(self.engine, WorkersEngine):
            here = work if isinstance(self.engine, WorkersEngine) else work.on(self.engine.task.device)
            for update in self._updates(here):
                total.add(update)
        else:
            self._sum_on_workers(self.engine, work, total)
        result = total.result()
        return CohortReplies(sent, result.update, work.params, self.codec, result)

    def busy_nodes(self, every: Sequence[int]) -> Sequence[int]:
        """Return those of all clients' nodes whose clients have training examples."""
        sizes = self.engine.task.population.sizes
        return every if sizes.all() else [every[client] for client in np.flatnonzero(sizes).tolist()]

    def evaluate(self, sent: Sequence[Message], work: CohortWork) -> EvaluationReplies:
        """Evaluate the broadcast model on each client's examples."""
        with _naming_clients(work, "evaluating", self.engine.evaluate):
            found = self.engine.evaluate(work)
        return EvaluationReplies(sent, found, SCORE_NAMES[self.engine.task.population.task])

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

    def _updates(self, work: CohortWork) -> Iterator[CohortUpdate]:
        """Train a cohort and yield its updates, tile by tile or, on workers, block by block."""
        if not isinstance(self.engine, WorkersEngine):
            for tile in self._tiles(work):
                yield self._tile(work, tile)
            return
        blocks = self.engine.blocks(work)
        for block, found in zip(blocks, self._on_workers(self.engine, work, blocks, None), strict=True):
            if found is None:
                yield from (self._tile(work, tile) for tile in block.tiles)
            else:
                yield found.update

    def _sum_on_workers(self, engine: WorkersEngine, work: CohortWork, total: UpdateSum) -> None:
        """Train a cohort whose updates are added up where they are made, and merge the sums of its blocks in order."""
        assert isinstance(total, CohortSum), "our strategy adds up in a CohortSum"
        blocks = engine.blocks(work)
        for block, found in zip(blocks, self._on_workers(engine, work, blocks, total), strict=True):
            if found is not None and found.total is not None:
                total.merge(found.total)
            else:
                for tile in block.tiles:
                    total.add(self._tile(work, tile))

    def _on_workers(
        self, engine: WorkersEngine, work: CohortWork, blocks: list[Block], total: CohortSum | None
    ) -> list[BlockResult | None]:
        def held(clients: I64) -> dict[str, Tensor]:
            return self._held(replace(work, clients=clients))

        results = train(engine.pool, work, blocks, held, total)
        for found in filter(None, results):
            for name, rows in found.states.items():
                self.states.put(name, found.update.clients, rows)
        return results

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
        with _naming_clients(part, "training", lambda one: self.engine.train(one, self._held(one))):
            update, new = self.engine.train(part, self._held(part))
        for name, rows in new.items():
            self.states.put(name, part.clients, rows.cpu())
        return update

    def _held(self, work: CohortWork) -> dict[str, Tensor]:
        """Return the client states of a tile's clients, by name."""
        width, dtype = work.params.numel(), work.params.dtype
        held = {n: self.states.gather(n, work.clients, width, dtype) for n in work.client_state}
        if BUFFERS in self.states.names():
            kept = self.states.gather(BUFFERS, work.clients, work.buffers.numel(), dtype)
            known = torch.from_numpy(self.states.has(BUFFERS, work.clients))[:, None]
            held[BUFFERS] = torch.where(known, kept, work.buffers.cpu())
        return held

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


@contextmanager
def _naming_clients(work: CohortWork, doing: str, again: Callable[[CohortWork], object]) -> Iterator[None]:
    """Turn an error of the user's model or local rule into a `UserError` that names round and client.

    The clients of a tile train together, so after an error each is tried alone with `again`, until one fails.
    """
    try:
        yield
    except FedscapeError:
        raise
    except Exception as error:  # the user's code may raise anything
        if not is_of_users_code(error):
            raise
        client, cause = _failing(work, error, again)
        rule = (work.rule.correct, work.rule.finish, work.uplink.compress)
        if passes(cause, rule):
            problem = f"{work.rule.name!r} fails when {doing} {client} in round {work.round_index}: {described(cause)}"
            raise StrategyError("algorithm", problem) from cause
        problem = f"fails when {doing} {client} in round {work.round_index}: {described(cause)}"
        raise UserError("model", problem) from cause


def _failing(work: CohortWork, error: Exception, again: Callable[[CohortWork], object]) -> tuple[str, Exception]:
    """Return the first client of a tile that fails alone, and its error; all of them where none does."""
    clients = work.clients.tolist()
    if len(clients) == 1:
        return f"client {clients[0]}", error
    for client in clients:
        try:
            again(replace(work, clients=np.array([client], np.int64)))
        except Exception as alone:
            return f"client {client}", alone
    return f"clients {', '.join(map(str, clients[:8]))}{', ...' if len(clients) > 8 else ''} together", error
