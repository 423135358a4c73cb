"""Foresees the memory of a run before it is taken, and names the key that lowers it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from clients.core.errors import UserError
from clients.core.on_demand import CACHE_BYTES, RESIDENT_BYTES, RESIDENT_CLIENTS
from clients.core.options import DataOptions
from clients.engines.evaluation import CHUNK
from clients.engines.ranks.splitting import count_devices, is_split
from clients.modules.copies import copy_module
from clients.training.client_states import KEPT_IN_MEMORY
from clients.training.optimizers import stacked_optimizer
from clients.training.second_order.steps import kept_vectors
from clients.training.task import LearningTask, cast_features, probe_examples
from simulator.engines.limits import Limit, memory_limit, memory_used
from simulator.engines.options import EngineOptions
from simulator.engines.probe import Sample, largest_tile, make_sample

NEAR = 0.8
"""From this share of the limit on, a run says how near it is."""
MODEL_COPIES = 6
"""Copies of the parameters beside the clients' own: module, engines, evaluation, server state, sums, checkpoint."""
PLAN_BYTES = 32
"""Bytes that the plan of batches takes for each place in a batch of each local step."""
CARD_SHARE = 0.5
"""The share of a card's free memory that the tensors of a tile take: products need room, and memory has gaps."""
BACKWARD = 3
"""Times the activations of a batch that training on it takes."""


@dataclass(frozen=True)
class Part:
    """A part of a run's memory.

    Attributes:
        name: what it is, in words.
        bytes: how much it takes at most.
        fix: how to lower it, a sentence.
    """

    name: str
    bytes: int
    fix: str = ""


def check_memory(parts: Iterable[Part], limit: Limit | None = None) -> str:
    """Refuse a run that would take more memory than there is; return a sentence where it comes near.

    Args:
        parts: what the run takes beside what the process has already.
        limit: the most that the process may take; by default that of the system.

    Raises:
        UserError: it names the largest part and the key that lowers it.
    """
    limit = memory_limit() if limit is None else limit
    every = sorted(parts, key=lambda part: -part.bytes)
    needed = memory_used() + sum(part.bytes for part in every)
    if not every or needed <= NEAR * limit.bytes:
        return ""
    most = every[0]
    words = f"{size_words(needed)} of memory, and {limit.what} is {size_words(limit.bytes)}; the largest part is "
    words += f"{most.name} ({size_words(most.bytes)})"
    if needed > limit.bytes:
        raise UserError("memory", f"the run needs about {words}", fix=most.fix)
    return f"The run takes up to about {words}. {most.fix}"


def parts_of(task: LearningTask, options: EngineOptions, *, cohort: int, rounds: int, states: int) -> list[Part]:
    """Return the parts of a run's memory that are not taken yet when its task is made.

    Args:
        task: the model and the clients' data.
        options: of the engine.
        cohort: clients of a round.
        rounds: of the run.
        states: vectors that a client keeps between rounds.
    """
    population, local = task.population, task.local
    sample = make_sample(task, cohort)
    count, mean = len(sample.clients), float(population.sizes.mean())
    example, activations = _of_example(task)
    each = task.parameters.size * task.dtype.itemsize
    largest = int(population.sizes[sample.clients].max(initial=1))
    one, on_card = bytes_of_client(sample), task.device.type == "cuda"
    workers = 1 if options.workers == "auto" else options.workers  # chosen ones share the memory of one tile
    if is_split(task):
        options, workers = replace(options, kind="plain", tile=None), count_devices(task)
    width = _tile(options, count, one, workers)
    total, fits = int(population.sizes.sum(dtype="int64")), len(population.sizes) <= RESIDENT_CLIENTS
    made = min(total, rounds * count * mean) * example
    needs = max(min(made, RESIDENT_BYTES if fits else CACHE_BYTES), (count * mean + largest) * example)
    kept = min(2 * foreseen_rows(population.num_clients, cohort=cohort, rounds=rounds) * each, KEPT_IN_MEMORY)
    evaluated = min(CHUNK, total)
    return [
        Part("the data of a cohort", int(needs), "Lower algorithm.cohort, or the examples of a client."),
        Part("the model", MODEL_COPIES * each, "Choose a smaller model."),
        *([] if on_card else [
            Part(f"a tile of {width:,} clients in training" + (f" on each of {workers} workers" if workers > 1 else ""),
                 workers * width * one, _tile_fix(local.batch_size, sample.longest)),
        ]),
        Part("the updates of a cohort", min(count * each, max(options.keep_bytes, width * each)),
             "Lower engine.keep_bytes or algorithm.cohort."),
        Part("what clients keep between rounds", states * kept, "Choose an algorithm whose clients keep nothing."),
        Part("evaluation", evaluated * (example + 2 * activations), "Choose a smaller model."),
    ]  # fmt: skip


def foreseen_rows(clients: int, *, cohort: int, rounds: int) -> int:
    """Return the most rows of a client state: of the clients that have trained, and of a round that is not over.

    Example:
        >>> foreseen_rows(1000, cohort=10, rounds=20), foreseen_rows(100, cohort=10, rounds=20)
        (210, 110)
    """
    return min(rounds * cohort, clients) + cohort


def bytes_of_client(sample: Sample) -> int:
    """Return the bytes that a client of a tile takes in training: its model, its batches, its activations."""
    task, local = sample.task, sample.task.local
    example, activations = _of_example(task)
    largest = int(task.population.sizes[sample.clients].max(initial=1))
    batch = largest if local.batch_size == "full" else min(local.batch_size, largest)
    states = stacked_optimizer(local).num_states + kept_vectors(local, task.parameters.size)
    one = task.parameters.size * task.dtype.itemsize * (3 + states)
    one += PLAN_BYTES * sample.longest * batch
    at_once = min(batch, local.micro_batch_size or batch)
    return one + BACKWARD * activations * at_once + example * min(largest, sample.longest * batch)


def widest_tile(sample: Sample, keep_bytes: int, free: Callable[[torch.device], int] | None = None) -> int:
    """Return how many clients of a sample train together at most.

    On the CPU the tensors of a tile take `keep_bytes`; on a CUDA card a share of the memory that is free there.

    Args:
        sample: a typical cohort.
        keep_bytes: `engine.keep_bytes`.
        free: bytes that are free on a card; by default what CUDA says.
    """
    device = sample.task.device
    if device.type == "cpu":
        return largest_tile(sample, keep_bytes)
    return tile_of(int(CARD_SHARE * (free or _free_bytes)(device)), bytes_of_client(sample))


def tile_of(memory: int, each: int) -> int:
    """Return how many clients of `each` bytes fit in some memory; at least one.

    Example:
        >>> tile_of(100, 30), tile_of(10, 30)
        (3, 1)
    """
    return max(1, memory // max(1, each))


def _free_bytes(device: torch.device) -> int:
    """Return the bytes that are free on a CUDA card; memory that torch holds and does not use counts as free."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _of_example(task: LearningTask) -> tuple[int, int]:
    """Return the bytes of one example, and those of all layers' outputs for it."""
    probe = probe_examples(task.population, task.dtype)
    example = sum(t[0].numel() * t.element_size() for t in (probe.features, probe.targets))
    return example, _activations(task.module, cast_features(probe.features, task.dtype)) * task.dtype.itemsize


def check_model(module: nn.Module, dtype: torch.dtype) -> None:
    """Refuse a model that does not fit, before it is made.

    Args:
        module: the model on torch's device `meta`, where tensors have shapes and take no memory.
        dtype: of the run.
    """
    size = sum(p.numel() for p in module.parameters()) * max(dtype.itemsize, 4)
    check_memory([Part("the model", MODEL_COPIES * size, "Lower model.hidden, model.channels or the data's features.")])


def check_data(data: DataOptions) -> None:
    """Refuse generated data that do not fit, before they are made."""
    check_memory([Part("the data", data.foreseen_bytes, "Lower the numbers in [data] that multiply.")])


def size_words(size: float) -> str:
    """Return a number of bytes in words.

    Example:
        >>> size_words(2.5 * 2**30), size_words(12 * 2**20)
        ('2.5 GB', '12 MB')
    """
    for unit, name in ((2**40, "TB"), (2**30, "GB"), (2**20, "MB")):
        if size >= unit:
            return f"{size / unit:.2g} {name}" if size < 99 * unit else f"{size / unit:,.0f} {name}"
    return f"{size / 2**10:.0f} kB"


def _tile(options: EngineOptions, cohort: int, one: int, workers: int) -> int:
    """Return the clients of the widest tile of a worker that the planner may try."""
    if options.kind == "plain":
        return 1
    fits = tile_of(options.keep_bytes // workers, one)
    return min(math.ceil(cohort / workers), fits if options.tile is None else options.tile)


def _tile_fix(batch: int | str, steps: int) -> str:
    if steps > 1000:
        return "Lower local.local_steps or local.local_epochs."
    return f"Lower engine.tile, or {'set' if batch == 'full' else 'lower'} local.batch_size."


def _activations(module: nn.Module, features: Tensor) -> int:
    """Return how many numbers the layers put out for one example."""
    counts: list[int] = []
    copied = copy_module(module).eval()
    for layer in copied.modules():
        if not any(layer.children()):
            layer.register_forward_hook(
                lambda _, __, out: counts.append(out.numel()) if isinstance(out, Tensor) else None
            )
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        copied(features)
    return math.ceil(sum(counts) / len(features))
