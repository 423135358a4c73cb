"""Connections between the server's process and its workers, over torch.distributed (gloo).

The server talks to each worker point to point. A collective would fail in every process when one of them dies; here
only the connection of the dead worker breaks. A worker's heart beats in the store, so a worker that hangs is noticed
too, and a worker whose server is gone ends.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, cast

import torch
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, ProcessGroupGloo, Store, TCPStore

from clients.processes.wire import Message, pack, unpack

BEAT_SECONDS = 0.5
"""Seconds between two beats of a worker's heart."""
PATIENCE_SECONDS = 15.0
"""A worker whose heart stands still for so many seconds is lost."""
SEND_SECONDS = 120.0
"""A worker whose answer cannot be sent in so many seconds takes the server for gone."""
_FOR_EVER = timedelta(days=30)
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Arrival:
    """What came from a worker: a message, or None where its connection broke."""

    rank: int
    message: Message | None


class LinkError(Exception):
    """The connection to another process is broken."""


class Transfer(Protocol):
    """A send or a receive under way."""

    def wait(self, timeout: timedelta = ...) -> bool:
        """Wait for its end."""


class Group(Protocol):
    """Connected processes; torch's types leave point-to-point calls out."""

    def send(self, tensors: list[Tensor], rank: int, tag: int) -> Transfer:
        """Begin to send."""

    def recv(self, tensors: list[Tensor], rank: int, tag: int) -> Transfer:
        """Begin to receive."""

    def size(self) -> int:
        """Return the number of processes."""


def serve_store(host: str, limit: timedelta) -> TCPStore:
    """Return a store that this process serves, on a free port of one address.

    A store that opens its own socket listens on every address of the machine, and asks no one who they are.
    """
    listening = socket.create_server((host, 0))
    port = listening.getsockname()[1]
    return TCPStore(
        host, port, is_master=True, wait_for_workers=False, timeout=limit, master_listen_fd=listening.detach()
    )  # fmt: skip


def join_store(host: str, port: int, limit: timedelta) -> TCPStore:
    """Return a connection to a store of another process."""
    return TCPStore(host, port, is_master=False, timeout=limit)


def open_group(store: Store, rank: int, size: int, host: str | None) -> Group:
    """Connect the processes that share a store; each waits for all others, at most the time-out of the store.

    Args:
        store: the store.
        rank: this process.
        size: number of processes.
        host: the address on which to listen; None takes that of the host's name or of GLOO_SOCKET_IFNAME.

    Raises:
        LinkError: a process did not come.
    """
    options = ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._timeout = _FOR_EVER
    options._threads = 2
    make, interface = ProcessGroupGloo, os.environ.get("GLOO_SOCKET_IFNAME")
    if host is not None:
        options._devices = [make.create_device(hostname=host)]
    elif interface:
        options._devices = [make.create_device(interface=name) for name in interface.split(",")]
    else:
        options._devices = [make.create_default_device()]
    try:
        return cast("Group", make(PrefixStore("group", store), rank, size, options))
    except RuntimeError as error:
        raise LinkError(str(error)) from error


def _begin_send(group: Group, message: Message, rank: int) -> Sending:
    """Begin to send a message."""
    data = pack(message)
    length = torch.tensor([len(data)])
    try:
        return Sending((length, data), (group.send([length], rank, 0), group.send([data], rank, 0)))
    except RuntimeError as error:
        raise LinkError(str(error)) from error


def _receive(group: Group, rank: int) -> Message:
    length = torch.zeros(1, dtype=torch.int64)
    try:
        group.recv([length], rank, 0).wait()
        data = torch.empty(int(length), dtype=torch.uint8)
        group.recv([data], rank, 0).wait()
    except RuntimeError as error:
        raise LinkError(str(error)) from error
    return unpack(data)


@dataclass(frozen=True)
class Sending:
    """A message under way: its memory must stay until it has arrived."""

    memory: tuple[Tensor, ...]
    transfers: tuple[Transfer, ...]


class Hub:
    """The server's connections to its workers, ranks 1 to `size` - 1.

    Args:
        store: the store of the group.
        group: the connected group.
        on_silence: called with the rank of a worker whose heart stands still, from a thread of the hub.
        patience: seconds until then.

    Attributes:
        inbox: what arrives, from any worker, in order of arrival.
        counts: units of work that each worker has counted so far.
    """

    def __init__(
        self,
        store: Store,
        group: Group,
        *,
        on_silence: Callable[[int], object],
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._store, self._group, self._on_silence, self._patience = store, group, on_silence, patience
        self.inbox: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self.counts: dict[int, int] = {}
        self._alive = set(range(1, group.size()))
        self._under_way: dict[int, list[Sending]] = {rank: [] for rank in self._alive}
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._listen, args=(rank,), name=f"worker {rank}", daemon=True)
            for rank in sorted(self._alive)
        ]
        self._threads.append(threading.Thread(target=self._watch, name="heartbeats", daemon=True))
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> list[int]:
        """The ranks of the workers whose connections stand."""
        return sorted(self._alive)

    def send(self, rank: int, message: Message) -> None:
        """Begin to send a message to a worker.

        It does not wait for the end: the send to a worker that dies in that moment may never end, while the thread that
        listens to it always sees the loss. An answer shows that the message has arrived.

        Raises:
            LinkError: its connection is broken.
        """
        self._under_way[rank].append(_begin_send(self._group, message, rank))

    def drop(self, rank: int) -> None:
        """Forget a worker."""
        self._alive.discard(rank)

    def close(self, seconds: float) -> None:
        """Stop watching, and wait for the workers to close their connections, at most so many seconds.

        A thread that still waits for a message when the interpreter ends would abort the process.
        """
        self._closed.set()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _listen(self, rank: int) -> None:
        try:
            while not self._closed.is_set():
                message = _receive(self._group, rank)
                self._under_way[rank].clear()
                self.inbox.put(Arrival(rank, message))
        except LinkError:
            self.inbox.put(Arrival(rank, None))

    def _watch(self) -> None:
        """Compare the workers' heartbeats; the first of each is there when the group is connected."""
        seen: dict[int, tuple[str, float]] = {}
        while not self._closed.wait(BEAT_SECONDS):
            for rank in self.alive:
                try:
                    beat = self._store.get(_key(rank)).decode()
                except RuntimeError:  # the store is gone, and the run with it
                    return
                now = time.monotonic()
                last, since = seen.get(rank, ("", now))
                seen[rank] = (beat, since if beat == last else now)
                self.counts[rank] = int(beat.partition(" ")[2] or 0)
                if now - seen[rank][1] > self._patience:
                    seen[rank] = ("", now)
                    self._on_silence(rank)


class Spoke:
    """A worker's connection to the server.

    Args:
        group: the connected group.
        heart: beats for this worker.
    """

    def __init__(self, group: Group, heart: Heart) -> None:
        self._group: Group | None = group
        self._heart = heart

    def receive(self) -> Message:
        """Wait for the next message of the server.

        Raises:
            LinkError: the server is gone.
        """
        assert self._group is not None, "the connection is open"
        return _receive(self._group, 0)

    def send(self, message: Message) -> None:
        """Send a message to the server.

        Raises:
            LinkError: the server is gone.
        """
        assert self._group is not None, "the connection is open"
        limit = timedelta(seconds=SEND_SECONDS)
        try:
            for transfer in _begin_send(self._group, message, 0).transfers:
                transfer.wait(limit)
        except RuntimeError as error:
            raise LinkError(str(error)) from error

    def close(self) -> None:
        """Stop the heart, and close the connection."""
        self._heart.stop()
        self._group = None


class Heart:
    """Beats in the store as long as this process runs, and ends the process when the store is gone.

    Args:
        store: a store of its own, since a store serves one thread at a time.
        rank: this worker.
        count: returns the units of work done so far.
        ends_process: whether to end the process at once when the store is gone.
    """

    def __init__(self, store: Store, rank: int, count: Callable[[], int], *, ends_process: bool) -> None:
        self._store, self._rank, self._count, self._ends = store, rank, count, ends_process
        self._stopped = threading.Event()
        self._beat(0)
        threading.Thread(target=self._run, name="heart", daemon=True).start()

    def stop(self) -> None:
        """Stop beating."""
        self._stopped.set()

    def _run(self) -> None:
        number = 0
        while not self._stopped.wait(BEAT_SECONDS):
            number += 1
            try:
                self._beat(number)
            except RuntimeError:
                if self._ends and not self._stopped.is_set():
                    os._exit(1)
                return

    def _beat(self, number: int) -> None:
        self._store.set(_key(self._rank), f"{number} {self._count()}")


def _key(rank: int) -> str:
    return f"beat/{rank}"


def tell_all(hub: Hub, ranks: Iterable[int], message: Message) -> None:
    """Send a message to some workers, without those whose connection is broken."""
    for rank in ranks:
        with suppress(LinkError):
            hub.send(rank, message)
