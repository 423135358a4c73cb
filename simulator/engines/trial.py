"""A trial of several workers: short-lived processes time their shares of a cohort at the same moments.

Workers share caches and memory bandwidth, so the seconds of one alone say little. This process is worker 0, as in a
run; the others are forked, and end with the trial. They answer through sockets, and every wait is bounded.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from statistics import median_low

import torch

from clients.processes.forking import can_fork, fork, kill, wait_for_exit
from clients.training.task import LearningTask
from simulator.engines.probe import Cost
from simulator.engines.timing import Timing

BURSTS = 3
"""Times that all workers train at the same moment; the engine of one process is timed in between."""
BURST_SECONDS = 0.04
"""Seconds of a burst, in samples of some steps."""
TRIAL_SECONDS = 0.6
"""No further burst begins after so many seconds, once there are two samples."""
WAIT_SECONDS = 5.0
"""A process that does not answer within so many seconds beyond the expected ones ends the trial."""
PAYLOAD = 1 << 22
"""The most bytes that are sent to time a connection."""
HARMLESS = (threading.main_thread().name, "metrics")
"""Threads beside which a fork is safe: the server of metrics holds no lock that a worker takes."""
_READY, _GO = b"r", b"g"
_ANSWER = struct.Struct("dd")


@dataclass(frozen=True)
class Trial:
    """What a trial found.

    Attributes:
        costs: of each worker's share, while the others worked too.
        exchange: seconds of sending the parameters to all other workers and hearing from them.
        start: seconds until all processes had started.
    """

    costs: tuple[Cost, ...]
    exchange: float
    start: float


class TrialError(Exception):
    """A trial has failed; the message says why, in words."""


def obstacle(task: LearningTask) -> str:
    """Return why the planner may not fork processes for a task, in words; empty where it may."""
    if not can_fork():
        return "processes are forked, which works on Linux only"
    if task.device.type != "cpu" or torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return "a process that uses CUDA cannot be forked"
    if any(thread.name not in HARMLESS for thread in threading.enumerate()):
        return "other threads run in this process, so that a fork is not safe"
    return ""


def try_workers(timings: Sequence[Timing], *, size: int, expected: float, between: Callable[[], object]) -> Trial:
    """Time the shares of several workers, each in a process of its own, at the same moments.

    Args:
        timings: of each worker's share, not warm; this process takes the first.
        size: bytes of the parameters.
        expected: seconds of a burst.
        between: called between bursts.

    Raises:
        TrialError: a process died or hung.
    """
    payload = bytes(min(size, PAYLOAD))
    limit = WAIT_SECONDS + 20 * expected
    started = time.perf_counter()
    with _processes(timings[1:], len(payload), limit) as channels:
        exchanges: list[float] = []
        costs = [Cost(0.0, 0.0)] * len(timings)
        while len(exchanges) < BURSTS and (timings[0].repeats < 2 or time.perf_counter() - started < TRIAL_SECONDS):
            between()
            sent = time.perf_counter()
            for channel in channels:
                _send(channel, payload)
            for channel in channels:
                _receive(channel, len(_READY))
            exchanges.append(time.perf_counter() - sent)
            if len(exchanges) == 1:
                start = time.perf_counter() - started
            for channel in channels:
                _send(channel, _GO)
            timings[0].burst(BURST_SECONDS)
            costs = [timings[0].cost]
            costs += [Cost(*_ANSWER.unpack(_receive(channel, _ANSWER.size))) for channel in channels]
    return Trial(tuple(costs), median_low(exchanges) * size / max(len(payload), 1), start)


@contextmanager
def _processes(timings: Sequence[Timing], size: int, limit: float) -> Iterator[list[socket.socket]]:
    """Fork a process for each timing, and yield the sockets to them; at the end all are gone."""
    channels: list[socket.socket] = []
    pids: list[int] = []
    try:
        for timing in timings:
            ours, theirs = socket.socketpair()
            channels.append(ours)
            ours.settimeout(limit)
            inherited = tuple(channels)
            try:
                pids.append(fork(lambda t=timing, c=theirs, i=inherited: _work(t, c, i, size)))  # type: ignore[misc]
            finally:
                theirs.close()
        yield channels
    except OSError as error:
        raise TrialError(f"a process could not be started or reached ({error})") from error
    finally:
        for channel in channels:
            channel.close()
        for pid in pids:
            if wait_for_exit(pid, 0.5) is None:
                kill(pid)
                wait_for_exit(pid, WAIT_SECONDS)


def _work(timing: Timing, channel: socket.socket, inherited: Sequence[socket.socket], size: int) -> None:
    """Time a share whenever the trial's process says so, until its end of the channel is closed."""
    for other in inherited:
        other.close()
    with suppress(Exception):  # an error ends the process, which says enough: this engine has run in the server's
        while True:
            _receive(channel, size)
            _send(channel, _READY)
            _receive(channel, len(_GO))
            timing.burst(BURST_SECONDS)
            _send(channel, _ANSWER.pack(timing.cost.setup, timing.cost.step))


def _send(channel: socket.socket, data: bytes) -> None:
    try:
        channel.sendall(data)
    except OSError as error:
        raise TrialError(_words(error)) from error


def _receive(channel: socket.socket, size: int) -> bytes:
    parts, left = [], size
    try:
        while left:
            part = channel.recv(min(left, 1 << 20))
            if not part:
                raise TrialError("a process ended early")
            parts.append(part)
            left -= len(part)
    except OSError as error:
        raise TrialError(_words(error)) from error
    return b"".join(parts)


def _words(error: OSError) -> str:
    return "a process did not answer" if isinstance(error, TimeoutError) else f"a process ended early ({error})"
