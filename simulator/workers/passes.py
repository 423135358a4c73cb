"""The passes that a pool of workers makes: training, gradients, evaluation on clients and on central examples.

Clients that are not trained are dealt in parts, central examples in blocks. Both follow from the data alone, so numbers
depend neither on who computes them nor on how many workers there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, I32, I64
from clients.core.population import CentralPart
from clients.engines.evaluation import CHUNK, CohortEvaluation, ExampleScores
from clients.processes.wire import Message
from clients.training.work import CohortUpdate, CohortWork
from server.rounds.cohort_sum import CohortSum
from simulator.workers.dealing import Block
from simulator.workers.messages import evaluation_of, joined, named, scores_of, under, update_of, work_tensors
from simulator.workers.pool import WorkerPool

PART_EXAMPLES, PARTS = 1024, 8
"""Clients are dealt in parts of about so many examples, or in so many parts where they have fewer examples."""

Held = Callable[[I64], dict[str, Tensor]]
"""Clients, (K,) -> their states, [K, width] each, by name."""


@dataclass(frozen=True)
class BlockResult:
    """The result of a block.

    Attributes:
        update: one row for each client, which the next pass may overwrite; without parameters where `total` is the sum.
        states: the new client states, by name.
        total: the sum of the updates; None where rows are kept.
    """

    update: CohortUpdate
    states: Mapping[str, Tensor]
    total: CohortSum | None = None


def train(
    pool: WorkerPool, work: CohortWork, blocks: Sequence[Block], held: Held, total: CohortSum | None
) -> list[BlockResult | None]:
    """Train the blocks of a cohort.

    Args:
        pool: the workers.
        work: the cohort's work.
        blocks: its blocks.
        held: returns client states.
        total: the sum to which the blocks belong, which keeps no rows; None returns rows.

    Returns:
        One result for each block, in their order; None for a block that failed, which must be repeated here.

    Raises:
        RoundInterrupted: a worker is lost, and a loss is to stop the run.
    """
    pool.round_index = work.round_index
    training = _Training(pool, work, blocks, held, total)
    results: list[BlockResult | None] = [None] * len(blocks)
    measured: list[tuple[int, Block, float]] = []
    for rank, numbers, answer in pool.run(pool.costs.seconds(blocks), training.job, training=True):
        if answer.head["job"] == "failed":
            continue
        at = 0
        for number, seconds in zip(numbers, answer.head["seconds"], strict=True):
            count = len(blocks[number].places)
            results[number] = training.result(answer, number, slice(at, at + count), seconds)
            measured.append((rank, blocks[number], seconds))
            at += count
    pool.costs.learn(measured)
    return results


class _Training:
    """The jobs of training a cohort's blocks, and their results. In shared memory its rows are in order of blocks."""

    def __init__(
        self, pool: WorkerPool, work: CohortWork, blocks: Sequence[Block], held: Held, total: CohortSum | None
    ) -> None:
        self._pool, self._work, self._blocks, self._held, self._total = pool, work, blocks, held, total
        ends = np.cumsum([len(block.places) for block in blocks])
        self._starts = [0, *ends.tolist()[:-1]]
        arena = pool.place.arena
        self._arena = arena if arena is not None and arena.fits(int(ends[-1])) else None

    def job(self, numbers: list[int], rank: int) -> Message:
        """Return the job of training some blocks; this process, of rank 0, needs no shared memory for its own."""
        work, total, arena = self._work, self._total, self._arena if rank else None
        places = np.concatenate([self._blocks[n].places for n in numbers])
        clients = work.clients[places]
        tensors = {"clients": torch.from_numpy(clients), **work_tensors(work)}
        states = named("held", self._held(clients))
        left, at = states, 0
        for number in numbers if arena is not None and states else []:
            assert arena is not None
            count = len(self._blocks[number].places)
            part = {name: rows[at : at + count] for name, rows in states.items()}
            left = {name: states[name] for name in arena.put(part, self._starts[number])}
            at += count
        head = {
            "job": "train", "round": work.round_index, "numbers": numbers, "sums": total is not None,
            "blocks": [[len(tile) for tile in self._blocks[n].tiles] for n in numbers],
            "starts": [self._starts[n] for n in numbers], "shares": arena is not None,
            "own": self._pool.place.is_own(work),
            "shared": sorted(name.removeprefix("held/") for name in states.keys() - left.keys()),
        }  # fmt: skip
        if total is not None:
            head |= {"counted": total.plan.num_counted, "hashed": total.plan.hashed}
            tensors |= {"weights": torch.from_numpy(total.plan.weights[places]),
                        "shares": torch.from_numpy(total.plan.shares[places])}  # fmt: skip
        return Message(head, tensors | left)

    def result(self, answer: Message, number: int, part: slice, seconds: float) -> BlockResult:
        """Return the result of one block; `part` are its clients in the answer."""
        tensors, places = answer.tensors, self._blocks[number].places
        columns = {n: t[part] for n, t in tensors.items() if not n.startswith(("rows/", "sum/")) and n != "has_faults"}
        columns |= {"has_faults": tensors["has_faults"]} if "has_faults" in tensors else {}
        rows = {name: t[part] for name, t in under("rows", tensors).items()}
        for name in answer.head["written"]:
            assert self._arena is not None, "the worker shares memory"
            rows[name] = self._arena.view(name, self._starts[number], len(places))
            if name.startswith("state/") or len(self._blocks) == 1:  # kept after the next pass
                rows[name] = rows[name].clone()
        states = under("state", rows)
        update = update_of(columns, {n: t for n, t in rows.items() if not n.startswith("state/")}, seconds)
        if self._total is None:
            return BlockResult(update, states)
        plan = self._total.plan.part(np.sort(places))
        return BlockResult(update, states, CohortSum.restored(plan, update, under(f"sum/{number}", tensors)))


def gradients(pool: WorkerPool, work: CohortWork) -> Tensor:
    """Return each client's full-batch gradient, [K, P]."""
    parts = Parts(pool, work.clients)
    out = work.params.new_zeros(work.num_clients, work.params.numel())
    arena = pool.place.arena
    shared = arena if arena is not None and arena.fits(work.num_clients) else None

    def make(numbers: list[int], rank: int) -> Message:
        head = {"job": "gradients", "round": work.round_index, "parts": parts.counts(numbers),
                "starts": [parts.starts[n] for n in numbers], "shares": shared is not None and rank > 0}  # fmt: skip
        return Message(head, {**work_tensors(work), "clients": parts.clients_of(numbers)})

    for _, numbers, answer in pool.run(parts.costs, make):
        at = 0
        for number in numbers:
            start, count = parts.starts[number], len(parts.clients[number])
            if answer.head["written"]:
                assert shared is not None, "the worker shares memory"
                out[start : start + count] = shared.view("gradients", start, count)
            else:
                out[start : start + count] = answer.tensors["rows/gradients"][at : at + count]
            at += count
    return out


def evaluate_clients(
    pool: WorkerPool, params: Tensor, buffers: Tensor, clients: I64, round_index: int
) -> CohortEvaluation:
    """Evaluate a model on the examples of each client; see `Evaluator.clients`."""
    parts = Parts(pool, clients)
    if pool.progress is not None:
        pool.progress.begin("evaluation", _evaluated(pool, parts, round_index), "examples")
    found: dict[int, CohortEvaluation] = {}

    def make(numbers: list[int], rank: int) -> Message:
        head = {"job": "evaluate", "round": round_index, "parts": parts.counts(numbers)}
        return Message(head, {"params": params, "buffers": buffers, "clients": parts.clients_of(numbers)})

    for _, numbers, answer in pool.run(parts.costs, make):
        for at, number in enumerate(numbers):
            found[number] = evaluation_of(under(str(at), answer.tensors), answer.head["on"])
    return joined([found[n] for n in sorted(found)])


def evaluate_central(
    pool: WorkerPool, params: Tensor, buffers: Tensor, part: CentralPart, count: int, round_index: int
) -> ExampleScores:
    """Evaluate a model on the server's `count` examples of a round, in blocks of `CHUNK`; see `Evaluator.each`."""
    starts = range(0, count, CHUNK)
    found: dict[int, ExampleScores] = {}

    def make(numbers: list[int], rank: int) -> Message:
        head = {"job": "central", "part": part, "round": round_index, "blocks": numbers}
        return Message(head, {"params": params, "buffers": buffers})

    costs = np.array([min(CHUNK, count - start) for start in starts], np.float64)
    for _, numbers, answer in pool.run(costs, make):
        for number in numbers:
            found[number] = scores_of(under(str(number), answer.tensors))
    return ExampleScores(
        *(torch.cat([getattr(found[n], name) for n in sorted(found)]) for name in ("losses", "scores", "predicted"))
    )


def training_losses(pool: WorkerPool, params: Tensor, buffers: Tensor, clients: I64, round_index: int) -> F64:
    """Return F_k of a model for some clients that have examples, float64 (K,); see `Evaluator.training_losses`."""
    parts = Parts(pool, clients)
    found: dict[int, F64] = {}

    def make(numbers: list[int], rank: int) -> Message:
        head = {"job": "losses", "round": round_index, "parts": parts.counts(numbers)}
        return Message(head, {"params": params, "buffers": buffers, "clients": parts.clients_of(numbers)})

    for _, numbers, answer in pool.run(parts.costs, make):
        losses = np.split(answer.tensors["losses"].numpy(), np.cumsum(parts.counts(numbers))[:-1])
        found |= dict(zip(numbers, losses, strict=True))
    return np.concatenate([found[n] for n in sorted(found)])


def _evaluated(pool: WorkerPool, parts: Parts, round_index: int) -> int:
    """Return about how many examples clients are evaluated on, for the display: those held out are known of one part.

    All of them could only be counted by making the data of every client.
    """
    held_out, examples = pool.place.task.population.during(round_index).clients.held_out, float(parts.costs.sum())
    share = 1.0 if held_out is None else len(held_out(parts.clients[0]).rows) / float(parts.costs[0])
    return round(examples * share)


class Parts:
    """Clients in parts of consecutive clients, with about equal numbers of examples.

    Attributes:
        clients: those of each part.
        starts: the position of each part's first client.
        costs: training examples of each part.
    """

    def __init__(self, pool: WorkerPool, clients: I64) -> None:
        sizes = pool.place.task.population.sizes[clients]
        self.clients = np.split(clients, cuts(sizes))
        self.starts = [0, *cuts(sizes).tolist()]
        self.costs = np.array([max(1.0, float(part.sum())) for part in np.split(sizes.astype(np.float64), cuts(sizes))])

    def counts(self, numbers: Sequence[int]) -> list[int]:
        """Return the number of clients of some parts."""
        return [len(self.clients[n]) for n in numbers]

    def clients_of(self, numbers: Sequence[int]) -> Tensor:
        """Return the clients of some parts, one after another."""
        return torch.from_numpy(np.concatenate([self.clients[n] for n in numbers]))


def cuts(sizes: I32) -> I64:
    """Return the positions at which a part begins, without the first.

    Args:
        sizes: examples of each client (K,).

    Example:
        >>> cuts(np.array([600, 600, 3000, 5, 5, 2000, 5000], np.int32)).tolist()
        [2, 3, 5, 6]
        >>> cuts(np.array([10] * 4, np.int32)).tolist()
        [1, 2, 3]
    """
    cost = np.maximum(sizes.astype(np.float64), 1.0)
    most = min(float(PART_EXAMPLES), cost.sum() / PARTS)
    number = ((np.cumsum(cost) - cost / 2) // most).astype(np.int64)
    return np.flatnonzero(np.diff(number)).astype(np.int64) + 1
