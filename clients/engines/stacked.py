"""The stacked engine: the clients of a tile train as one tensor program.

Clients are sorted by their number of local steps, and the active prefix shrinks as they finish. So the cost follows the
steps that clients take. Where the examples of a batch are independent, weights of 0 hide the padding of partial
batches. Otherwise (batch normalisation) clients are grouped by batch length, so that padding never changes a number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

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
from clients.engines.evaluation import CohortEvaluation, Evaluator
from clients.engines.finishing import finish, gradient_noise, noise_keys
from clients.engines.native.choice import has_kernel, kernel_in, obstacle_of
from clients.engines.native.kernel import Kernel
from clients.engines.native.run import KernelRun
from clients.engines.programs import make_program
from clients.engines.progress import Progress
from clients.engines.quadratic_steps import QuadraticSteps
from clients.engines.quadratics import QuadraticProgram
from clients.modules.dropout import dropout_keys, dropout_mask
from clients.training.class_balance import draw_batches
from clients.training.client_states import BUFFERS
from clients.training.local import Batches, count_steps
from clients.training.optimizers import shrink, stacked_optimizer
from clients.training.path_measures import PathMeter, distances, is_measured, is_placed, squared_norms
from clients.training.remedies import class_weight_table, remedied
from clients.training.rules import LocalRule
from clients.training.task import LearningTask, cast_features, cast_targets, probe_examples
from clients.training.work import CohortUpdate, CohortWork

MASKS_AT_ONCE = 1 << 18
"""Elements of dropout masks drawn together: enough to amortise a draw, few enough for the cache."""


class StackedEngine:
    """Trains a tile of clients at once.

    Args:
        task: the learning task.
        tile: clients trained together; None takes the whole cohort.
        program: computes gradients; chosen for the module by default.
        native: whether the default program has a kernel in C, where there is one.
    """

    name = "stacked"

    def __init__(
        self,
        task: LearningTask,
        *,
        tile: int | None = None,
        program: Program | None = None,
        native: bool = False,
    ) -> None:
        self.task, self.tile = task, tile
        features = probe_examples(task.population, task.dtype).features
        self.program = program or make_program(task, features, native=native)
        self._optimizer, self._examples = stacked_optimizer(task.local), ExampleStore(task.device)
        self.progress: Progress | None = None

    @cached_property
    def _evaluator(self) -> Evaluator:
        return Evaluator(self.task)

    def with_task(self, task: LearningTask) -> StackedEngine:
        """Return a stacked engine of the same tile for another task, with a program of its own."""
        return StackedEngine(task, tile=self.tile, native=has_kernel(self.program))

    def evaluate(self, work: CohortWork) -> CohortEvaluation:
        """Evaluate the broadcast model on each client's examples; see `Engine.evaluate`."""
        self._evaluator.progress = self.progress
        return self._evaluator.evaluate(work)

    def tiles(self, work: CohortWork) -> Sequence[I64]:
        """Split the cohort, sorted by local steps, into tiles of at most `tile` clients."""
        if self.tile is None or work.num_clients <= self.tile:
            return [np.arange(work.num_clients)]
        sizes = self.task.population.sizes[work.clients].astype(np.int64)
        steps = count_steps(self.task.local, sizes, work.clients, seed=self.task.seed, round_index=work.round_index)
        order = np.argsort(-steps, kind="stable")
        return [np.sort(part) for part in np.array_split(order, -(-work.num_clients // self.tile))]

    def train(self, work: CohortWork, client_state: Mapping[str, Tensor]) -> tuple[CohortUpdate, dict[str, Tensor]]:
        """Train all clients of `work`; see `Engine.train`."""
        started = time.perf_counter()
        task = self.task
        data = task.population.during(work.round_index).cohort(work.clients)
        steps = count_steps(task.local, data.sizes, work.clients, seed=task.seed, round_index=work.round_index)
        order = np.argsort(-steps, kind="stable")
        batches = draw_batches(task.local, data, steps, work.clients, seed=task.seed, round_index=work.round_index)
        weights = class_weight_table(task, data)
        if (order[:-1] > order[1:]).any():
            batches = Batches(batches.rows[order], batches.counts[order], steps[order])
        index = torch.from_numpy(order)
        weights = weights[index] if weights is not None else None
        sorted_state = {n: v[index] for n, v in client_state.items()}
        with torch.no_grad():
            work_in_order = replace(work, clients=work.clients[order])
            kernel = self._kernel(work.rule)
            run: _TileRun | KernelRun
            if kernel is None:
                run = _TileRun(self, work_in_order, data, batches, sorted_state, weights)
            else:
                run = KernelRun(kernel, task, work_in_order, data, batches, self.progress)
            run.play()
            return self._result(work, data, run, order, steps, client_state, started)

    def _kernel(self, rule: LocalRule) -> Kernel | None:
        """Return the kernel that takes all local steps of a tile; None if they are taken one by one."""
        return None if obstacle_of(self.task.local, rule) else kernel_in(self.program)

    def gradients(self, work: CohortWork) -> Tensor:
        """Return each client's full-batch gradient at the broadcast parameters, without dropout, [K, P]."""
        data = self.task.population.during(work.round_index).cohort(work.clients)
        whole = replace(self.task.local, batch_size="full", local_steps=1, local_epochs=None, partial_work=0.0,
                        sampling="shuffle")  # fmt: skip
        steps = np.minimum(data.sizes, 1)
        batches = draw_batches(whole, data, steps, work.clients, seed=0, round_index=work.round_index)
        weights = class_weight_table(self.task, data, of_objective=True)
        out = work.params.new_zeros(work.num_clients, self.task.parameters.size)
        width = batches.rows.shape[2] if batches.rows.size else 1
        chunk = max(1, 4_000_000 // max(1, width * int(np.prod(data.features.shape[1:], dtype=np.int64))))
        for start in range(0, work.num_clients, chunk):
            part = slice(start, start + chunk)
            piece = Batches(batches.rows[part], batches.counts[part], steps[part])
            some = weights[part] if weights is not None else None
            run = _TileRun(self, replace(work, clients=work.clients[part]), data, piece, {}, some, noisy=False)
            busy = int(piece.steps.sum())
            if busy == len(piece.steps):
                with torch.no_grad():
                    out[part] = self.task.parameters.flatten(run.gradients(0, busy)[0], lead=1)
            else:
                for k in np.flatnonzero(piece.steps):
                    alone = replace(work, clients=work.clients[start + k : start + k + 1])
                    out[start + k] = self.gradients(alone)[0]
        return out

    def _result(
        self,
        work: CohortWork,
        data: CohortData,
        run: _TileRun | KernelRun,
        order: I64,
        steps: I64,
        client_state: Mapping[str, Tensor],
        started: float,
    ) -> tuple[CohortUpdate, dict[str, Tensor]]:
        task = self.task
        back = torch.from_numpy(np.argsort(order, kind="stable"))
        in_order = bool((order[:-1] < order[1:]).all())

        def restore(sorted_rows: Tensor) -> Tensor:
            return (sorted_rows if in_order else sorted_rows[back.to(sorted_rows.device)]).to(work.params.device)

        params, buffers = restore(run.flat_params()), restore(run.flat_buffers())
        done = finish(task, self.gradients, work, params, steps, client_state)
        if task.local.buffers == "local" and task.buffers.size:
            done.client_state[BUFFERS] = buffers
        update = CohortUpdate(
            clients=work.clients,
            params=done.params,
            buffers=buffers,
            num_examples=data.sizes,
            local_steps=steps,
            train_loss=restore(run.mean_loss()).cpu().numpy(),
            train_errors=run.errors()[back.numpy()],
            client_drift=run.meter.drift()[back.numpy()],
            gradient_norm=run.meter.gradient_norm()[back.numpy()],
            extras=done.extras,
            fault_counts=data.fault_counts,
            seconds=time.perf_counter() - started,
        )
        return update, done.client_state


@dataclass(frozen=True)
class _Group:
    """Clients whose batches have one length.

    Attributes:
        length: examples in each batch.
        clients: positions in the tile, increasing, int64 (k,).
        index: the same on the device.
    """

    length: int
    clients: I64
    index: Tensor


class _TileRun:
    """The mutable state of one tile during training; clients are in decreasing order of steps.

    `class_weights` [K, classes] apply to each client's loss. `noisy` turns dropout and augmentation on.
    """

    def __init__(
        self,
        engine: StackedEngine,
        work: CohortWork,
        data: CohortData,
        batches: Batches,
        client_state: Mapping[str, Tensor],
        class_weights: Tensor | None,
        *,
        noisy: bool = True,
    ) -> None:
        task = engine.task
        self.task, self.program, self.optimizer = task, engine.program, engine._optimizer
        self.work, self.data, self.batches = work, data, batches
        self.noisy = noisy
        self.class_weights = sent(class_weights, task.device) if class_weights is not None else None
        self.remedied = class_weights is not None or task.local.augment.any
        self.sites = task.sites if noisy else ()
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
        self.meter, self.progress = PathMeter(k), engine.progress
        if not self._is_of_quadratics():
            self.placed = engine._examples.place(data, batches.rows.swapaxes(0, 1))  # rows are [steps, K, batch]
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
        plain = local.optimizer in ("gd", "sgd") and self.work.rule.correct is None
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

    def _groups(self) -> dict[int, list[_Group]]:
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
        return {s: [_Group(length, c, next(there)) for length, c in parts] for s, parts in found.items()}

    def _batch(self, s: int, which: slice | _Group, whole: bool) -> Batch:
        if isinstance(which, _Group):
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

    def _masks(self, s: int, which: slice | _Group, length: int) -> Tensors:
        """Return the dropout masks of step s; for a prefix of clients, masks of a few steps are drawn together."""
        dtype = self.task.dtype
        if not self.sites:
            return {}
        if isinstance(which, _Group):
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
        if local.clip_norm is not None:
            scale = (local.clip_norm / (squared_norms(gradients).sqrt() + 1e-6)).clamp(max=1.0).to(self.task.dtype)
            for g in gradients.values():
                g.mul_(scale.view(-1, *[1] * (g.dim() - 1)))
        for name, g in gradients.items():
            if local.clip_value is not None:
                g.clamp_(-local.clip_value, local.clip_value)
            w, state = self.params[name][:k], [t[:k] for t in self.state[name]]
            before = [t.clone() for t in (w, *state)] if name in moving else []
            self._descend(w, g, state, s + 1)
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
