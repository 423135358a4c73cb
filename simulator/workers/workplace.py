"""What every worker holds, and what it does with a job."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import I64
from clients.core.examples import Examples
from clients.engines.base import Engine
from clients.engines.evaluation import CHUNK, Evaluator
from clients.engines.progress import Progress
from clients.processes.wire import Message
from clients.training.rules import PLAIN
from clients.training.task import LearningTask
from clients.training.uplink import IDENTITY
from clients.training.work import CohortWork, LocalWork
from server.algorithms.aggregation import Aggregation
from server.certificate.hashing import update_hashes
from server.dispersion.sums import Layers
from server.rounds.cohort_sum import CohortSum, SumPlan
from simulator.workers.arena import Arena
from simulator.workers.messages import (
    evaluation_tensors,
    named,
    scores_tensors,
    under,
    update_columns,
    update_rows,
    work_of,
)

DATA_CLIENTS = 256
"""Clients whose data are read together: an on-demand population makes them in one call and caches them."""


class _Collected:
    """What the tiles of a job return."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Tensor]] = {}
        self.sums: dict[str, Tensor] = {}
        self.written: set[str] = set()

    def add(self, columns: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> None:
        """Add the columns and the rows of a tile."""
        for name, t in (*columns.items(), *named("rows", rows).items()):
            self._parts.setdefault(name, []).append(t)

    def tensors(self) -> dict[str, Tensor]:
        """Return all of them, joined over tiles, and the sums of blocks."""
        return {
            name: parts[0] if len(parts) == 1 else torch.cat(parts) for name, parts in self._parts.items()
        } | self.sums


class Share(Progress):
    """Counts the work of one process in a phase that the server has begun.

    Args:
        whole: the server's count; None keeps a count of its own, in `done`.
    """

    def __init__(self, whole: Progress | None = None) -> None:
        super().__init__(lambda facts: None)
        self.whole, self.done = whole, 0

    def begin(self, phase: str, of: int, unit: str) -> None:
        """Change nothing: the server knows the phase."""

    def add(self, count: int) -> None:
        """Count work that is done."""
        self.done += count
        if self.whole is not None:
            self.whole.add(count)


Job = Callable[["Workplace", Message], Message]
"""(workplace, job) -> the result."""


@dataclass
class Workplace:
    """A task, the engine that works on it, and the algorithm's parts that act where the clients are.

    Attributes:
        engine: trains tiles of clients.
        local: the client half of the algorithm.
        aggregation: maps and adds up updates; None where a user's strategy does.
        layers: (name, start, end) of each layer of the parameters.
        population: clients N that have data.
        arena: memory shared with the server; None where the server is on another machine.
        count: counts the work of a worker, for the display of the server.
        jobs: by name, what it does beside the passes of a round.
    """

    engine: Engine
    local: LocalWork
    aggregation: Aggregation | None
    layers: Layers
    population: int
    arena: Arena | None = None
    count: Share = field(default_factory=Share)
    jobs: Mapping[str, Job] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._evaluator: Evaluator | None = None

    def is_own(self, work: CohortWork) -> bool:
        """Return whether the work follows the algorithm's rule and uplink; otherwise it is plain training."""
        own = work.rule is self.local.rule and work.uplink is self.local.uplink
        assert own or (work.rule is PLAIN and work.uplink is IDENTITY), "a rule cannot be sent to a worker"
        return own

    @property
    def task(self) -> LearningTask:
        """The learning task."""
        return self.engine.task

    @property
    def evaluator(self) -> Evaluator:
        """Evaluates models in this process."""
        if self._evaluator is None:
            self._evaluator = Evaluator(self.task)
        self._evaluator.progress = self.engine.progress
        return self._evaluator

    def whole(self, job: Message) -> Message:
        """Return a job with what the server has broadcast through shared memory."""
        names = job.head.get("broadcast", ())
        assert self.arena is not None or not names, "the server shares memory with this worker"
        return job if self.arena is None else Message(job.head, {**job.tensors, **self.arena.received(names)})

    def answer(self, job: Message) -> Message:
        """Do a job, and return its result, with the seconds that it took.

        An error in training is an answer, other errors are raised.
        """
        passes = {"train": self._train, "evaluate": self._evaluate, "gradients": self._gradients,
                  "central": self._central, "losses": self._losses}  # fmt: skip
        name, started = job.head["job"], time.perf_counter()
        answer = passes[name](job) if name in passes else self.jobs[name](self, job)
        return Message({**answer.head, "busy": time.perf_counter() - started}, answer.tensors)

    def _train(self, job: Message) -> Message:
        """Train blocks of tiles; return rows, or one sum for each block.

        An error of a tile ends the job: the server repeats its blocks, and the error is raised there.
        """
        head, out = job.head, _Collected()
        seconds, at = [], 0
        for number, sizes, slot in zip(head["numbers"], head["blocks"], head["starts"], strict=True):
            started = time.perf_counter()
            block = slice(at, at + sum(sizes))
            if len(sizes) > 1:
                self._make_data(head["round"], job.tensors["clients"].numpy()[block])
            total = self._sum_of(job, block) if head["sums"] else None
            for size in sizes:
                part = slice(at, at + size)
                try:
                    self._tile(job, part, slot + at - block.start, total, out)
                except Exception as error:
                    return Message({"job": "failed", "numbers": head["numbers"], "error": repr(error)[:500]})
                at += size
            if total is not None:
                out.sums |= named(f"sum/{number}", total.tensors())
            seconds.append(time.perf_counter() - started)
        result = {"job": "trained", "seconds": seconds, "numbers": head["numbers"], "written": sorted(out.written)}
        return Message(result, out.tensors())

    def _make_data(self, round_index: int, clients: I64) -> None:
        """Make the training data of some clients together, which is fastest; they are cached."""
        now = self.task.population.during(round_index)
        for start in range(0, len(clients), DATA_CLIENTS):
            now.cohort(clients[start : start + DATA_CLIENTS])

    def _tile(self, job: Message, part: slice, slot: int, total: CohortSum | None, out: _Collected) -> None:
        """Train one tile; its rows go to shared memory from `slot` on, or are collected."""
        clients = job.tensors["clients"].numpy()[part]
        work = work_of(job.head["round"], job.tensors, clients, self.local if job.head["own"] else None)
        update, states = self.engine.train(work, self._held(job, slot, part))
        rows = named("state", states)
        if total is None:
            rows |= update_rows(update)
        else:
            if total.plan.hashed:
                update = replace(update, hashes=update_hashes(update))
            total.add(update)
        left = self._put(job, rows, slot)
        out.written |= rows.keys() - left.keys()
        out.add(update_columns(update), left)

    def _put(self, job: Message, rows: Mapping[str, Tensor], slot: int) -> Mapping[str, Tensor]:
        """Write rows to shared memory; return those that must be sent."""
        return self.arena.put(rows, slot) if self.arena is not None and job.head["shares"] else rows

    def _held(self, job: Message, slot: int, part: slice) -> dict[str, Tensor]:
        """Return the states of a tile's clients: from the message, or copied from shared memory.

        Should this worker be lost, another one needs them as they are.
        """
        held = {name: t[part] for name, t in under("held", job.tensors).items()}
        for name in job.head["shared"]:
            assert self.arena is not None, "the server shares memory with this worker"
            held[name] = self.arena.view(f"held/{name}", slot, part.stop - part.start).clone()
        return held

    def _sum_of(self, job: Message, part: slice) -> CohortSum:
        """Return an empty sum for the clients of a block."""
        assert self.aggregation is not None, "the server adds up what a user's strategy aggregates"
        clients, weights, shares = (job.tensors[name].numpy()[part] for name in ("clients", "weights", "shares"))
        order = np.argsort(clients)
        plan = SumPlan(
            clients=clients[order],
            weights=weights[order],
            num_examples=np.zeros(len(clients), np.int64),
            anchor=job.tensors["params"],
            layers=self.layers,
            population=self.population,
            aggregation=self.aggregation,
            buffer_weights=shares[order],
            counted=job.head["counted"],
            hashed=job.head["hashed"],
        )
        return CohortSum(plan, keep_rows=False)

    def _evaluate(self, job: Message) -> Message:
        """Evaluate a model on the examples of some clients, part by part."""
        self.evaluator.load(job.tensors["params"], job.tensors["buffers"])
        found = [self.evaluator.clients(part, job.head["round"]) for part in _parts(job)]
        tensors: dict[str, Tensor] = {}
        for number, evaluation in enumerate(found):
            tensors |= named(str(number), evaluation_tensors(evaluation))
        return Message({"job": "evaluated", "on": found[0].evaluated_on}, tensors)

    def _central(self, job: Message) -> Message:
        """Evaluate a model on blocks of the server's examples."""
        examples = self.task.population.during(job.head["round"]).central_examples(job.head["part"])
        self.evaluator.load(job.tensors["params"], job.tensors["buffers"])
        tensors: dict[str, Tensor] = {}
        for number in job.head["blocks"]:
            block = slice(number * CHUNK, (number + 1) * CHUNK)
            found = self.evaluator.each(Examples(examples.features[block], examples.targets[block]), number)
            tensors |= named(str(number), scores_tensors(found))
        return Message({"job": "evaluated"}, tensors)

    def _losses(self, job: Message) -> Message:
        """Return the training losses of some clients, part by part."""
        self.evaluator.load(job.tensors["params"], job.tensors["buffers"])
        losses = list(self.evaluator.training_losses(_parts(job), job.head["round"]))
        return Message({"job": "losses"}, {"losses": torch.from_numpy(np.concatenate(losses))})

    def _gradients(self, job: Message) -> Message:
        """Return the full-batch gradients of some clients, computed part by part."""
        out, written = _Collected(), set[str]()
        for part, slot in zip(_parts(job), job.head["starts"], strict=True):
            rows = self.engine.gradients(work_of(job.head["round"], job.tensors, part, None))
            left = self._put(job, {"gradients": rows}, slot)
            written |= {"gradients"} - left.keys()
            out.add({}, left)
        return Message({"job": "gradients", "written": sorted(written)}, out.tensors())


def _parts(job: Message) -> list[I64]:
    """Return a job's clients in their parts."""
    ends = np.cumsum(job.head["parts"])
    return [np.asarray(part) for part in np.split(job.tensors["clients"].numpy(), ends[:-1])]
