"""Starts the workers of one machine."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from clients.core.errors import EngineError
from clients.engines.native.threads import set_threads
from clients.processes.forking import can_fork, fork, kill, wait_for_exit
from simulator.workers.links import LOOPBACK, Heart, Hub, LinkError, Spoke, join_store, open_group, serve_store
from simulator.workers.pool import WorkerPool
from simulator.workers.serving import serve
from simulator.workers.workplace import Workplace

START_SECONDS = 20.0
"""A worker that has not connected after so many seconds does not come."""


def start_forked(place: Workplace, *, size: int, threads: int, stop_on_loss: bool = False) -> WorkerPool:
    """Fork workers from this process, which becomes worker 0.

    Args:
        place: what every worker holds.
        size: number of workers, with this one.
        threads: torch's threads of each worker.
        stop_on_loss: see `WorkerPool`.

    Raises:
        EngineError: this system cannot fork processes, or a worker did not start.
    """
    if not can_fork():
        raise EngineError(
            "engine.workers", f"is {size}, and worker processes are forked, which works on Linux only",
            fix="Set engine.workers = 1, or start the run with torchrun.",
        )  # fmt: skip
    processes: dict[int, int] = {}
    pipes: list[int] = []
    for rank in range(1, size):
        reads, writes = os.pipe()
        inherited = [writes, *pipes]
        processes[rank] = fork(lambda r=rank, fd=reads, other=inherited: _work(place, fd, other, r, size, threads))  # type: ignore[misc]
        os.close(reads)
        pipes.append(writes)
    # The store is made after the fork: a worker must not hold the server's end of another's connection.
    limit = timedelta(seconds=START_SECONDS)
    hub: Hub | None = None
    pool: WorkerPool | None = None
    try:
        store = serve_store(LOOPBACK, limit)
        for pipe in pipes:
            os.write(pipe, f"{store.port}\n".encode())
        group = open_group(store, 0, size, LOOPBACK)
        hub = Hub(store, group, on_silence=lambda rank: pool.silent(rank) if pool is not None else None)
        pool = WorkerPool(
            place, hub, size=size, processes=processes, threads=threads, stop_on_loss=stop_on_loss
        )  # fmt: skip
        return pool
    except (LinkError, RuntimeError) as error:
        for pid in processes.values():
            kill(pid)
            wait_for_exit(pid, 5.0)
        problem = f"is {size}, and a worker process did not start within {START_SECONDS:g} s ({str(error)[:200]})"
        raise EngineError("engine.workers", problem, fix="Set engine.workers = 1.") from error
    finally:
        for pipe in pipes:
            os.close(pipe)


def _work(place: Workplace, pipe: int, inherited: list[int], rank: int, size: int, threads: int) -> None:
    """Join the server, whose port comes through a pipe, and serve it."""
    for other in inherited:
        with suppress(OSError):
            os.close(other)
    set_threads(threads)
    with os.fdopen(pipe) as file:
        port = file.readline()
    if not port:
        return
    limit = timedelta(seconds=START_SECONDS)
    mine = replace(place)
    hearts = join_store(LOOPBACK, int(port), limit)
    heart = Heart(hearts, rank, lambda: mine.count.done, ends_process=True)
    store = join_store(LOOPBACK, int(port), limit)
    with suppress(LinkError):
        group = open_group(store, rank, size, LOOPBACK)
        serve(Spoke(group, heart), mine)
