"""Connects the processes that torchrun has started: rank 0 becomes the server and a worker, the others are workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from clients.core.errors import EngineError
from clients.processes.wire import Message
from simulator.workers.links import Heart, Hub, LinkError, Spoke, open_group
from simulator.workers.pool import WorkerPool
from simulator.workers.ranks import Ranks, next_session
from simulator.workers.serving import serve
from simulator.workers.workplace import Share, Workplace

T = TypeVar("T")
JOIN_SECONDS = 600.0
"""All processes must have connected after so many seconds; rank 0 reads the data and plans before."""


def start_ranks(
    place: Workplace, ranks: Ranks, *, threads: int, welcome: Mapping[str, Any], stop_on_loss: bool
) -> WorkerPool:
    """Connect rank 0 with the others, and return the pool.

    Args:
        place: what this process works with.
        ranks: the processes.
        threads: torch's threads of each worker.
        welcome: what the others need to know: the plan, and what they compare.
        stop_on_loss: see `WorkerPool`.

    Raises:
        EngineError: a process did not come.
    """
    name = next_session()
    store = _store(ranks, name, serves=True)
    pool: WorkerPool | None = None
    try:
        group = open_group(store, 0, ranks.size, None)
    except LinkError as error:
        problem = f"not all of the {ranks.size} processes of torchrun came within {JOIN_SECONDS:g} s"
        raise EngineError("engine.workers", f"{problem} ({str(error)[:200]})") from error
    hub = Hub(store, group, on_silence=lambda rank: pool.silent(rank) if pool is not None else None)
    pool = WorkerPool(place, hub, size=ranks.size, processes={}, threads=threads, stop_on_loss=stop_on_loss)
    for rank in hub.alive:
        hub.send(rank, Message({"job": "welcome", **welcome}))
    return pool


@dataclass(frozen=True)
class Follower:
    """A worker that has joined: `welcome` is rank 0's message."""

    spoke: Spoke
    welcome: Mapping[str, Any]
    count: Share

    def serve(self, place: Workplace) -> Message:
        """Do rank 0's jobs until it says farewell; return that message.

        Raises:
            EngineError: rank 0 is gone.
        """
        place.count = self.count
        return _to_rank_0(lambda: serve(self.spoke, place))


def follow(ranks: Ranks) -> Follower:
    """Join rank 0, and wait for its welcome.

    Raises:
        EngineError: rank 0 did not come, or is gone.
    """
    name, count = next_session(), Share()
    heart = Heart(_store(ranks, name), ranks.rank, lambda: count.done, ends_process=False)

    def join() -> Follower:
        spoke = Spoke(open_group(_store(ranks, name), ranks.rank, ranks.size, None), heart)
        return Follower(spoke, spoke.receive().head, count)

    return _to_rank_0(join)


def _to_rank_0(talk: Callable[[], T]) -> T:
    try:
        return talk()
    except LinkError as error:
        problem = f"rank 0 of torchrun is gone ({str(error)[:200]})"
        raise EngineError("engine.workers", problem, fix="Its output says why.") from error


def _store(ranks: Ranks, name: str, *, serves: bool = False) -> Store:
    """Return a connection of its own to the store of torchrun, with the keys of one run."""
    limit = timedelta(seconds=JOIN_SECONDS)
    is_master = serves and not ranks.is_served
    store = TCPStore(ranks.host, ranks.port, is_master=is_master, wait_for_workers=False, timeout=limit)
    return PrefixStore(name, store)
