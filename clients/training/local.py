"""The number of local steps of each client in a round, and the examples of each step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clients.core import streams
from clients.core.arrays import I64, Bool
from clients.core.errors import UserError
from clients.training.options import LocalOptions


def batches_per_epoch(local: LocalOptions, sizes: I64) -> I64:
    """Return the number of batches in an epoch of each client, int64 (K,); 0 for an empty client."""
    if local.batch_size == "full":
        return np.minimum(sizes, 1)
    whole: I64 = sizes // local.batch_size
    full: I64 = -(-sizes // local.batch_size)
    return np.where(whole > 0, whole, full) if local.drop_last else full


def count_steps(local: LocalOptions, sizes: I64, clients: I64, *, seed: int, round_index: int) -> I64:
    """Return the local steps of each client in a round, int64 (K,), after `partial_work`; 0 for an empty client."""
    per_epoch = batches_per_epoch(local, sizes)
    if local.local_steps is None:
        units, unit = np.full(len(clients), local.local_epochs or 1), per_epoch
    else:
        each = np.asarray(local.local_steps, np.int64)
        units = np.full(len(clients), each) if each.ndim == 0 else each[clients]
        unit = np.minimum(sizes, 1)
    if local.partial_work:
        draw = streams.uniforms(streams.keys(seed, "partial_work", round_index, clients), 2)
        fewer = 1 + np.floor(draw[:, 1] * np.maximum(units - 1, 0)).astype(np.int64)
        units = np.where((draw[:, 0] < local.partial_work) & (units > 1), np.minimum(fewer, units - 1), units)
    return np.asarray(units * unit, np.int64)


def plan_counts(local: LocalOptions, sizes: I64, steps: I64) -> I64:
    """Return the number of examples in each step of each client, int64 (K, S); 0 after a client's last step."""
    width = batch_width(local, sizes)
    step = np.arange(int(steps.max(initial=0)))[None, :]
    per_epoch = np.maximum(batches_per_epoch(local, sizes), 1)
    counts: I64 = np.clip(sizes[:, None] - step % per_epoch[:, None] * width, 0, width) * (step < steps[:, None])
    return counts


def batch_width(local: LocalOptions, sizes: I64) -> int:
    """Return the size of the largest possible batch."""
    width = max(1, int(sizes.max(initial=1)))
    return width if local.batch_size == "full" else min(local.batch_size, width)


@dataclass(frozen=True)
class Batches:
    """The examples of each client's local steps.

    Attributes:
        rows: int64 (K, S, B), positions in `CohortData.rows`-order of the whole cohort's `features`; padding repeats
            one of the client's rows.
        counts: int64 (K, S), examples in each batch; 0 after a client's last step.
        steps: int64 (K,).
    """

    rows: I64
    counts: I64
    steps: I64


def plan_batches(
    local: LocalOptions, rows: I64, offsets: I64, steps: I64, clients: I64, *, seed: int, round_index: int
) -> Batches:
    """Draw every batch of a round for K clients: each epoch is a fresh permutation of the client's examples.

    A client whose examples fit in one batch takes them in their order: a permutation would only change rounding.

    Args:
        local: batch size and whether partial batches are dropped.
        rows: int64 (M,), the clients' example indices, client after client.
        offsets: int64 (K + 1,), where each client's rows start and end.
        steps: int64 (K,), local steps of each client.
        clients: int64 (K,), client indices; the batches of client k depend only on (seed, round, clients[k]).
        seed: root seed.
        round_index: the round.
    """
    sizes = np.diff(offsets)
    width = batch_width(local, sizes)
    per_epoch = np.maximum(batches_per_epoch(local, sizes), 1)
    if _is_whole(sizes, steps, width):
        drawn = streams.permutations(streams.keys(seed, "batches", round_index, clients, 0), sizes)
        return _whole(np.take(rows, drawn[:, : steps[0] * width] + offsets[:-1, None]), steps, width)
    counts = plan_counts(local, sizes, steps)
    most = counts.shape[1]
    order = np.zeros((len(clients), most * width), np.int64)
    small = np.flatnonzero(sizes <= width)
    if len(small):
        in_order = np.minimum(np.arange(width), np.maximum(sizes[small, None] - 1, 0))
        order[small] = np.tile(in_order, most)
    large = np.flatnonzero(sizes > width)
    if len(large):
        epochs = -(-steps[large] // per_epoch[large])
        client = np.repeat(large, epochs)
        epoch = np.arange(len(client)) - np.repeat(np.cumsum(epochs) - epochs, epochs)
        for part in _alike(sizes[client]):
            k, e = client[part], epoch[part]
            drawn = streams.permutations(streams.keys(seed, "batches", round_index, clients[k], e), sizes[k])
            start, end = e * per_epoch[k] * width, np.minimum((e + 1) * per_epoch[k], steps[k]) * width
            _write_runs(order, k, start, np.minimum(end - start, sizes[k]), drawn)
    order += np.minimum(offsets[:-1, None], max(0, len(rows) - 1))  # an empty last client would start after the end
    chosen = rows[order] if len(rows) else order
    return Batches(chosen.reshape(len(clients), most, width), counts, steps)


def _is_whole(sizes: I64, steps: I64, width: int) -> bool:
    """Return whether clients of one size take the same whole batches of one epoch, so that nothing is padded."""
    if not len(sizes) or not steps[0] or not width < sizes[0] >= steps[0] * width:
        return False
    return bool((sizes == sizes[0]).all() and (steps == steps[0]).all())


def _whole(rows: I64, steps: I64, width: int) -> Batches:
    """Return whole batches of clients with the same number of steps from their rows in order, (K, S * B)."""
    counts = np.full((len(steps), int(steps[0])), width)
    return Batches(rows.reshape(*counts.shape, width), counts, steps)


def _alike(sizes: I64) -> list[I64]:
    """Group positions by similar size, so that a few large clients do not widen the arrays of small ones."""
    if len(sizes) * int(sizes.max()) <= 1.5 * int(sizes.sum()) + 10_000:
        return [np.arange(len(sizes))]
    octave = np.frexp(sizes.astype(np.float64))[1]
    return [np.flatnonzero(octave == o) for o in np.unique(octave)]


def _write_runs(out: I64, rows: I64, start: I64, length: I64, values: I64) -> None:
    """Set out[rows[i], start[i] : start[i] + length[i]] = values[i, : length[i]] for every i."""
    width = int(length.max())
    if (length == width).all() and (start == start[0]).all():
        out[rows, int(start[0]) : int(start[0]) + width] = values[:, :width]
        return
    position = np.arange(width)[None, :]
    where = (rows * out.shape[1] + start)[:, None] + position
    used = position < length[:, None]
    out.reshape(-1)[where[used]] = values[:, :width][used]


def clients_with_batches_of_one(local: LocalOptions, sizes: I64) -> Bool:
    """Return which clients have a batch of a single example in a round, bool (K,)."""
    if local.batch_size == "full":
        return np.asarray(sizes == 1)
    rest = sizes % local.batch_size
    partial = (rest == 1) & ~(local.drop_last & (sizes > local.batch_size))
    return np.asarray((sizes > 0) & ((sizes == 1) | partial | (local.batch_size == 1)))


def check_batches_of_one(local: LocalOptions, sizes: I64, failure: str) -> None:
    """Check that no batch has a single example, for models that fail on one: those with batch normalisation, mostly.

    Batch normalisation needs more than one value a channel, as in torch. So one image is a batch, and one row is none.

    Args:
        local: batch size and whether partial batches are dropped.
        sizes: examples of each client, (K,).
        failure: why a training pass of the model on one example fails; empty if it does not.

    Raises:
        UserError: some have; the error gives the number of such clients.
    """
    alone = clients_with_batches_of_one(local, sizes)
    if failure and alone.any():
        what = "batch normalisation" if "more than 1 value per channel" in failure else "the model"
        raise UserError(
            "batch_size",
            f"{what} needs batches of at least 2 examples, and {int(alone.sum())} clients would train on "
            f"one example alone (such as one of {int(sizes[alone][0])} examples at batch_size {local.batch_size}). "
            f"On one example, the model {failure}",
            fix="Set drop_last, another batch_size, a larger minimum client size, or group normalisation.",
        )
