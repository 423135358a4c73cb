"""The pool of workers: deals a cohort's blocks, gathers results, and gives the work of a lost worker to the others."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, I64
from clients.engines.evaluation import CohortEvaluation
from clients.engines.progress import Progress
from clients.training.work import CohortUpdate, CohortWork
from server.rounds.cohort_sum import CohortSum
from server.rounds.experiment import RoundInterrupted
from simulator.workers.dealing import Block, CostModel, deal
from simulator.workers.forking import exit_of, kill, wait_for_exit
from simulator.workers.links import Arrival, Hub, LinkError, tell_all
from simulator.workers.messages import evaluation_of, joined, named, under, update_of, work_tensors
from simulator.workers.torch_threads import threads_restored
from simulator.workers.wire import Message
from simulator.workers.workplace import Workplace

POLL_SECONDS = 0.2
STALL_SECONDS = 300.0
"""A worker that counts no work for so long, while the others are done, is lost."""
GOODBYE_SECONDS = 3.0

Held = Callable[[I64], dict[str, Tensor]]
"""Clients, (K,) -> their states, [K, width] each, by name."""
Make = Callable[[list[int], int], Message]
"""(numbers of jobs, worker) -> the message that has the worker do them."""


@dataclass(frozen=True)
class BlockResult:
    """The result of a block.

    Attributes:
        update: one row for each client; without parameters where `total` is their sum.
        states: the new client states, by name.
        total: the sum of the updates; None where rows are kept.
    """

    update: CohortUpdate
    states: Mapping[str, Tensor]
    total: CohortSum | None = None


@dataclass
class RoundFacts:
    """What the pool measured since the last round ended: seconds of training of each worker, and who was lost."""

    busy: dict[int, float] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)


class WorkerPool:
    """The server's side of its workers. The server's process is worker 0 and takes its own share.

    Args:
        place: what this process works with.
        hub: the connections to the others.
        size: number of workers, with this one.
        processes: process ids of the workers that this process has forked, by rank.
        threads: torch's threads of each worker.
        stop_on_loss: whether the loss of a worker interrupts the run; otherwise the others do its work.
    """

    def __init__(
        self,
        place: Workplace,
        hub: Hub,
        *,
        size: int,
        processes: Mapping[int, int],
        threads: int,
        stop_on_loss: bool = False,
    ) -> None:
        self.place, self.hub, self.size, self.threads = place, hub, size, threads
        self._mine = replace(place, arena=None)
        self._processes, self._stop_on_loss = dict(processes), stop_on_loss
        self._costs, self._facts, self._id = CostModel(), RoundFacts(), 0
        self._round, self._silent, self._closed = 0, set[int](), False
        self._exits: dict[int, str] = {}
        self.progress: Progress | None = None

    def silent(self, rank: int) -> None:
        """End a worker whose heart stands still: its connection then breaks, which tells the pool."""
        self._silent.add(rank)
        if rank in self._processes:
            kill(self._processes[rank])
        else:
            self.hub.inbox.put(Arrival(rank, None))

    def train(
        self, work: CohortWork, blocks: Sequence[Block], held: Held, total: CohortSum | None
    ) -> list[BlockResult | None]:
        """Train the blocks of a cohort.

        Args:
            work: the cohort's work.
            blocks: its blocks.
            held: returns client states.
            total: the sum to which the blocks belong, which keeps no rows; None returns rows.

        Returns:
            One result for each block, in their order; None for a block that failed, which must be repeated here.

        Raises:
            RoundInterrupted: a worker is lost, and a loss is to stop the run.
        """
        self._round = work.round_index
        results: list[BlockResult | None] = [None] * len(blocks)
        measured: list[tuple[int, Block, float]] = []

        def make(numbers: list[int], rank: int) -> Message:
            return self._training(work, blocks, numbers, held, total, shares=rank > 0)

        for rank, numbers, answer in self._run(self._costs.seconds(blocks), make):
            if answer.head["job"] == "failed":
                continue
            self._facts.busy[rank] = self._facts.busy.get(rank, 0.0) + sum(answer.head["seconds"])
            at = 0
            for number, seconds in zip(numbers, answer.head["seconds"], strict=True):
                count = len(blocks[number].places)
                results[number] = self._result(blocks[number], answer, number, slice(at, at + count), total, seconds)
                measured.append((rank, blocks[number], seconds))
                at += count
        self._costs.learn(measured)
        return results

    def gradients(self, work: CohortWork) -> Tensor:
        """Return each client's full-batch gradient, [K, P]."""
        parts = self._parts(work.clients)
        out = work.params.new_zeros(work.num_clients, work.params.numel())

        def make(numbers: list[int], rank: int) -> Message:
            places = np.concatenate([parts[n] for n in numbers])
            tensors = {"clients": torch.from_numpy(work.clients[places]), "places": torch.from_numpy(places)}
            head = {"job": "gradients", "round": work.round_index, "parts": [len(parts[n]) for n in numbers]}
            return Message(head, work_tensors(work) | tensors)

        for _, numbers, answer in self._run(self._sizes(work.clients, parts), make, repeats=True):
            places = np.concatenate([parts[n] for n in numbers])
            rows = under("rows", answer.tensors).get("gradients")
            if rows is None:
                assert self.place.arena is not None, "the worker shares memory"
                rows = self.place.arena.get("gradients", places)
            out[torch.from_numpy(places)] = rows
        return out

    def evaluate(self, params: Tensor, buffers: Tensor, clients: I64, round_index: int) -> CohortEvaluation:
        """Evaluate a model on the examples of each client."""
        parts = self._parts(clients)
        found: dict[int, CohortEvaluation] = {}

        def make(numbers: list[int], rank: int) -> Message:
            chosen = torch.from_numpy(clients[np.concatenate([parts[n] for n in numbers])])
            head = {"job": "evaluate", "round": round_index, "parts": [len(parts[n]) for n in numbers]}
            return Message(head, {"params": params, "buffers": buffers, "clients": chosen})

        for _, numbers, answer in self._run(self._sizes(clients, parts), make, repeats=True):
            for at, number in enumerate(numbers):
                found[number] = evaluation_of(under(str(at), answer.tensors), answer.head["on"])
        return joined([found[n] for n in sorted(found)])

    def facts(self) -> dict[str, Any]:
        """Return what was measured in the round, for the record: see docs; and begin the next."""
        busy = [self._facts.busy.get(rank, 0.0) for rank in range(self.size)]
        at_work = [busy[0], *(busy[rank] for rank in self.hub.alive)]
        mean = sum(at_work) / len(at_work)
        fixed, step = self._costs.coefficients.tolist()
        self._facts.busy = {}
        return {
            "count": len(at_work),
            "busy_seconds": busy,
            "imbalance": max(at_work) / mean if mean else 1.0,
            "seconds_per_step": {"tile": fixed, "client": step},
        }

    def events(self) -> list[dict[str, Any]]:
        """Return the losses of workers since the last call."""
        found, self._facts.events = self._facts.events, []
        return found

    def close(self, farewell: Message | None = None) -> None:
        """End all workers, once; a forked one that does not end is killed."""
        if self._closed:
            return
        self._closed = True
        tell_all(self.hub, self.hub.alive, farewell or Message({"job": "end"}))
        until = time.monotonic() + GOODBYE_SECONDS
        for pid in self._processes.values():
            if wait_for_exit(pid, max(0.0, until - time.monotonic())) is None:
                kill(pid)
                wait_for_exit(pid, GOODBYE_SECONDS)
        self._processes = {}
        self.hub.close(GOODBYE_SECONDS)

    def _run(self, costs: F64, make: Make, *, repeats: bool = False) -> Iterator[tuple[int, list[int], Message]]:
        """Deal jobs, do this process's share, and yield (worker, numbers of its jobs, answer) until all are done.

        `repeats` has this process repeat a job that failed, which raises its error; otherwise the answer says so.
        """
        todo = list(range(len(costs)))
        pending: dict[int, tuple[int, list[int]]] = {}
        while todo or pending:
            if todo:
                ranks = [0, *(rank for rank in self.hub.alive if rank not in pending)]
                dealt = [[todo[i] for i in part] for part in deal(costs[todo], self._costs.speeds(ranks))]
                todo = []
                for rank, numbers in zip(ranks[1:], dealt[1:], strict=True):
                    if numbers and (sent := self._sent(rank, make(numbers, rank), len(numbers))) is not None:
                        pending[rank] = sent, numbers
                    else:
                        todo += numbers
                if dealt[0]:
                    yield 0, dealt[0], self._own(make(dealt[0], 0))
                continue
            rank, answer = self._next(pending)
            numbers = pending.pop(rank)[1]
            if answer is None:
                self._lose(rank, len(numbers))
                todo = numbers
            elif answer.head["job"] == "failed" and repeats:
                yield rank, numbers, self._own(make(numbers, 0))
            else:
                yield rank, numbers, answer

    def _sent(self, rank: int, message: Message, jobs: int) -> int | None:
        """Send a job and return its id; None where the worker is lost."""
        self._id += 1
        try:
            self.hub.send(rank, Message({**message.head, "id": self._id}, message.tensors))
        except LinkError:
            self._lose(rank, jobs)
            return None
        return self._id

    def _own(self, job: Message) -> Message:
        """Do a job in this process, with as many threads as a worker has."""
        with threads_restored(self.threads):
            return self._mine.answer(job)

    def _next(self, pending: Mapping[int, tuple[int, list[int]]]) -> tuple[int, Message | None]:
        """Wait for the answer of a worker with a job, or for its loss."""
        counted, since = dict(self.hub.counts), time.monotonic()
        while True:
            try:
                arrival = self.hub.inbox.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if (ended := self._ended_process(pending)) is not None:
                    return ended, None
                now = dict(self.hub.counts)
                if now != counted:
                    self._show(sum(now.values()) - sum(counted.values()))
                    counted, since = now, time.monotonic()
                if time.monotonic() - since > STALL_SECONDS:
                    rank = min(pending)
                    self.silent(rank)
                    return rank, None
                continue
            job, _ = pending.get(arrival.rank, (0, []))
            if job and (arrival.message is None or arrival.message.head["id"] == job):
                return arrival.rank, arrival.message
            if arrival.message is None:
                self._lose(arrival.rank, 0)

    def _ended_process(self, pending: Mapping[int, tuple[int, list[int]]]) -> int | None:
        """Return a worker with a job whose process has ended, should its connection not have told."""
        for rank in pending:
            if rank in self._processes and (how := exit_of(self._processes[rank])) is not None:
                self._exits[rank] = how
                return rank
        return None

    def _show(self, count: int) -> None:
        if self.progress is not None and count > 0:
            self.progress.add(count)

    def _lose(self, rank: int, jobs: int) -> None:
        """Take note of a lost worker.

        Raises:
            RoundInterrupted: a loss is to stop the run.
        """
        if rank not in self.hub.alive:
            return
        self.hub.drop(rank)
        how = "is not reachable"
        if rank in self._processes:
            pid = self._processes.pop(rank)
            how = self._exits.get(rank) or wait_for_exit(pid, GOODBYE_SECONDS) or "hangs"
            if how == "hangs":
                kill(pid)
        if rank in self._silent:
            how = "gave no sign of life and was given up"
        then = "the others take its work over" if jobs else "the others go on"
        message = f"worker {rank} {how}; {then}"
        self._facts.events.append({"round": self._round, "kind": "worker_lost", "message": message})
        if self._stop_on_loss:
            raise RoundInterrupted(f"worker {rank} {how}, and engine.on_worker_loss is 'stop'")

    def _training(
        self,
        work: CohortWork,
        blocks: Sequence[Block],
        numbers: list[int],
        held: Held,
        total: CohortSum | None,
        *,
        shares: bool,
    ) -> Message:
        """Return the job of training some blocks."""
        places = np.concatenate([blocks[n].places for n in numbers])
        clients = work.clients[places]
        tensors = {"clients": torch.from_numpy(clients), "places": torch.from_numpy(places), **work_tensors(work)}
        states = named("held", held(clients))
        arena = self.place.arena if shares else None
        left = states if arena is None else arena.put(states, places)
        head = {
            "job": "train", "round": work.round_index, "numbers": numbers, "sums": total is not None,
            "blocks": [[len(tile) for tile in blocks[n].tiles] for n in numbers], "own": self.place.is_own(work),
            "shared": sorted(name.removeprefix("held/") for name in states.keys() - left.keys()),
        }  # fmt: skip
        if total is not None:
            head["counted"] = total.plan.num_counted
            tensors |= {"weights": torch.from_numpy(total.plan.weights[places]),
                        "shares": torch.from_numpy(total.plan.shares[places])}  # fmt: skip
        return Message(head, tensors | left)

    def _result(
        self, block: Block, answer: Message, number: int, part: slice, total: CohortSum | None, seconds: float
    ) -> BlockResult:
        """Return the result of one block of an answer."""
        tensors, places = answer.tensors, block.places
        columns = {n: t[part] for n, t in tensors.items() if not n.startswith(("rows/", "sum/")) and n != "has_faults"}
        columns |= {"has_faults": tensors["has_faults"]} if "has_faults" in tensors else {}
        rows = {name: t[part] for name, t in under("rows", tensors).items()}
        for name in answer.head["written"]:
            assert self.place.arena is not None, "the worker shares memory"
            rows[name] = self.place.arena.get(name, places)
        states = under("state", rows)
        update = update_of(columns, {n: t for n, t in rows.items() if not n.startswith("state/")}, seconds)
        if total is None:
            return BlockResult(update, states)
        found = CohortSum.restored(total.plan.part(np.sort(places)), update, under(f"sum/{number}", tensors))
        return BlockResult(update, states, found)

    def _parts(self, clients: I64) -> list[I64]:
        """Split clients into one part for each worker of the plan, of about equal numbers of examples."""
        sizes = np.maximum(self.place.task.population.sizes[clients].astype(np.float64), 1.0)
        middle = np.cumsum(sizes) - sizes / 2
        number = np.minimum((middle * self.size / sizes.sum()).astype(np.int64), self.size - 1)
        return [np.flatnonzero(number == n).astype(np.int64) for n in np.unique(number)]

    def _sizes(self, clients: I64, parts: Sequence[I64]) -> F64:
        sizes = self.place.task.population.sizes[clients].astype(np.float64)
        return np.array([sizes[part].sum() for part in parts])
