"""The one Flower strategy of fedscape: it plays any row of the algorithm table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import final

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from clients.core.arrays import F64, I32, I64
from clients.core.errors import StrategyError
from clients.flower.codec import Codec
from clients.flower.decoding import number, stack_replies
from clients.flower.messages import EVALUATE, TRAIN, CohortMessages, CohortReplies
from clients.training.local import count_steps
from clients.training.options import LocalOptions
from clients.training.work import CohortUpdate, CohortWork
from server.algorithms.aggregation import Shares, weighted_sum
from server.algorithms.table import Algorithm
from server.algorithms.transforms import Aggregate
from server.rounds.node_map import NodeMap
from server.rounds.sampling import Cohort, CohortSampler


@final
class FederatedStrategy(Strategy):
    """Plays an `Algorithm` as a Flower `Strategy`, on any grid.

    Args:
        algorithm: the row to play.
        local: local training, as the row runs it.
        codec: how models travel.
        sampler: who is asked.
        sizes: training examples of each client (N,).
        nodes: which node holds which client.
        seed: root seed.
        drop_partial_work: leave out clients that did less than their full local work.
        evaluated: round -> the clients that evaluate after it (possibly none).
    """

    def __init__(
        self,
        algorithm: Algorithm,
        local: LocalOptions,
        codec: Codec,
        sampler: CohortSampler,
        sizes: I32,
        *,
        nodes: NodeMap,
        seed: int,
        drop_partial_work: bool = False,
        evaluated: Callable[[int], I64] = lambda round_index: np.zeros(0, np.int64),
    ) -> None:
        self.algorithm, self.codec, self.sampler = algorithm, codec, sampler
        self._local, self._sizes, self._seed = local, sizes, seed
        self._total = int(sizes.sum(dtype=np.int64))
        self._drop, self._evaluated = drop_partial_work, evaluated
        self._vectors: dict[str, Tensor] = {}
        self._params = self._buffers = torch.zeros(0)
        self._cohort = Cohort(np.zeros(0, np.int64), np.zeros(0, np.int64))
        self._nodes = nodes
        self._round = 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Sequence[Message]:
        """Ask the round's cohort to train, as one lazy sequence of messages."""
        self._round = server_round
        self._params, self._buffers = self.codec.decode(arrays)
        if not self._vectors:
            self._vectors = self.algorithm.transform.vectors(self._params)
        self._cohort = self.sampler.draw(server_round)
        work = self._work(server_round, self._cohort.clients)
        return CohortMessages(TRAIN, work, arrays, config, self._nodes.on(grid), self.coefficients)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate the cohort's updates and take the server's step. Nothing comes of a round where none counts."""
        update, aggregate, buffers = self._reduce(replies)
        if update is None or aggregate is None:
            return None, None
        params, self._vectors = self.algorithm.transform.step(self._params, self._vectors, aggregate)
        kept = self._buffers if self._local.buffers == "server" else buffers
        loss = float(np.average(update.train_loss, weights=np.maximum(update.num_examples, 1)))
        return self.codec.encode(params, kept), MetricRecord({"train_loss": loss})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Sequence[Message]:
        """Ask clients to evaluate, in the rounds that plan it."""
        clients = self._evaluated(server_round)
        if not len(clients):
            return []
        self._params, self._buffers = self.codec.decode(arrays)
        work = replace(self._work(server_round, clients), shared={})
        return CohortMessages(EVALUATE, work, arrays, config, self._nodes.on(grid))

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return the clients' metrics, averaged by examples; None without replies."""
        rows = [r for m in replies if m.has_content() for r in list(m.content.metric_records.values())[:1]]
        if not rows:
            return None
        weights = np.array([number(r.get("num-examples")) for r in rows])
        names = [n for n in rows[0] if n not in ("num-examples", "client")]
        if not weights.sum() > 0:
            return None
        return MetricRecord({n: float(np.average([number(r.get(n)) for r in rows], weights=weights)) for n in names})

    def summary(self) -> None:
        """Nothing: the run's header says it."""

    def coefficients(self, update: CohortUpdate) -> F64:
        """Return the coefficients with which the respondents' pseudo-gradients are summed (K,)."""
        if np.array_equal(update.clients, self._cohort.clients):
            draws = self._cohort.draws
        else:
            draws = np.ones(len(update.clients), np.int64)
            known = np.isin(update.clients, self._cohort.clients)
            draws[known] = self._cohort.draws[np.searchsorted(self._cohort.clients, update.clients[known])]
        if self._drop:
            full = replace(self._local, partial_work=0.0)
            steps = count_steps(full, update.num_examples, update.clients, seed=self._seed, round_index=1)
            draws = np.where(update.local_steps < steps, 0, draws)
            if not draws.any():
                return np.zeros(len(draws))
        shares = Shares(
            num_examples=update.num_examples,
            draws=draws,
            local_steps=update.local_steps,
            total_examples=self._total,
            population=len(self._sizes),
            cohort=int(self._cohort.draws.sum()),
            local_lr=self._local.lr(max(1, self._round)),
        )
        return self.algorithm.coefficients(shares)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the vectors the server remembers."""
        return dict(self._vectors)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up the vectors of a checkpoint."""
        self._vectors = dict(state)

    def _work(self, round_index: int, clients: I64) -> CohortWork:
        rule = self.algorithm.rule
        return CohortWork(
            round_index=round_index,
            clients=clients,
            params=self._params,
            buffers=self._buffers,
            rule=rule,
            shared={n: self._vectors[n] for n in rule.shared},
        )

    def _reduce(self, replies: Iterable[Message]) -> tuple[CohortUpdate | None, Aggregate | None, Tensor]:
        """Return the cohort's update, what it comes to (None where none of it counts), and the mean buffers."""
        update = replies.update if isinstance(replies, CohortReplies) else self._stacked(replies)
        coefficients = self.coefficients(update) if update is not None and len(update.clients) else np.zeros(0)
        kept = coefficients != 0
        if update is None or not kept.any():
            return update, None, self._buffers
        share = float(kept.sum()) / len(self._sizes)
        if isinstance(replies, CohortReplies) and replies.reduction is not None:
            found = replies.reduction
            return update, Aggregate(found.pseudo_gradient, found.extras, share), found.buffers
        rows = replies.pseudo_gradients if isinstance(replies, CohortReplies) else self._params - update.params
        extras = {n: weighted_sum(kept / kept.sum(), v) for n, v in update.extras.items()}
        weights = update.num_examples * kept
        buffers = weighted_sum(weights / max(1, weights.sum()), update.buffers)
        return update, Aggregate(weighted_sum(coefficients, rows), extras, share), buffers

    def _stacked(self, replies: Iterable[Message]) -> CohortUpdate | None:
        try:
            return stack_replies(replies, self.codec, self._nodes.client_of, self._extra_names())
        except (ValueError, KeyError) as error:
            raise StrategyError("clients", f"returned what {self.algorithm.name} cannot use: {error}") from error

    def _extra_names(self) -> tuple[str, ...]:
        return ("variate_change",) if "server_variate" in self.algorithm.rule.shared else ()
