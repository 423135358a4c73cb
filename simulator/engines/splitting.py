"""The plan of a run whose clients train over several devices, or in micro-batches: there is nothing to time."""

from __future__ import annotations

from dataclasses import replace

from clients.core.errors import EngineError
from clients.engines.base import Engine
from clients.engines.ranks.distributed import DistributedEngine, local_engine
from clients.engines.ranks.splitting import is_split
from clients.training.options import LocalOptions
from clients.training.task import LearningTask
from simulator.engines.options import EngineOptions
from simulator.engines.plan import EnginePlan


def split_words(local: LocalOptions) -> str:
    """Return the keys that split a client's batches, with their values; empty where none does.

    Example:
        >>> split_words(LocalOptions(devices=2, micro_batch_size=8))
        'local.devices = 2 and local.micro_batch_size = 8'
    """
    found = {"devices": local.devices} if local.devices != 1 else {}
    found |= {"micro_batch_size": local.micro_batch_size} if local.micro_batch_size is not None else {}
    return " and ".join(f"local.{key} = {value!r}" for key, value in found.items())


def check_split_options(options: EngineOptions, local: LocalOptions) -> None:
    """Refuse options of the engine that cannot go with split batches.

    Raises:
        EngineError: the stacked engine, its compilation or its kernels are named, or several workers.
    """
    words = split_words(local)
    fix = f"Leave it out, or set local.{'devices = 1' if local.devices != 1 else 'micro_batch_size ='}."
    stacked = {"kind": "stacked", "compile": "always", "native": "always"}
    for key, value in stacked.items():
        if getattr(options, key) == value:
            problem = f"is {value!r}, and {words} splits each client's batches; the stacked engine trains many at once"
            raise EngineError(f"engine.{key}", problem, fix=fix)
    if options.workers not in ("auto", 1) and local.devices != 1:
        problem = f"is {options.workers}, and {words} takes the processors or cards for one client after another"
        raise EngineError("engine.workers", problem, fix=fix)
    if options.workers not in ("auto", 1):
        raise EngineError("engine.workers", f"is {options.workers}, and {words} runs in one process", fix=fix)


def plan_split(options: EngineOptions, task: LearningTask) -> tuple[Engine, EnginePlan] | None:
    """Return the engine and the plan of a run that splits batches; None for other runs.

    Raises:
        EngineError: the options cannot go together, the model's batches cannot be split, or there are fewer devices.
    """
    if not is_split(task):
        return None
    check_split_options(options, task.local)
    engine = local_engine(task, options.threads)
    assert isinstance(engine, DistributedEngine)
    plan = EnginePlan("plain", None, False, f"plain: {split_words(task.local)}", threads=engine.threads)
    return engine, replace(plan, devices=engine.devices)
