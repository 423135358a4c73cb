"""The plain engine: one client after another with torch.nn and torch.optim.

Tests compare other engines with it, and real nodes run it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from clients.core import streams
from clients.core.arrays import I64
from clients.core.cards.transfer import sent
from clients.core.examples import CohortData
from clients.core.parameters import read_vector, write_vector
from clients.engines.batch import Batch
from clients.engines.cards.examples import ExampleStore, Placed
from clients.engines.evaluation import CohortEvaluation, Evaluator
from clients.engines.finishing import client_slice, finish, gradient_noise, noise_keys
from clients.engines.progress import Progress
from clients.engines.second_order.plain_step import precondition
from clients.engines.second_order.stacked_step import StackedStep
from clients.modules.dropout_sites import AddressedMasks, dropouts_of
from clients.modules.players import turns_of
from clients.modules.randomness import Seeding, generators_restored, may_draw
from clients.training.class_balance import draw_batches
from clients.training.client_states import BUFFERS
from clients.training.local import Batches, count_steps
from clients.training.losses import example_scores, predictions, trained_losses
from clients.training.optimizers import TorchOptimizer, shrink, torch_optimizer
from clients.training.path_measures import PathMeter, distances, is_measured, is_placed, squared_norms
from clients.training.remedies import class_weight_table, remedied
from clients.training.second_order.steps import second_order_steps
from clients.training.task import LearningTask, autocast, cast_features, cast_targets, working_copy
from clients.training.work import CohortUpdate, CohortWork, concatenate


@dataclass(frozen=True)
class PreparedBatch:
    """The examples of one local step.

    Attributes:
        features: [b, *feature_shape], cast and augmented.
        targets: [b, ...].
        remedy: factors of the losses, by name, [b, ...]; see `clients.training.remedies`.
    """

    features: Tensor
    targets: Tensor
    remedy: dict[str, Tensor]

    def stacked(self) -> Batch:
        """Return the batch as that of a stack of one client."""
        remedy = {name: values[None] for name, values in self.remedy.items()}
        return Batch(self.features[None], self.targets[None], None, {}, remedy)

    def part(self, start: int, stop: int) -> PreparedBatch:
        """Return the examples at positions from `start` to below `stop`."""
        remedy = {name: values[start:stop] for name, values in self.remedy.items()}
        return PreparedBatch(self.features[start:stop], self.targets[start:stop], remedy)


class PlainEngine:
    """Trains clients one by one on one copy of the module."""

    name = "plain"

    def __init__(self, task: LearningTask) -> None:
        self.task, self._examples = task, ExampleStore(task.device)
        self.progress: Progress | None = None
        self._renew()

    def _renew(self) -> None:
        """Take a copy of the task's module to train on."""
        task = self.task
        self._module = working_copy(task.module).to(task.device)
        self._masks = AddressedMasks(self._module, task.sites, task.seed, task.dtype, task.device)
        self._seeding = Seeding(self._module, task.device) if task.passes.draws or may_draw(self._module) else None
        self._turns = turns_of(task.module)
        self._named = {n: p for n, p in self._module.named_parameters() if p.requires_grad}
        masks = tuple(dropouts_of(self._module))
        kept = (n for n, _ in self._module.named_buffers() if n.rpartition(".")[0] not in masks)
        buffers = dict(self._module.named_buffers())
        self._kept = {n: buffers[n].clone() for n in kept if n not in task.buffers.names}

    @cached_property
    def _evaluator(self) -> Evaluator:
        return Evaluator(self.task)

    def tiles(self, work: CohortWork) -> Sequence[I64]:
        """Split a cohort into tiles of sixteen clients; only memory depends on the size."""
        return np.array_split(np.arange(work.num_clients), max(1, -(-work.num_clients // 16)))

    def with_task(self, task: LearningTask) -> PlainEngine:
        """Return a plain engine for another task."""
        return PlainEngine(task)

    def evaluate(self, work: CohortWork) -> CohortEvaluation:
        """Evaluate the broadcast model on each client's examples; see `Engine.evaluate`."""
        self._evaluator.progress = self.progress
        return self._evaluator.evaluate(work)

    def train(self, work: CohortWork, client_state: Mapping[str, Tensor]) -> tuple[CohortUpdate, dict[str, Tensor]]:
        """Train each client of `work`; see `Engine.train`."""
        started = time.perf_counter()
        task = self.task
        data = task.population.during(work.round_index).cohort(work.clients)
        steps = count_steps(task.local, data.sizes, work.clients, seed=task.seed, round_index=work.round_index)
        batches = draw_batches(task.local, data, steps, work.clients, seed=task.seed, round_index=work.round_index)
        placed, table = self._examples.place(data, batches.rows), _on(class_weight_table(task, data), task.device)
        updates, new = [], []
        rows = work.params.new_empty(work.num_clients, self.task.parameters.size)
        for k in range(work.num_clients):
            weights = table[k] if table is not None else None
            state = {n: v[k] for n, v in client_state.items()}
            update, kept = self._train_one(k, work, data, placed, batches, state, weights, rows[k : k + 1])
            updates.append(update)
            new.append(kept)
        update = replace(_joined(updates, rows), seconds=time.perf_counter() - started)
        return update, {n: torch.stack([kept[n] for kept in new]) for n in new[0]} if new else {}

    def gradients(self, work: CohortWork) -> Tensor:
        """Return each client's full-batch gradient at the broadcast parameters, without dropout, [K, P]."""
        data = self.task.population.during(work.round_index).cohort(work.clients)
        table = _on(class_weight_table(self.task, data, of_objective=True), self.task.device)
        placed, rows = self._examples.place(data, data.rows), []
        for k in range(work.num_clients):
            self._load(work.params, work.buffers)
            self._masks.stop()
            chosen = placed.rows[data.offsets[k] : data.offsets[k + 1]]
            self._module.zero_grad(set_to_none=True)
            if len(chosen):
                weights = table[k] if table is not None else None
                with ExitStack() as stack:
                    if self._seeding is not None:
                        stack.enter_context(generators_restored(self.task.device))
                        self._seed(work.round_index, work.clients[k : k + 1], 0)
                    one = work.clients[k : k + 1]
                    self._backward(self._batch(placed, chosen, weights, one, work.round_index, None))
            rows.append(self.task.parameters.flatten({n: _gradient(p) for n, p in self._named.items()}))
        return torch.stack(rows).to(work.params.device)

    def _load(self, params: Tensor, buffers: Tensor) -> None:
        if self.task.passes.is_stateful:
            self._renew()
        write_vector(self._module, self.task.parameters, params)
        write_vector(self._module, self.task.buffers, buffers)
        buffers_now = dict(self._module.named_buffers()) if self._kept else {}
        for name, as_built in self._kept.items():  # such as BatchNorm's counter, which clients must not share
            buffers_now[name].copy_(as_built)

    def _batch(
        self,
        placed: Placed,
        rows: Tensor,
        weights: Tensor | None,
        client: I64,
        round_index: int,
        step: int | None,
    ) -> PreparedBatch:
        """Return some rows as a batch: cast, augmented, with the factors of their losses.

        Args:
            placed: has the rows.
            rows: indices of the rows, [b].
            weights: class weights in the loss, [classes].
            client: the client, (1,).
            round_index: the round.
            step: the local step, from 0, which addresses the augmentation; None for no augmentation.
        """
        task = self.task
        features = cast_features(placed.features[rows], task.dtype)
        targets = cast_targets(placed.targets[rows], task.dtype)
        remedy: dict[str, Tensor] = {}
        if weights is not None or task.local.augment.any:
            features, targets, remedy = remedied(
                task, features[None], targets[None], weights[None] if weights is not None else None,
                np.array([len(rows)]), client, round_index=round_index, step=step,
            )  # fmt: skip
            features, targets, remedy = features[0], targets[0], {n: v[0] for n, v in remedy.items()}
        return PreparedBatch(features, targets, remedy)

    def _losses(self, model: Callable[[Tensor], Tensor], batch: PreparedBatch) -> tuple[Tensor, Tensor]:
        """Return the losses [b] and the outputs [b, ...] of a batch."""
        task = self.task
        with autocast(task):
            outputs = model(batch.features)
        outputs = outputs.to(task.dtype)
        kind, local = task.population.task, task.local
        losses = trained_losses(outputs, batch.targets, kind, local.focal_gamma, batch.remedy, local.loss)
        return losses, outputs.detach()

    def _backward(self, batch: PreparedBatch) -> tuple[Tensor, Tensor | int]:
        """Add the gradient of a batch's mean loss to the parameters'; return the sum of losses, and the errors."""
        losses, outputs = self._losses(self._module, batch)
        losses.mean().backward()  # type: ignore[no-untyped-call]
        return losses.detach().sum(dtype=torch.float64), self._errors(outputs, batch.targets)

    def _errors(self, outputs: Tensor, targets: Tensor) -> Tensor | int:
        """Return how many examples are wrongly classified, where that is counted."""
        if not self.task.count_errors:
            return 0
        kind = self.task.population.task
        return len(outputs) - example_scores(predictions(outputs, kind), targets, kind).sum().long()

    def _train_one(
        self,
        k: int,
        work: CohortWork,
        data: CohortData,
        placed: Placed,
        batches: Batches,
        state: dict[str, Tensor],
        weights: Tensor | None,
        row: Tensor,
    ) -> tuple[CohortUpdate, dict[str, Tensor]]:
        """Train client k; its parameters are written to `row` [1, P]."""
        task, local = self.task, self.task.local
        client = work.clients[k : k + 1]
        self._load(work.params, state.get(BUFFERS, work.buffers))
        start = work.params.to(task.device)
        anchor = task.parameters.views(start if work.rule.correct is None else start.clone())
        broadcast = {n: task.parameters.views(v.to(task.device)) for n, v in work.broadcast.items()}
        held = {n: task.parameters.views(v.to(task.device)) for n, v in state.items() if n in work.rule.client_state}
        lr = local.lr(work.round_index)
        optimizer = torch_optimizer(self._named.values(), local, lr)
        second = second_order_steps(local, 1, start, lr)
        meter, steps = PathMeter(1), int(batches.steps[k])
        noise = noise_keys(task, work.round_index, client, steps)
        self._masks.client(work.round_index, int(client[0]), steps)
        seen, before_last = 0, work.params if work.rule.sends_last_step else None
        total = torch.zeros((), dtype=torch.float64, device=task.device)
        errors = torch.zeros((), dtype=torch.int64, device=task.device)
        with ExitStack() as stack:
            if self._seeding is not None:
                stack.enter_context(generators_restored(task.device))
            for step in range(1, steps + 1):
                rows = placed.rows[k, step - 1, : batches.counts[k, step - 1]]
                self._masks.step(step - 1, len(rows))
                self._seed(work.round_index, client, step)
                optimizer.zero_grad()
                batch = self._batch(placed, rows, weights, client, work.round_index, step - 1)
                loss, wrong = self._backward(batch)
                total, errors, seen = total + loss, errors + wrong, seen + len(rows)
                if is_measured(step):
                    meter.gradient(squared_norms({n: _gradient(p)[None] for n, p in self._named.items()}))
                with torch.no_grad():
                    drawn = gradient_noise(task, noise[step - 1]) if noise is not None else None
                    self._correct(work, drawn, anchor, broadcast, held)
                    if second is not None:
                        inputs = {n: {m: t[None] for m, t in v.items()} for n, v in held.items()}
                        given = StackedStep(task, second, work.rule, anchor, broadcast, inputs)
                        precondition(given, self._named, batch.stacked(), partial(self._backward, batch))
                    self._take_turns(step)
                    self._clip()
                    if local.decoupled_decay:
                        for p in self._named.values():
                            if p.grad is not None:
                                p.mul_(1 - lr * local.decoupled_decay)
                if work.rule.sends_last_step and step == steps:
                    before_last = read_vector(self._module, task.parameters)
                optimizer.step()
                if local.l1:
                    self._shrink(optimizer, lr, step)
                if is_placed(step) or step == steps:
                    here = {n: p.detach()[None] for n, p in self._named.items()}
                    meter.position(step, distances(here, task.parameters, start))
                if self.progress is not None:
                    self.progress.add(1)
        counted = (float(total), seen, int(errors), steps)
        return self._result(k, work, data, state, meter, counted, row, before_last)

    def _seed(self, round_index: int, client: I64, step: int) -> None:
        """Seed the generators that the module may draw from by address; step 0 is the full-batch gradient."""
        if self._seeding is not None:
            self._seeding.seed(int(streams.keys(self.task.seed, "module", round_index, client, step)[0]))

    def _correct(
        self,
        work: CohortWork,
        noise: Mapping[str, Tensor] | None,
        anchor: Mapping[str, Tensor],
        broadcast: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Mapping[str, Tensor]],
    ) -> None:
        """Add noise and the rule's correction to the gradients in place.

        A parameter without a gradient keeps none, so the optimizer skips it, as in torch. Only where the rule corrects
        its gradient of zero to another one, it steps along that.
        """
        for name, p in self._named.items():
            has_none = p.grad is None
            if has_none and work.rule.correct is None:
                continue
            g = _gradient(p)
            if noise is not None and not has_none:
                g = g + noise[name][0]
            if work.rule.correct is not None:
                g = work.rule.correct(
                    g.clone(),
                    p,
                    anchor[name],
                    {n: v[name] for n, v in broadcast.items()},
                    {n: v[name] for n, v in state.items()},
                )
            if not has_none or bool(g.any()):
                p.grad = g

    def _take_turns(self, step: int) -> None:
        """Drop the gradients of the player who does not move in a step, counted from 1."""
        if self._turns is not None:
            for name, p in self._named.items():
                if not self._turns.moves(name, step - 1):
                    p.grad = None

    def _clip(self) -> None:
        if self.task.local.clip_norm is not None:
            nn.utils.clip_grad_norm_(list(self._named.values()), self.task.local.clip_norm)
        if self.task.local.clip_value is not None:
            nn.utils.clip_grad_value_(list(self._named.values()), self.task.local.clip_value)

    def _shrink(self, optimizer: TorchOptimizer, lr: float, step: int) -> None:
        """Take the proximal step of the L1 penalty, where the optimizer took a step."""
        with torch.no_grad():
            for name, p in self._named.items():
                if p.grad is not None:
                    taken = step if self._turns is None else self._turns.taken(name, step)
                    shrink(p, self.task.local, lr, taken, optimizer.state[p])

    def _result(
        self,
        k: int,
        work: CohortWork,
        data: CohortData,
        state: dict[str, Tensor],
        meter: PathMeter,
        counted: tuple[float, int, int, int],
        row: Tensor,
        before_last: Tensor | None,
    ) -> tuple[CohortUpdate, dict[str, Tensor]]:
        total, seen, errors, steps = counted
        params = read_vector(self._module, self.task.parameters, out=row[0])[None]
        buffers = read_vector(self._module, self.task.buffers)[None].to(work.buffers)
        stacked_state = {n: v[None] for n, v in state.items()}
        last = None if before_last is None else before_last[None].to(params.device)
        done = finish(self.task, self.gradients, client_slice(work, k), params, np.array([steps]), stacked_state, last)
        if self.task.local.buffers == "local" and self.task.buffers.size:
            done.client_state[BUFFERS] = buffers
        update = CohortUpdate(
            clients=work.clients[k : k + 1],
            params=done.params,
            buffers=buffers,
            num_examples=data.sizes[k : k + 1],
            local_steps=np.array([steps]),
            train_loss=np.array([total / seen if seen else np.nan]),
            train_errors=np.array([errors if self.task.count_errors else -1]),
            client_drift=meter.drift(),
            gradient_norm=meter.gradient_norm(),
            extras=done.extras,
            fault_counts=data.client_fault_counts(k),
        )
        return update, {n: v[0] for n, v in done.client_state.items()}


def _joined(updates: list[CohortUpdate], rows: Tensor) -> CohortUpdate:
    """Join the updates of clients, sorted; their parameters are in `rows` [K, P], unless the uplink changed them."""
    ordered = all(int(a.clients[0]) < int(b.clients[0]) for a, b in pairwise(updates))
    if not ordered or any(u.params.data_ptr() != row.data_ptr() for u, row in zip(updates, rows, strict=True)):
        return concatenate(updates)
    return replace(concatenate([replace(u, params=u.params[:, :0]) for u in updates]), params=rows)


def _on(table: Tensor | None, device: torch.device) -> Tensor | None:
    return None if table is None else sent(table, device)


def _gradient(p: nn.Parameter) -> Tensor:
    return p.grad if p.grad is not None else torch.zeros_like(p)
