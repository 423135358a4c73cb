"""The Flower strategy of fedscape; it plays any `Algorithm`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import final

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from clients.core.arrays import F64, I64
from clients.core.errors import StrategyError
from clients.core.population_parts import FederationFacts
from clients.flower.codec import Codec
from clients.flower.decoding import DecodedReplies, number
from clients.flower.messages import EVALUATE, TRAIN, CohortMessages, CohortReplies, EvaluationReplies
from clients.training.local import count_steps
from clients.training.options import LocalOptions
from clients.training.work import CohortFacts, CohortUpdate, CohortWork
from server.algorithms.aggregation import ClientFacts
from server.algorithms.algorithm import Algorithm
from server.algorithms.state import ServerState
from server.nodes.node_map import NodeMap
from server.rounds.cohort_sum import CohortResult, CohortSum, SumPlan, sum_of
from server.rounds.sampling import CohortSampler


def nobody(round_index: int) -> I64:
    """Return no clients, whatever the round: `StrategyContext.evaluated` where no client evaluates."""
    return np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class StrategyContext:
    """The federation on which the strategy plays an algorithm.

    Attributes:
        local: local training, as the algorithm runs it.
        codec: encodes and decodes models.
        sampler: draws the cohorts.
        facts: the federation's sizes, and the clients' weights in the objective.
        nodes: maps clients to nodes.
        seed: root seed.
        drop_partial_work: leave out clients that did less than their full local work.
        evaluated: round -> the clients that evaluate the model after it, maybe none.
        hashed: whether each client's update is hashed.
    """

    local: LocalOptions
    codec: Codec
    sampler: CohortSampler
    facts: FederationFacts
    nodes: NodeMap
    seed: int
    drop_partial_work: bool = False
    evaluated: Callable[[int], I64] = field(default=nobody)
    hashed: bool = False


@final
class FederatedStrategy(Strategy):
    """Plays an `Algorithm` as a Flower `Strategy`, on any grid.

    A round is a function of `state` and the replies: nothing else passes from `configure_train` to `aggregate_train`.

    Args:
        algorithm: the algorithm.
        federation: the federation.

    Attributes:
        state: the server's state; `aggregate_train` replaces it.
        sent: the messages made last, by which replies to a wrapper's copies are checked; None where none were made.
    """

    def __init__(self, algorithm: Algorithm, federation: StrategyContext) -> None:
        self.algorithm, self.federation = algorithm, federation
        self.state = ServerState(0, torch.zeros(0), torch.zeros(0))
        self.sent: CohortMessages | None = None
        self._total_examples = int(federation.facts.sizes.sum(dtype=np.int64))
        self._population = federation.facts.with_data

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Sequence[Message]:
        """Send the round's cohort its work, as one lazy sequence of messages."""
        params, buffers = self.federation.codec.decode(arrays)
        vectors = self.state.vectors or self.algorithm.server.init(params)
        self.state = ServerState(server_round - 1, params, buffers, vectors)
        algorithm = self.algorithm
        work = CohortWork(
            round_index=server_round,
            clients=self.federation.nodes.admission.admitted(self.federation.sampler.draw(server_round).clients),
            params=params,
            buffers=buffers,
            rule=algorithm.local,
            uplink=algorithm.uplink,
            broadcast={n: vectors[n] for n in algorithm.local.broadcast},
        )
        begin = partial(self.begin, params, server_round)
        nodes = self.federation.nodes.on(grid)
        needs_rows = algorithm.aggregation.needs_rows
        self.sent = CohortMessages(TRAIN, work, arrays, config, nodes, begin, needs_rows=needs_rows)
        return self.sent

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate the cohort's updates and take the server's step; (None, None) where no update counts."""
        found = self._total_of(server_round, replies)
        if found is None or found.aggregate is None or found.buffers is None:
            return None, None
        new = self.algorithm.server.step(self.state, found.aggregate, seed=self.federation.seed)
        kept = self.state.buffers if self.federation.local.buffers == "server" else found.buffers
        self.state = replace(new, buffers=kept)
        update = found.update
        weights = self.federation.facts.weights_of(update.clients, np.maximum(update.num_examples, 1))
        total = weights.sum()
        loss = float((update.train_loss * weights).sum() / total if total else update.train_loss.mean())
        return self.federation.codec.encode(new.params, kept), MetricRecord({"train_loss": loss})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Sequence[Message]:
        """Send clients the model to evaluate, in rounds with a federated evaluation."""
        clients = self.federation.nodes.admission.admitted(self.federation.evaluated(server_round))
        if not len(clients):
            return []
        params, buffers = self.federation.codec.decode(arrays)
        algorithm = self.algorithm
        work = CohortWork(
            round_index=server_round,
            clients=clients,
            params=params,
            buffers=buffers,
            rule=algorithm.local,
            uplink=algorithm.uplink,
        )
        self.sent = CohortMessages(EVALUATE, work, arrays, config, self.federation.nodes.on(grid))
        return self.sent

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message] | EvaluationReplies
    ) -> MetricRecord | None:
        """Return the clients' metrics, averaged by examples; None without replies."""
        if isinstance(replies, EvaluationReplies):
            found, name = replies.result, replies.score_name
            if not found.num_examples.sum() > 0:
                return None
            means = {"loss": found.loss, name: found.score}
            return MetricRecord({n: float(np.average(v, weights=found.num_examples)) for n, v in means.items()})
        rows = [r for m in replies if m.has_content() for r in list(m.content.metric_records.values())[:1]]
        if not rows:
            return None
        weights = np.array([number(r.get("num-examples")) for r in rows])
        names = [n for n in rows[0] if n not in ("num-examples", "client")]
        if not weights.sum() > 0:
            return None
        return MetricRecord({n: float(np.average([number(r.get(n)) for r in rows], weights=weights)) for n in names})

    def summary(self) -> None:
        """Print nothing: the header of the run has this information."""

    def weigh(self, facts: CohortFacts, round_index: int) -> tuple[F64, F64]:
        """Return the weights with which respondents' pseudo-gradients are summed, and those of their buffers, (K,)."""
        known, how = self._client_facts(facts, round_index), self.algorithm.aggregation
        if not known.draws.any():
            return np.zeros(len(known.draws)), np.zeros(len(known.draws))
        weights = how.weights_of(known)
        return weights, how.buffer_weights_of(known, weights)

    def _client_facts(self, facts: CohortFacts, round_index: int) -> ClientFacts:
        """Return what weights follow from; a respondent that is left out was drawn 0 times."""
        federation = self.federation
        cohort = federation.sampler.draw(round_index)
        if facts.clients is cohort.clients or np.array_equal(facts.clients, cohort.clients):
            draws = cohort.draws
        else:
            draws = np.ones(len(facts.clients), np.int64)
            known = np.isin(facts.clients, cohort.clients)
            draws[known] = cohort.draws[np.searchsorted(cohort.clients, facts.clients[known])]
        draws = np.where(facts.num_examples > 0, draws, 0)
        if federation.drop_partial_work:
            full = replace(federation.local, partial_work=0.0)
            steps = count_steps(full, facts.num_examples, facts.clients, seed=federation.seed, round_index=1)
            draws = np.where(facts.local_steps < steps, 0, draws)
        return ClientFacts(
            num_examples=facts.num_examples,
            draws=draws,
            local_steps=facts.local_steps,
            total_examples=self._total_examples,
            population=self._population,
            cohort=int(cohort.draws.sum()),
            local_lr=federation.local.lr(max(1, round_index)),
            shares=None if federation.facts.shares is None else federation.facts.shares[facts.clients],
        )

    def begin(self, anchor: Tensor, round_index: int, facts: CohortFacts, keep_rows: bool = True) -> CohortSum:
        """Start the sum of a cohort's updates around the broadcast parameters `anchor` [P]."""
        return CohortSum(self._plan(anchor, round_index, facts), keep_rows=keep_rows)

    def total(self, update: CohortUpdate, anchor: Tensor, round_index: int) -> CohortResult:
        """Return the sum of a complete set of updates."""
        return sum_of([update], self._plan(anchor, round_index, update.facts))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the server's vectors."""
        return dict(self.state.vectors)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the server's vectors from a checkpoint."""
        self.state = replace(self.state, vectors=dict(state))

    def _plan(self, anchor: Tensor, round_index: int, facts: CohortFacts) -> SumPlan:
        weights, of_buffers = self.weigh(facts, round_index)
        return SumPlan(
            clients=facts.clients,
            weights=weights,
            num_examples=facts.num_examples,
            anchor=anchor,
            layers=self.federation.codec.layers,
            population=self._population,
            aggregation=self.algorithm.aggregation,
            buffer_weights=of_buffers,
            hashed=self.federation.hashed,
        )

    def _total_of(self, round_index: int, replies: Iterable[Message]) -> CohortResult | None:
        """Return the sum of the replies: the one that the grid or the loop made, else a new one."""
        if not isinstance(replies, CohortReplies | DecodedReplies):
            names = self.algorithm.local.returns
            replies = DecodedReplies(list(replies), self.federation.codec, self.federation.nodes.client_of, names)
        if isinstance(replies.total, CohortResult):
            return replies.total
        if isinstance(replies, DecodedReplies) and replies.problem:
            raise StrategyError("clients", f"returned what {self.algorithm.name} cannot use: {replies.problem}")
        if replies.update is None or not len(replies.update.clients):
            return None
        return self.total(replies.update, self.state.params, round_index)
