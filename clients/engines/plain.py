"""The plain engine: one client after another with torch.nn and torch.optim.

Tests compare other engines with it, and real nodes run it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from clients.core import streams
from clients.core.arrays import I64, U64
from clients.core.examples import CohortData
from clients.core.parameters import read_vector, write_vector
from clients.engines.evaluation import CohortEvaluation, Evaluator
from clients.engines.finishing import client_slice, finish, gradient_noise
from clients.engines.progress import Progress
from clients.training.class_balance import draw_batches
from clients.training.client_states import BUFFERS
from clients.training.dropout import Dropout, dropout_keys, dropout_mask
from clients.training.local import Batches, count_steps
from clients.training.losses import example_scores, predictions, trained_losses
from clients.training.optimizers import torch_optimizer
from clients.training.path_measures import PathMeter, is_measured, squared_norms
from clients.training.remedies import class_weight_table, remedied
from clients.training.task import LearningTask, cast_features, cast_targets, working_copy
from clients.training.work import CohortUpdate, CohortWork, concatenate


class PlainEngine:
    """Trains clients one by one on one copy of the module."""

    name = "plain"

    def __init__(self, task: LearningTask) -> None:
        self.task = task
        self.progress: Progress | None = None
        self._module = working_copy(task.module).to(task.device)
        self._dropouts = {n: m for n, m in self._module.named_modules() if isinstance(m, Dropout)}
        self._named = {n: p for n, p in self._module.named_parameters() if p.requires_grad}
        sent = {*task.buffers.names, *(f"{n}.mask" for n in self._dropouts)}
        self._kept = {n: (b, b.clone()) for n, b in self._module.named_buffers() if n not in sent}

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
        table = class_weight_table(task, data)
        updates, new = [], []
        for k in range(work.num_clients):
            weights = table[k] if table is not None else None
            update, kept = self._train_one(k, work, data, batches, {n: v[k] for n, v in client_state.items()}, weights)
            updates.append(update)
            new.append(kept)
        update = replace(concatenate(updates), seconds=time.perf_counter() - started)
        return update, {n: torch.stack([kept[n] for kept in new]) for n in new[0]} if new else {}

    def gradients(self, work: CohortWork) -> Tensor:
        """Return each client's full-batch gradient at the broadcast parameters, without dropout, [K, P]."""
        data = self.task.population.during(work.round_index).cohort(work.clients)
        rows, table = [], class_weight_table(self.task, data, of_objective=True)
        for k in range(work.num_clients):
            self._load(work.params, work.buffers)
            self._set_masks({})
            chosen = torch.from_numpy(data.rows[data.offsets[k] : data.offsets[k + 1]])
            self._module.zero_grad(set_to_none=True)
            if len(chosen):
                weights = table[k] if table is not None else None
                losses, _, _ = self._losses(data, chosen, weights, work.clients[k : k + 1], work.round_index, None)
                losses.mean().backward()  # type: ignore[no-untyped-call]
            rows.append(self.task.parameters.flatten({n: _gradient(p) for n, p in self._named.items()}))
        return torch.stack(rows).to(work.params.device)

    def _load(self, params: Tensor, buffers: Tensor) -> None:
        write_vector(self._module, self.task.parameters, params)
        write_vector(self._module, self.task.buffers, buffers)
        for buffer, as_built in self._kept.values():  # such as BatchNorm's counter, which clients must not share
            buffer.copy_(as_built)

    def _set_masks(self, masks: Mapping[str, Tensor]) -> None:
        for name, module in self._dropouts.items():
            module.mask = masks.get(name, torch.ones((), dtype=self.task.dtype)).to(self.task.device)

    def _losses(
        self,
        data: CohortData,
        rows: Tensor,
        weights: Tensor | None,
        client: I64,
        round_index: int,
        step: int | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return losses, outputs and targets of some rows.

        Args:
            data: has the rows.
            rows: indices of the rows, [b].
            weights: class weights in the loss, [classes].
            client: the client, (1,).
            round_index: the round.
            step: the local step, from 0, which addresses the augmentation; None for no augmentation.
        """
        task = self.task
        features = cast_features(data.features[rows], task.dtype).to(task.device)
        targets = cast_targets(data.targets[rows], task.dtype).to(task.device)
        remedy: dict[str, Tensor] = {}
        if weights is not None or task.local.augment.any:
            features, targets, remedy = remedied(
                task, features[None], targets[None], weights[None] if weights is not None else None,
                np.array([len(rows)]), client, round_index=round_index, step=step,
            )  # fmt: skip
            features, targets, remedy = features[0], targets[0], {n: v[0] for n, v in remedy.items()}
        outputs = self._module(features)
        losses = trained_losses(outputs, targets, task.population.task, task.local.focal_gamma, remedy)
        return losses, outputs.detach(), targets

    def _train_one(
        self,
        k: int,
        work: CohortWork,
        data: CohortData,
        batches: Batches,
        state: dict[str, Tensor],
        weights: Tensor | None,
    ) -> tuple[CohortUpdate, dict[str, Tensor]]:
        task, local = self.task, self.task.local
        client = work.clients[k : k + 1]
        self._load(work.params, state.get(BUFFERS, work.buffers))
        anchor = {n: v.clone() for n, v in task.parameters.views(work.params.to(task.device)).items()}
        broadcast = {n: task.parameters.views(v.to(task.device)) for n, v in work.broadcast.items()}
        held = {n: task.parameters.views(v.to(task.device)) for n, v in state.items() if n in work.rule.client_state}
        lr = local.lr(work.round_index)
        optimizer = torch_optimizer(self._named.values(), local, lr)
        meter, steps = PathMeter(1), int(batches.steps[k])
        keys = dropout_keys(task.seed, work.round_index, client, steps, len(task.sites))
        seen = 0
        total = torch.zeros((), dtype=torch.float64, device=task.device)
        errors = torch.zeros((), dtype=torch.int64, device=task.device)
        with self._addressed_torch_generator(work.round_index, client):
            for step in range(1, steps + 1):
                rows = torch.from_numpy(batches.rows[k, step - 1, : batches.counts[k, step - 1]])
                self._set_masks(self._masks(keys[:, step - 1], len(rows)))
                optimizer.zero_grad(set_to_none=True)
                losses, outputs, targets = self._losses(data, rows, weights, client, work.round_index, step - 1)
                losses.mean().backward()  # type: ignore[no-untyped-call]
                total, seen = total + losses.detach().sum(dtype=torch.float64), seen + len(rows)
                if task.count_errors:
                    predicted = predictions(outputs, task.population.task)
                    errors += len(rows) - example_scores(predicted, targets, task.population.task).sum().long()
                if is_measured(step):
                    meter.gradient(squared_norms({n: _gradient(p)[None] for n, p in self._named.items()}))
                with torch.no_grad():
                    self._correct(work, client, step - 1, anchor, broadcast, held)
                    self._clip()
                    if local.decoupled_weight_decay:
                        for p in self._named.values():
                            p.mul_(1 - lr * local.decoupled_weight_decay)
                optimizer.step()
                if is_measured(step) or step == steps:
                    meter.position(
                        step, squared_norms({n: (p.detach() - anchor[n])[None] for n, p in self._named.items()})
                    )
                if self.progress is not None:
                    self.progress.add(1)
        return self._result(k, work, data, state, meter, (float(total), seen, int(errors), steps))

    @contextmanager
    def _addressed_torch_generator(self, round_index: int, client: I64) -> Iterator[None]:
        """Seed torch's generator by address, for a user's module that draws numbers in its forward pass."""
        if not _may_draw_numbers(self._module):
            yield
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(streams.keys(self.task.seed, "module", round_index, client)[0] >> np.uint64(1)))
            yield

    def _masks(self, keys: U64, batch: int) -> dict[str, Tensor]:
        return {
            site.name: dropout_mask(site, keys[i], batch, self.task.dtype)[0] for i, site in enumerate(self.task.sites)
        }

    def _correct(
        self,
        work: CohortWork,
        client: I64,
        step: int,
        anchor: Mapping[str, Tensor],
        broadcast: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Mapping[str, Tensor]],
    ) -> None:
        """Add noise, the L1 subgradient and the rule's correction to the gradients in place."""
        local = self.task.local
        noise = gradient_noise(self.task, work.round_index, client, step)
        for name, p in self._named.items():
            g = _gradient(p)
            if noise is not None:
                g = g + noise[name][0]
            if local.l1:
                g = g + local.l1 * p.sign()
            if work.rule.correct is not None:
                g = work.rule.correct(
                    g.clone(),
                    p,
                    anchor[name],
                    {n: v[name] for n, v in broadcast.items()},
                    {n: v[name] for n, v in state.items()},
                )
            p.grad = g

    def _clip(self) -> None:
        if self.task.local.clip_norm is not None:
            nn.utils.clip_grad_norm_(list(self._named.values()), self.task.local.clip_norm)
        if self.task.local.clip_value is not None:
            nn.utils.clip_grad_value_(list(self._named.values()), self.task.local.clip_value)

    def _result(
        self,
        k: int,
        work: CohortWork,
        data: CohortData,
        state: dict[str, Tensor],
        meter: PathMeter,
        counted: tuple[float, int, int, int],
    ) -> tuple[CohortUpdate, dict[str, Tensor]]:
        total, seen, errors, steps = counted
        params = read_vector(self._module, self.task.parameters)[None].to(work.params.device)
        buffers = read_vector(self._module, self.task.buffers)[None].to(work.buffers)
        stacked_state = {n: v[None] for n, v in state.items()}
        done = finish(self.task, self.gradients, client_slice(work, k), params, np.array([steps]), stacked_state)
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


def _gradient(p: nn.Parameter) -> Tensor:
    return p.grad if p.grad is not None else torch.zeros_like(p)


_NOISY = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU)


def _may_draw_numbers(module: nn.Module) -> bool:
    """Return whether a module may draw from torch's generator: a user's module or a noise layer of torch."""
    return any(
        type(m).__module__.partition(".")[0] not in ("torch", "clients")
        or isinstance(m, _NOISY)
        or bool(getattr(m, "dropout", 0.0))
        for m in module.modules()
    )
