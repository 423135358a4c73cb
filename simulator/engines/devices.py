"""Chooses the device that clients train on, and sets how a CUDA card rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from clients.core.errors import EngineError
from clients.training.task import LearningTask
from simulator.engines.options import EngineOptions

TORCHRUN = "torchrun --nproc-per-node {workers} -m simulator.cli run SCENARIO"
"""The command that starts worker processes which can use CUDA."""

_CUDNN: Any = torch.backends.cudnn
_ROUNDING: tuple[Any, ...] = (torch.backends.cuda.matmul, _CUDNN.conv, _CUDNN.rnn)


@dataclass(frozen=True)
class Cards:
    """The CUDA cards of this machine that torch can use.

    Attributes:
        names: of each card, in torch's order.
        missing: why there are none, in words; empty where there are some.
    """

    names: tuple[str, ...]
    missing: str = ""

    @property
    def words(self) -> str:
        """What there is, as the end of a sentence."""
        if not self.names:
            return f"there is no CUDA card: {self.missing}"
        listed = ", ".join(f"cuda:{i} ({name})" for i, name in enumerate(self.names))
        return f"torch finds {listed}"


def cards_here() -> Cards:
    """Return the CUDA cards that torch finds."""
    if torch.version.cuda is None:
        return Cards((), f"torch {torch.__version__} is built without CUDA")
    if not torch.cuda.is_available():
        return Cards((), f"torch {torch.__version__} is built for CUDA {torch.version.cuda} and finds none")
    return Cards(tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())))


def counted_cards() -> Cards:
    """Return the CUDA cards without their names, and without using one: ranks that are to use them are forked later."""
    if torch.version.cuda is None:
        return cards_here()
    return Cards(tuple(f"card {i}" for i in range(torch.cuda.device_count())), "torch finds none")


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as far as they matter for its device.

    Attributes:
        forked: worker processes of this machine that are forked, with this one; 1 for none.
        local_rank: this process among torchrun's of its machine, from 0; None without torchrun.
    """

    forked: int = 1
    local_rank: int | None = None


@dataclass(frozen=True)
class Device:
    """The device of a process.

    Attributes:
        device: as torch has it; CUDA with the number of the card.
        words: what the header says of it; empty for the CPU where nothing else was possible.
    """

    device: torch.device
    words: str = ""


def choose_device(
    options: EngineOptions,
    processes: Processes | None = None,
    *,
    recorded: str | None = None,
    find: Callable[[], Cards] = cards_here,
) -> Device:
    """Choose the device of this process.

    Args:
        options: of the engine.
        processes: of the run; by default this one alone.
        recorded: the device of a run that is resumed, or of rank 0: this process takes the same kind, so that the run
            keeps its numbers.
        find: looks for cards; it is not called where the CPU is named.

    Raises:
        EngineError: the named card is not there, forked workers were to use one, or `tf32` is set without one.
    """
    processes = processes or Processes()
    kind = options.device if recorded is None else _as_before(options.device, recorded)
    if kind == "cpu":
        return _without_card(options, "")
    if processes.forked > 1 and kind != "auto":
        problem = f"is {kind!r}, and {processes.forked} worker processes are forked: CUDA cannot be used after a fork"
        command = TORCHRUN.format(workers=processes.forked)
        raise EngineError("engine.device", problem, fix=f"Start them with torchrun: {command}")
    cards = find()
    if kind == "auto" and processes.forked > 1 and cards.names:
        return _without_card(options, "on the CPU, since forked workers cannot use CUDA (torchrun's can)")
    if kind == "auto" and not cards.names:
        return _without_card(options, "")
    number = int(kind.partition(":")[2] or (processes.local_rank or 0) % max(1, len(cards.names)))
    if kind == "auto":
        kind = "cuda"
    if number >= len(cards.names):
        before = "" if recorded is None else f"; the run began on {recorded}"
        fix = "Set engine.device = 'auto' or 'cpu'." if recorded is None else "Resume it where there is one."
        if cards.names and recorded is None:
            fix = f"Set engine.device = 'cuda:{len(cards.names) - 1}' or a lower number."
        raise EngineError("engine.device", f"is {options.device!r}, and {cards.words}{before}", fix=fix)
    words = f"on cuda:{number} ({cards.names[number]})" + ", tf32" * options.tf32 + ", bf16" * options.bf16
    return Device(torch.device("cuda", number), words)


def _as_before(named: str, recorded: str) -> str:
    """Return what a resumed run, or a worker, takes: the recorded kind, on the card that is named if one is."""
    if recorded == "cpu":
        return "cpu"
    return named if named.startswith("cuda") else "cuda"


def _without_card(options: EngineOptions, words: str) -> Device:
    """Return the CPU.

    Raises:
        EngineError: `tf32` is set, which is of CUDA cards alone.
    """
    if options.tf32:
        problem = "is true, and it rounds products on a CUDA card; clients train on the CPU"
        raise EngineError("engine.tf32", problem, fix="Leave it out, or run where torch finds a card.")
    if options.bf16 and not words:
        words = "on the CPU"
    return Device(torch.device("cpu"), words + ", bf16" * options.bf16)


def on_device(task: LearningTask, options: EngineOptions, device: torch.device) -> LearningTask:
    """Return a task whose clients train on a device, and set how the device rounds and chooses algorithms.

    Call it inside `device_restored`.

    Raises:
        EngineError: bfloat16 passes were to belong to float64 parameters.
    """
    if options.bf16 and task.dtype != torch.float32:
        problem = f"is true, and the run computes with {str(task.dtype).removeprefix('torch.')}"
        raise EngineError("engine.bf16", problem, fix="Set run.dtype = 'float32', or leave out bf16.")
    if device.type == "cuda":
        if task.local.devices == 1:  # otherwise ranks are forked, which a CUDA in use forbids
            torch.cuda.set_device(device)
        set_rounding(tf32=options.tf32)
        torch.backends.cudnn.deterministic = True  # the same run has the same bits
    return replace(task, device=device, bf16=options.bf16)


def set_rounding(*, tf32: bool) -> None:
    """Let float32 products, convolutions and recurrences on CUDA cards round their factors to TF32, or not."""
    for part in _ROUNDING:
        part.fp32_precision = "tf32" if tf32 else "ieee"


@contextmanager
def device_restored() -> Iterator[None]:
    """Restore torch's current card, its rounding of float32 products and cuDNN's choice of algorithms at the end.

    A run on CUDA changes them.
    """
    deterministic = torch.backends.cudnn.deterministic
    before = [part.fp32_precision for part in _ROUNDING]
    card = torch.cuda.current_device() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for part, precision in zip(_ROUNDING, before, strict=True):
            if part.fp32_precision != precision:
                part.fp32_precision = precision
        torch.backends.cudnn.deterministic = deterministic
        if card is not None:
            torch.cuda.set_device(card)
