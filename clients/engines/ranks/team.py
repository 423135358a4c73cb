"""The connection of the ranks that share a client's batches: gloo on processors, NCCL on cards."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, ProcessGroup, ProcessGroupGloo, TCPStore

from clients.training.task import LearningTask

LOOPBACK = "127.0.0.1"
JOIN_SECONDS = 60.0
"""All ranks must have connected after so many seconds."""
STALL_SECONDS = 600.0
"""A rank that keeps the others waiting for so many seconds fails the work."""


@dataclass(frozen=True)
class Team:
    """One rank's view of the ranks.

    Attributes:
        rank: this process.
        size: number of ranks.
        device: where this rank trains.
        group: connects the ranks; None for one rank.
    """

    rank: int
    size: int
    device: torch.device
    group: ProcessGroup | None = None

    def add(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over all ranks, in place; return it."""
        if self.group is not None:
            self.group.allreduce([tensor]).wait()
        return tensor

    def share(self, count: int) -> tuple[int, int]:
        """Return where this rank's part of `count` examples starts and stops; the first ranks have one more.

        Example:
            >>> [Team(rank, 3, torch.device("cpu")).share(4) for rank in range(3)]
            [(0, 2), (2, 3), (3, 4)]
        """
        whole, rest = divmod(count, self.size)
        start = self.rank * whole + min(self.rank, rest)
        return start, start + whole + (self.rank < rest)


def alone(task: LearningTask) -> Team:
    """Return the team of one rank."""
    return Team(0, 1, task.device)


def rank_device(task: LearningTask, rank: int) -> torch.device:
    """Return the device of a rank: its own card from the task's on, or the processor."""
    if task.device.type != "cuda":
        return task.device
    return torch.device("cuda", (task.device.index or 0) + rank)


def serve_store() -> TCPStore:
    """Return the store over which ranks find each other: on a free port of the loopback address alone."""
    listening = socket.create_server((LOOPBACK, 0))
    port = listening.getsockname()[1]
    return TCPStore(
        LOOPBACK, port, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=JOIN_SECONDS),
        master_listen_fd=listening.detach(),
    )  # fmt: skip


def join_store(port: int) -> TCPStore:
    """Return a connection to the store of rank 0."""
    return TCPStore(LOOPBACK, port, is_master=False, timeout=timedelta(seconds=JOIN_SECONDS))


def join_team(task: LearningTask, store: TCPStore, rank: int, size: int) -> Team:
    """Connect a rank with the others; it waits for all of them, at most `JOIN_SECONDS`.

    The group is no default of torch.distributed's, so a program that has one of its own keeps it.

    Raises:
        RuntimeError: a rank did not come.
    """
    device, prefixed = rank_device(task, rank), PrefixStore("ranks", store)
    kinds: Any = ProcessGroup.BackendType
    backend: Any
    if device.type == "cuda":
        from torch._C._distributed_c10d import ProcessGroupNCCL

        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
        torch.cuda.set_device(device)
        limits: Any = ProcessGroupNCCL.Options()
        limits._timeout = timedelta(seconds=STALL_SECONDS)
        kind, backend = kinds.NCCL, ProcessGroupNCCL(prefixed, rank, size, limits)
    else:
        options: Any = ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        options._timeout, options._threads = timedelta(seconds=STALL_SECONDS), 2
        options._devices = [ProcessGroupGloo.create_device(hostname=LOOPBACK)]
        kind, backend = kinds.GLOO, ProcessGroupGloo(prefixed, rank, size, options)
    group: Any = ProcessGroup(prefixed, rank, size)
    group._set_default_backend(kind)
    group._register_backend(torch.device(device.type), kind, backend)
    group._set_group_name("fedscape")
    return Team(rank, size, device, group)
