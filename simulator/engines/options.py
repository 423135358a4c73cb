"""Options of the engine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from clients.core.errors import require
from clients.core.numbers.bounds import AtMost, Within
from clients.core.options import check_at_least


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Section [engine].

    Attributes:
        kind: "plain" trains one client after another, "stacked" a tile of clients as one tensor program; "auto" times
            both briefly and takes the faster. A named engine that cannot run the scenario is an error.
        tile: clients trained together by the stacked engine; by default the fastest of a few.
        compile: whether the stacked engine's gradients go through `torch.compile`; "auto" does so if the run is long
            enough to repay it.
        native: whether the stacked engine trains with a kernel in C where one covers the scenario: perceptrons and
            convolutional networks under plain SGD, and the GRU. A kernel is compiled on first use. "always" makes it
            an error if that is impossible.
        keep_bytes: the largest size of a cohort's updates that are kept whole, and of one tile's tensors.
        threads: torch's threads of each worker; by default the faster of one and all, and with several workers their
            share of the processors. More than processors are stated, and far more are refused: 64, or four times the
            processors, at most.
        workers: processes that train a cohort together, each with `threads`; "auto" is one, or one for each processor
            where a trial shows that a long run gains; under torchrun it is the number of its processes.
        on_worker_loss: what the loss of a worker, killed or out of memory, does to the run: "continue" has the others
            do its work, in the same round and with the same numbers; "stop" interrupts the run after the round before.
        device: where clients train and models are evaluated: "cpu", "cuda" or "cuda:N"; "auto" takes a CUDA card if
            torch finds one. Under torchrun each process takes the card of its local rank.
        tf32: whether products of float32 numbers on a CUDA card round their factors to 10 bits, which is faster.
        bf16: whether the passes of local training run under torch's autocast to bfloat16; parameters, optimisers,
            losses and evaluation stay float32.
    """

    kind: Literal["auto", "plain", "stacked"] = "auto"
    tile: AtMost | None = None
    compile: Literal["auto", "never", "always"] = "auto"
    native: Literal["auto", "never", "always"] = "auto"
    keep_bytes: AtMost = 1 << 30
    threads: Annotated[int, Within(1, 1024, why="each is a thread of the operating system")] | None = None
    workers: Annotated[int, Within(1, 1024, why="each is a process")] | Literal["auto"] = "auto"
    on_worker_loss: Literal["continue", "stop"] = "continue"
    device: str = "cpu"
    tf32: bool = False
    bf16: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, 1, "tile")
        require(
            self.tile is None or self.kind != "plain",
            "tile",
            "belongs to the stacked engine",
            fix="Leave out tile or kind.",
        )
        require(
            self.compile != "always" or self.kind != "plain",
            "compile",
            "'always' belongs to the stacked engine, and kind is 'plain'",
            fix="Use kind = 'auto' or 'stacked', or compile = 'never'.",
        )
        require(
            self.native != "always" or self.kind != "plain",
            "native",
            "'always' belongs to the stacked engine, and kind is 'plain'",
            fix="Use kind = 'auto' or 'stacked', or native = 'never'.",
        )
        require(
            re.fullmatch(r"auto|cpu|cuda(:(0|[1-9][0-9]{0,3}))?", self.device) is not None,
            "device",
            f"must be 'auto', 'cpu', 'cuda' or 'cuda:N' with the number of a card, got {self.device!r:.60}",
            fix="A card is named as torch names it, such as 'cuda:0'.",
        )
        require(
            not (self.tf32 and self.device == "cpu"),
            "tf32",
            "rounds products on a CUDA card, and device is 'cpu'",
            fix="Leave out tf32, or set engine.device to a card.",
        )
        check_at_least(self, 0, "keep_bytes")
        check_at_least(self, 1, "threads")
