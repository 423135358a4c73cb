"""Runs the parts of a cohort's making in threads: NumPy's loops leave Python's lock free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from clients.engines.native.threads import kernel_threads

T = TypeVar("T")


def side_by_side(parts: Sequence[T], work: Callable[[T], object]) -> None:
    """Call `work` for each part, in as many threads as kernels have; they end before it returns, since a run may fork.

    Args:
        parts: independent of each other: `work` writes to other memory for each, so no number depends on the threads.
        work: calls no function of the user's, which may not expect threads, and no operation of torch on many numbers,
            which would start threads of its own.

    Example:
        >>> squares = [0, 0, 0]
        >>> side_by_side([0, 1, 2], lambda k: squares.__setitem__(k, k * k))
        >>> squares
        [0, 1, 4]
    """
    threads = min(kernel_threads(), len(parts))
    if threads <= 1:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(copy_context().run, work, part) for part in parts]
        try:
            for one in running:
                one.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
