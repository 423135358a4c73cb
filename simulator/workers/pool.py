"""The pool of workers: deals jobs, gathers answers, and gives the work of a lost worker to the others."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from clients.core.arrays import F64
from clients.engines.native.threads import threads_restored
from clients.engines.progress import Progress
from clients.processes.forking import exit_of, kill, wait_for_exit
from clients.processes.wire import Message
from server.rounds.experiment import RoundInterrupted
from simulator.workers.dealing import CostModel, deal
from simulator.workers.links import Arrival, Hub, LinkError, tell_all
from simulator.workers.workplace import Workplace

POLL_SECONDS = 0.2
STALL_SECONDS = 300.0
"""A worker that counts no work for so long, while the others are done, is lost."""
GOODBYE_SECONDS = 3.0

Make = Callable[[list[int], int], Message]
"""(numbers of jobs, worker) -> the message that has the worker do them."""


@dataclass
class RoundFacts:
    """What the pool measured since the last round ended: seconds of work of each worker, and who was lost."""

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
        self.costs, self.round_index = CostModel(), 0
        self._facts, self._id = RoundFacts(), 0
        self._silent, self._closed = set[int](), False
        self._exits: dict[int, str] = {}
        self._interrupted = ""
        self.progress: Progress | None = None

    def silent(self, rank: int) -> None:
        """End a worker whose heart stands still: its connection then breaks, which tells the pool."""
        self._silent.add(rank)
        if rank in self._processes:
            kill(self._processes[rank])
        else:
            self.hub.inbox.put(Arrival(rank, None))

    def facts(self) -> dict[str, Any]:
        """Return what was measured in the round, for the record: see docs; and begin the next."""
        busy = [self._facts.busy.get(rank, 0.0) for rank in range(self.size)]
        at_work = [busy[0], *(busy[rank] for rank in self.hub.alive)]
        mean = sum(at_work) / len(at_work)
        fixed, step = self.costs.coefficients.tolist()
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

    def run(self, costs: F64, make: Make, *, training: bool = False) -> Iterator[tuple[int, list[int], Message]]:
        """Deal jobs, do this process's share, and yield (worker, numbers of its jobs, answer) until all are done.

        Args:
            costs: seconds of each job, up to a factor.
            make: makes the message of some jobs.
            training: whether the loss of a worker may interrupt the run; an answer then says that its jobs failed.
                Otherwise a job that failed is repeated in this process, which raises its error.

        Raises:
            RoundInterrupted: a worker is lost, and a loss is to stop the run.
        """
        for rank, numbers, answer in self._answers(costs, make, training=training):
            self._facts.busy[rank] = self._facts.busy.get(rank, 0.0) + answer.head["busy"]
            yield rank, numbers, answer

    def _answers(self, costs: F64, make: Make, *, training: bool) -> Iterator[tuple[int, list[int], Message]]:
        todo = list(range(len(costs)))
        pending: dict[int, tuple[int, list[int]]] = {}
        while todo or pending:
            if training and self._interrupted:
                raise RoundInterrupted(self._interrupted)
            if todo:
                ranks = [0, *(rank for rank in self.hub.alive if rank not in pending)]
                dealt = [[todo[i] for i in part] for part in deal(costs[todo], self.costs.speeds(ranks))]
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
            elif answer.head["job"] == "failed" and not training:
                yield rank, numbers, self._own(make(numbers, 0))
            else:
                yield rank, numbers, answer

    def _sent(self, rank: int, message: Message, jobs: int) -> int | None:
        """Send a job and return its id; None where the worker is lost. Shared memory has what all workers read."""
        self._id += 1
        tensors = message.tensors if self.place.arena is None else self.place.arena.broadcast(message.tensors)
        head = {**message.head, "id": self._id, "broadcast": sorted(message.tensors.keys() - tensors.keys())}
        try:
            self.hub.send(rank, Message(head, tensors))
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
        """Return a worker with a job whose process has ended; its connection may still be open."""
        for rank in pending:
            if rank in self._processes and (how := exit_of(self._processes[rank])) is not None:
                self._exits[rank] = how
                return rank
        return None

    def _show(self, count: int) -> None:
        if self.progress is not None and count > 0:
            self.progress.add(count)

    def _lose(self, rank: int, jobs: int) -> None:
        """Take note of a lost worker. Where a loss is to stop the run, the present or the next training ends it."""
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
        self._facts.events.append({"round": self.round_index, "kind": "worker_lost", "message": message})
        if self._stop_on_loss:
            self._interrupted = f"worker {rank} {how}, and engine.on_worker_loss is 'stop'"
