"""The local steps of a tile of stacked clients, one tensor program a step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import I64
from clients.core.cards.streams import as_signed
from clients.core.cards.transfer import sent
from clients.core.examples import CohortData
from clients.engines.batch import Batch, Program, Tensors
from clients.engines.cards.examples import ExampleStore
from clients.engines.dense import DenseProgram
from clients.engines.finishing import gradient_noise, noise_keys
from clients.engines.progress import Progress
from clients.engines.quadratic_steps import QuadraticSteps
from clients.engines.quadratics import QuadraticProgram
from clients.engines.second_order.stacked_step import StackedStep
from clients.modules.dropout import dropout_keys, dropout_mask
from clients.modules.players import turns_of
from clients.training.client_states import BUFFERS
from clients.training.local import Batches
from clients.training.optimizers import StackedOptimizer, shrink
from clients.training.path_measures import PathMeter, distances, is_measured, is_placed, squared_norms
from clients.training.remedies import remedied
from clients.training.second_order.steps import second_order_steps
from clients.training.task import LearningTask, cast_features, cast_targets
from clients.training.work import CohortWork

MASKS_AT_ONCE = 1 << 18
"""Elements of dropout masks drawn together: enough to amortise a draw, few enough for the cache."""


@dataclass(frozen=True)
class TileSetup:
    """What every tile of an engine trains with.

    Attributes:
        task: the learning task.
        program: computes gradients.
        optimizer: takes local steps.
        examples: puts the examples of tiles on the task's device.
        progress: counts local steps; None for nothing.
    """

    task: LearningTask
    program: Program
    optimizer: StackedOptimizer
    examples: ExampleStore
    progress: Progress | None


@dataclass(frozen=True)
class Group:
    """Clients whose batches have one length.

    Attributes:
        length: examples in each batch.
        clients: positions in the tile, increasing, int64 (k,).
        index: the same on the device.
    """

    length: int
    clients: I64
    index: Tensor


class TileRun:
    """The mutable state of one tile during training; clients are in decreasing order of steps.

    `class_weights` [K, classes] apply to each client's loss. `noisy` turns dropout and augmentation on.
    """

    def __init__(
        self,
        setup: TileSetup,
        work: CohortWork,
        data: CohortData,
        batches: Batches,
        client_state: Mapping[str, Tensor],
        class_weights: Tensor | None,
        *,
        noisy: bool = True,
    ) -> None:
        task = setup.task
        self.task, self.program, self.optimizer = task, setup.program, setup.optimizer
        self.work, self.data, self.batches = work, data, batches
        self.noisy = noisy
        self.class_weights = sent(class_weights, task.device) if class_weights is not None else None
        self.remedied = class_weights is not None or task.local.augment.any
        self.sites, self.turns = task.sites if noisy else (), turns_of(task.module)
        k, device = work.num_clients, task.device
        remembered = {n: v.to(device) for n, v in client_state.items() if n in work.rule.client_state}
        self.start = work.params.to(device)
        self.anchor = task.parameters.views(self.start)
        self.broadcast = {n: task.parameters.views(v.to(device)) for n, v in work.broadcast.items()}
        self.client_state = {n: task.parameters.views(v) for n, v in remembered.items()}
        self.params = {n: v.expand(k, *v.shape).clone() for n, v in self.anchor.items()}
        held = client_state.get(BUFFERS, work.buffers.expand(k, -1)).to(device)
        self.buffers = {n: v.clone() for n, v in task.buffers.views(held.contiguous()).items()}
        self.state: dict[str, list[Tensor]] = {
            n: [torch.zeros_like(p) for _ in range(self.optimizer.num_states)] for n, p in self.params.items()
        }
        self.before_last = self.flat_params() if work.rule.sends_last_step else None
        self.meter, self.progress = PathMeter(k), setup.progress
        if not self._is_of_quadratics():
            self.placed = setup.examples.place(data, batches.rows.swapaxes(0, 1))  # rows are [steps, K, batch]
        self.counts = sent(torch.from_numpy(batches.counts.T.copy()), device)
        self.lr = task.local.lr(work.round_index)
        self.active = [int(n) for n in (batches.steps[None, :] > np.arange(batches.counts.shape[1])[:, None]).sum(1)]
        width = batches.rows.shape[2]
        self.whole = ((batches.counts == width).sum(0) == self.active).tolist()
        self.groups = {} if self.program.masks_padding else self._groups()
        self.step_losses: Tensor | None = None
        losses_shape = (batches.counts.shape[1], k, width)
        if self._is_of_quadratics():
            losses_shape = (0, 0, 0)  # its losses are in `step_losses`
        self.losses = torch.zeros(losses_shape, dtype=work.params.dtype, device=device)
        self.wrong = torch.zeros(self.losses.shape, dtype=torch.bool, device=device) if task.count_errors else None
        self.drawn: Tensors = {}
        self.drawn_at, self.ahead = 0, 0
        if self.sites:
            keys = dropout_keys(task.seed, work.round_index, work.clients, len(self.active), len(self.sites))
            self.keys = keys if device.type == "cpu" else sent(as_signed(keys), device)
        self.noise = noise_keys(task, work.round_index, work.clients, len(self.active)) if noisy else None
        steps = second_order_steps(task.local, k, self.start, self.lr) if noisy else None
        given = (work.rule, self.anchor, self.broadcast, self.client_state)
        self.second_order = StackedStep(task, steps, *given) if steps is not None else None

    def play(self) -> None:
        """Take every local step, then measure the final position of each client."""
        if isinstance(self.program, QuadraticProgram):
            self.step_losses = self._quadratic_steps(self.program).play()
            if self.progress is not None:
                self.progress.add(sum(self.active))
        else:
            self._play_steps()
        if not all(map(is_placed, self.batches.steps.tolist())):
            self.meter.position(self.batches.steps, self._distances(self.work.num_clients))

    def _play_steps(self) -> None:
        fused = self._fused_program()
        for s, k in enumerate(self.active):
            measured = is_measured(s + 1)
            if fused is not None and not measured:
                batch = self._batch(s, slice(0, k), self.whole[s])
                losses, outputs = fused.descend(
                    self._prefix(self.params, k), batch, self.lr, 1 - self.lr * self.task.local.l2
                )
                self._note(s, slice(0, k), losses, outputs, batch.targets)
            else:
                gradients, buffers = self.gradients(s, k)
                if measured:
                    self.meter.gradient(squared_norms(gradients))
                for name, value in buffers.items():
                    self.buffers[name][:k] = value
                self._step(s, k, gradients)
            if is_placed(s + 1):
                self.meter.position(s + 1, self._distances(k))
            if self.progress is not None:
                self.progress.add(k)

    def gradients_at(self, params: Tensors, batch: Batch) -> Tensors:
        """Return the gradients of the first k clients at other parameters [k, *shape], on a batch."""
        k = len(next(iter(params.values())))
        return self.program.gradients(params, self._prefix(self.buffers, k), batch)[0]

    def gradients(self, s: int, k: int) -> tuple[Tensors, Tensors]:
        """Return gradients and new buffers of the first k clients at step s (from 0), and store their losses."""
        if self.whole[s] or self.program.masks_padding:
            width = self.program.width(k)
            first = slice(0, width if width <= self.work.num_clients else k)  # results beyond k are not used
            batch = self._batch(s, first, self.whole[s])
            params, buffers = self._prefix(self.params, first.stop), self._prefix(self.buffers, first.stop)
            out, losses, outputs, new = self.program.gradients(params, buffers, batch)
            self._note(s, slice(0, k), losses[:k], outputs[:k], batch.targets[:k])
            return {n: g[:k] for n, g in out.items()}, {n: b[:k] for n, b in new.items()}
        grads = {n: torch.zeros_like(p[:k]) for n, p in self.params.items()}
        buffers = {n: b[:k].clone() for n, b in self.buffers.items()}
        for group in self.groups[s]:
            index, batch = group.index, self._batch(s, group, whole=True)
            chosen, held = {n: p[index] for n, p in self.params.items()}, {n: b[index] for n, b in self.buffers.items()}
            out, losses, outputs, new = self.program.gradients(chosen, held, batch)
            self._note(s, index, losses, outputs, batch.targets)
            for name, value in out.items():
                grads[name][index] = value
            for name, value in new.items():
                buffers[name][index] = value
        return grads, buffers

    def flat_params(self) -> Tensor:
        """Return the local parameters [K, P]."""
        return self.task.parameters.flatten(self.params, lead=1)

    def flat_buffers(self) -> Tensor:
        """Return the local buffers [K, Q]."""
        if not self.task.buffers.size:
            return self.start.new_zeros(self.work.num_clients, 0)
        return self.task.buffers.flatten(self.buffers, lead=1)

    def mean_loss(self) -> Tensor:
        """Return each client's mean example loss over its local training, float64 [K]; nan without examples."""
        seen = torch.from_numpy(self.batches.counts.sum(1)).to(self.losses.device)
        if self.step_losses is not None:
            return (self.step_losses * self.counts).sum(0, dtype=torch.float64) / seen
        return self._without_padding(self.losses).sum((0, 2), dtype=torch.float64) / seen

    def errors(self) -> I64:
        """Return the wrongly classified examples of each client's local training, int64 (K,); -1 where not counted."""
        if self.wrong is None:
            return np.full(self.work.num_clients, -1)
        return np.asarray(self._without_padding(self.wrong).sum((0, 2)).cpu().numpy(), np.int64)

    def _without_padding(self, noted: Tensor) -> Tensor:
        if all(self.whole) and self.active[-1:] == [self.work.num_clients]:
            return noted
        return noted.masked_fill_(torch.arange(noted.shape[2], device=noted.device) >= self.counts[:, :, None], 0)

    def _fused_program(self) -> DenseProgram | None:
        """Return the program if its fused SGD step equals the local step of this task."""
        return self.program if isinstance(self.program, DenseProgram) and self._is_plain_descent() else None

    def _is_plain_descent(self) -> bool:
        """Return whether a local step is w <- w - lr (gradient + l2 w)."""
        local = self.task.local
        rule = self.work.rule
        plain = local.optimizer in ("gd", "sgd") and rule.correct is None and not rule.sends_last_step
        extra = local.l1 or local.decoupled_decay or local.clip_norm or local.clip_value or local.gradient_noise
        return plain and not extra

    def _quadratic_steps(self, program: QuadraticProgram) -> QuadraticSteps:
        return QuadraticSteps(
            program=program, features=self.data.features,
            rows=self.batches.rows.swapaxes(0, 1), counts=self.batches.counts,
            active=self.active, w=self.params["w"], anchor=self.anchor["w"], meter=self.meter, lr=self.lr,
            l2=self.task.local.l2, step=self._step, is_plain=self._is_plain_descent(),
        )  # fmt: skip

    def _prefix(self, tensors: Tensors, k: int) -> Tensors:
        return tensors if k == self.work.num_clients else {n: t[:k] for n, t in tensors.items()}

    def _is_of_quadratics(self) -> bool:
        """Return whether `QuadraticSteps` takes the steps: it makes its own batches and losses."""
        return self.noisy and isinstance(self.program, QuadraticProgram)

    def _groups(self) -> dict[int, list[Group]]:
        """Return, for each step with partial batches, its clients by the length of their batch."""
        found: dict[int, list[tuple[int, I64]]] = {}
        for s, k in enumerate(self.active):
            if not self.whole[s]:
                counts = self.batches.counts[:k, s]
                found[s] = [(int(length), np.flatnonzero(counts == length)) for length in np.unique(counts)]
        every = [clients for parts in found.values() for _, clients in parts]
        if not every:
            return {}
        there = iter(torch.split(sent(torch.from_numpy(np.concatenate(every)), self.task.device), [*map(len, every)]))
        return {s: [Group(length, c, next(there)) for length, c in parts] for s, parts in found.items()}

    def _batch(self, s: int, which: slice | Group, whole: bool) -> Batch:
        if isinstance(which, Group):
            index: slice | Tensor = which.index
            on_host: slice | I64 = which.clients
            rows = self.placed.rows[s, index][:, : which.length]
        else:
            index = on_host = which
            rows = self.placed.rows[s, which]
        flat = rows.reshape(-1)
        shape = rows.shape
        features, targets = self.placed.features, self.placed.targets
        features = cast_features(features.index_select(0, flat), self.task.dtype).view(*shape, *features.shape[1:])
        targets = cast_targets(targets.index_select(0, flat), self.task.dtype).view(*shape, *targets.shape[1:])
        weights = None
        if not whole:
            counts = self.counts[s, : shape[0]].clamp_min(1)
            real = torch.arange(shape[1], device=counts.device)[None, :] < counts[:, None]
            weights = real.to(self.task.dtype) / counts[:, None]
        remedy: Tensors = {}
        if self.remedied:
            features, targets, remedy = remedied(
                self.task, features, targets, self.class_weights[index] if self.class_weights is not None else None,
                self.batches.counts[on_host, s], self.work.clients[on_host],
                round_index=self.work.round_index, step=s if self.noisy else None,
            )  # fmt: skip
        return Batch(features, targets, weights, self._masks(s, which, shape[1]), remedy)

    def _masks(self, s: int, which: slice | Group, length: int) -> Tensors:
        """Return the dropout masks of step s; for a prefix of clients, masks of a few steps are drawn together."""
        dtype = self.task.dtype
        if not self.sites:
            return {}
        if isinstance(which, Group):
            chosen = which.index if isinstance(self.keys, Tensor) else which.clients
            return {t.key: dropout_mask(t, self.keys[i, s, chosen], length, dtype) for i, t in enumerate(self.sites)}
        if s >= self.ahead:
            k = which.stop
            size = k * length * sum(math.prod(t.shape) * t.rows for t in self.sites)
            self.drawn_at, self.ahead = s, min(s + max(1, MASKS_AT_ONCE // size), len(self.active))
            for i, t in enumerate(self.sites):
                keys = self.keys[i, s : self.ahead, :k]
                drawn = dropout_mask(t, keys.ravel(), length, dtype)
                self.drawn[t.key] = drawn.view(-1, k, *drawn.shape[1:])
        return {name: masks[s - self.drawn_at, : which.stop] for name, masks in self.drawn.items()}

    def _note(self, s: int, which: slice | Tensor, losses: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Store the losses (and errors) of one step; their sums leave padding out."""
        self.losses[s, which, : losses.shape[1]] = losses
        if self.wrong is not None:
            self.wrong[s, which, : losses.shape[1]] = outputs.argmax(2) != targets

    def _step(self, s: int, k: int, gradients: Tensors) -> None:
        """Correct, clip and apply the gradients of the first k clients, in place."""
        if self.before_last is not None:
            on = self.active[s + 1] if s + 1 < len(self.active) else 0  # the clients between finish with this step
            if on < k:
                here = {n: p[on:k] for n, p in self.params.items()}
                self.before_last[on:k] = self.task.parameters.flatten(here, lead=1)
        local, rule, unused = self.task.local, self.work.rule, self.task.passes.unused
        noise = gradient_noise(self.task, self.noise[s, :k]) if self.noise is not None else None
        moving: Tensors = {}
        for name, g in list(gradients.items()):
            w = self.params[name][:k]
            if noise is not None and name not in unused:
                g = g.add_(noise[name])
            if rule.correct is not None:
                broadcast = {n: v[name] for n, v in self.broadcast.items()}
                remembered = {n: v[name][:k] for n, v in self.client_state.items()}
                g = rule.correct(g, w, self.anchor[name], broadcast, remembered)
            gradients[name] = g
            if name in unused:  # see PlainEngine._correct
                moving[name] = g.reshape(k, -1).any(1)
        if self.second_order is not None:
            batch, here = self._batch(s, slice(0, k), self.whole[s]), self._prefix(self.params, k)
            gradients = self.second_order.preconditioned(
                here, gradients, batch, partial(self.gradients_at, batch=batch)
            )
        if self.turns is not None:
            gradients = {n: g for n, g in gradients.items() if self.turns.moves(n, s)}
        if local.clip_norm is not None:
            scale = (local.clip_norm / (squared_norms(gradients).sqrt() + 1e-6)).clamp(max=1.0).to(self.task.dtype)
            for g in gradients.values():
                g.mul_(scale.view(-1, *[1] * (g.dim() - 1)))
        for name, g in gradients.items():
            if local.clip_value is not None:
                g.clamp_(-local.clip_value, local.clip_value)
            w, state = self.params[name][:k], [t[:k] for t in self.state[name]]
            before = [t.clone() for t in (w, *state)] if name in moving else []
            self._descend(w, g, state, s + 1 if self.turns is None else self.turns.taken(name, s + 1))
            for now, was in zip((w, *state), before, strict=False):
                now.copy_(torch.where(moving[name].view(-1, *[1] * (w.dim() - 1)), now, was))

    def _descend(self, w: Tensor, g: Tensor, state: list[Tensor], step: int) -> None:
        """Take an optimiser step, counted from 1, in place."""
        local = self.task.local
        if local.decoupled_decay:
            w.mul_(1 - self.lr * local.decoupled_decay)
        self.optimizer.step(w, g, state, step, self.lr)
        if local.l1:
            shrink(w, local, self.lr, step, state)

    def _distances(self, k: int) -> Tensor:
        return distances(self._prefix(self.params, k), self.task.parameters, self.start)
