"""The other ranks of a team: forked processes that do the same work as rank 0, which is the engine's own process."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import torch
from torch import Tensor

from clients.core.arrays import I64
from clients.core.errors import EngineError
from clients.engines.native.threads import set_threads
from clients.engines.ranks.rank_engine import RankEngine
from clients.engines.ranks.team import STALL_SECONDS, join_store, join_team, serve_store
from clients.processes.forking import exit_of, fork, kill, wait_for_exit
from clients.processes.wire import Message, pack, unpack
from clients.training.task import LearningTask
from clients.training.work import CohortWork, LocalWork

_LENGTH = struct.Struct("<Q")
_GOODBYE_SECONDS = 2.0
"""A rank that has not ended so many seconds after its connection closed is killed."""


class Crew:
    """Ranks 1 to `size` - 1, and this process's place among all ranks.

    They end when this object is closed, and with this process, however it ends.

    Args:
        task: the task; a rank has it as it is at the fork.
        locals_: the rules and uplinks that ranks know; functions cannot be sent later.
        size: number of ranks.
        threads: torch's threads of each.

    Raises:
        EngineError: a rank did not start.
    """

    def __init__(self, task: LearningTask, locals_: Sequence[LocalWork], size: int, threads: int) -> None:
        self.locals, self._maker = tuple(locals_), os.getpid()
        self._links: dict[int, socket.socket] = {}
        self.pids: dict[int, int] = {}
        for rank in range(1, size):
            ours, theirs = socket.socketpair()
            closing = [*self._links.values(), ours]
            self.pids[rank] = fork(
                lambda r=rank, link=theirs, others=closing: _work(task, self.locals, link, others, r, size, threads)  # type: ignore[misc]
            )
            theirs.close()
            ours.settimeout(STALL_SECONDS)
            self._links[rank] = ours
        try:
            store = serve_store()  # after the fork: a rank must not hold the server's end of another's connection
            for link in self._links.values():
                link.sendall(_LENGTH.pack(store.port))
            self.team = join_team(task, store, 0, size)
            self._store = store
        except (RuntimeError, OSError) as error:
            how = self.why() or str(error)[:200]
            self.close()
            raise EngineError("local.devices", f"is {size}, and a rank did not start: {how}") from error

    def send(self, job: str, work: CohortWork, state: Mapping[str, Tensor]) -> None:
        """Give all ranks the same job.

        Raises:
            OSError: a rank is gone.
        """
        local = next(i for i, known in enumerate(self.locals) if is_same(known, work))
        head = {"job": job, "round": work.round_index, "local": local}
        tensors = {"clients": torch.from_numpy(work.clients), "params": work.params, "buffers": work.buffers}
        tensors |= {f"broadcast/{name}": v for name, v in work.broadcast.items()}
        tensors |= {f"state/{name}": v for name, v in state.items()}
        data = pack(Message(head, tensors))
        for link in self._links.values():
            _send(link, data)

    def wait(self) -> None:
        """Wait until all ranks have done their job.

        Raises:
            EngineError: one has failed.
        """
        for rank, link in self._links.items():
            try:
                answer = _receive(link)
            except OSError as error:
                raise EngineError("local.devices", f"rank {rank} gives no answer: {error}") from error
            if answer is None or answer.head["job"] == "failed":
                raise EngineError("local.devices", self.why() or f"rank {rank} failed: {_reason(answer)}")

    def why(self, seconds: float = _GOODBYE_SECONDS) -> str:
        """Return why a rank has failed, in words; empty where none has ended or failed within some seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for rank, pid in self.pids.items():
                if (how := exit_of(pid)) is not None:
                    del self.pids[rank]
                    words = self._last_words(rank)
                    return f"rank {rank} of {len(self._links) + 1} {words or how}"
            time.sleep(0.01)
        return ""

    def close(self) -> None:
        """End the ranks, from the process that forked them."""
        if os.getpid() != self._maker:
            return
        for link in self._links.values():
            link.close()
        until = time.monotonic() + _GOODBYE_SECONDS
        for pid in self.pids.values():
            if wait_for_exit(pid, max(0.0, until - time.monotonic())) is None:
                kill(pid)
                wait_for_exit(pid, _GOODBYE_SECONDS)
        self.pids = {}

    def kill(self) -> None:
        """End the ranks at once: they may wait for each other."""
        for pid in self.pids.values():
            kill(pid)
        self.close()

    def _last_words(self, rank: int) -> str:
        with suppress(OSError, ValueError):
            self._links[rank].settimeout(_GOODBYE_SECONDS)
            answer = _receive(self._links[rank])
            if answer is not None and answer.head["job"] == "failed":
                return f"failed: {_reason(answer)}"
        return ""


def is_same(known: LocalWork, work: CohortWork | LocalWork) -> bool:
    """Return whether work follows a rule and an uplink that ranks know.

    A rule may be made anew for each message: it is the same if it has the same functions, name and options.
    """
    ours, theirs = known.rule, work.rule
    if ours is not theirs and (
        ours.signature != theirs.signature
        or _code(ours.correct) is not _code(theirs.correct)
        or _code(ours.finish) is not _code(theirs.finish)
    ):
        return False
    up, other = known.uplink, work.uplink
    return up is other or (up.name == other.name and _code(up.compress) is _code(other.compress))


def _code(function: object) -> object:
    """Return what closures of one function share; the object itself where it is no function."""
    return getattr(function, "__code__", function)


def _reason(answer: Message | None) -> str:
    return "its connection broke" if answer is None else str(answer.head["error"])


def _work(
    task: LearningTask,
    known: Sequence[LocalWork],
    link: socket.socket,
    others: Sequence[socket.socket],
    rank: int,
    size: int,
    threads: int,
) -> None:
    """Join the team, and do rank 0's jobs until it closes the connection."""
    for other in others:
        other.close()
    set_threads(threads)
    start = _exactly(link, _LENGTH.size)
    if start is None:
        return
    store = join_store(_LENGTH.unpack(start)[0])
    try:
        engine = RankEngine(task, join_team(task, store, rank, size))
        while (job := _receive(link)) is not None:
            _do(engine, job, known)
            _send(link, pack(Message({"job": "done"})))
    except Exception as error:
        with suppress(OSError):
            _send(link, pack(Message({"job": "failed", "error": f"{type(error).__name__}: {error}"[:500]})))
        raise SystemExit(1) from None


def _do(engine: RankEngine, job: Message, known: Sequence[LocalWork]) -> None:
    local, tensors = known[job.head["local"]], job.tensors
    clients: I64 = tensors["clients"].numpy()
    work = CohortWork(
        round_index=job.head["round"], clients=clients, params=tensors["params"], buffers=tensors["buffers"],
        rule=local.rule, uplink=local.uplink, broadcast=_under("broadcast/", tensors),
    )  # fmt: skip
    if job.head["job"] == "gradients":
        engine.gradients(work)
    else:
        engine.train(work, _under("state/", tensors))


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _send(link: socket.socket, data: Tensor) -> None:
    link.sendall(_LENGTH.pack(len(data)))
    link.sendall(data.numpy().data)


def _receive(link: socket.socket) -> Message | None:
    """Return the next message; None where the other end has closed."""
    start = _exactly(link, _LENGTH.size)
    body = None if start is None else _exactly(link, _LENGTH.unpack(start)[0])
    return None if body is None else unpack(torch.frombuffer(body, dtype=torch.uint8))


def _exactly(link: socket.socket, size: int) -> bytearray | None:
    body, got = bytearray(size), 0
    while got < size:
        count = link.recv_into(memoryview(body)[got:])
        if not count:
            return None
        got += count
    return body
