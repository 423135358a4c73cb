"""Numbers of threads, which a plan and a worker's job change for some time: torch's, and those of kernels in C."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_of_kernels: int | None = None


def kernel_threads() -> int:
    """Return how many threads share the clients of a kernel in C: torch's number, unless they have one of their own."""
    return torch.get_num_threads() if _of_kernels is None else _of_kernels


def set_threads(count: int, *, of_kernels: int | None = None) -> None:
    """Set torch's number of threads.

    Args:
        count: torch's.
        of_kernels: of kernels in C; None for torch's. Threads of torch that wait for work keep a processor busy for
            some time, which then misses in a kernel: beside small models torch is better off alone.
    """
    global _of_kernels  # as torch's number is one of the process
    _of_kernels = of_kernels
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


@contextmanager
def threads_restored(count: int | None = None) -> Iterator[None]:
    """Restore both numbers of threads at the end.

    Args:
        count: torch's number until then, which kernels have too; None leaves both as they are.

    Example:
        >>> before = torch.get_num_threads()
        >>> with threads_restored(before + 1):
        ...     torch.get_num_threads() - before
        1
        >>> torch.get_num_threads() == before
        True
    """
    before, kernels = torch.get_num_threads(), _of_kernels
    try:
        if count is not None:
            set_threads(count)
        yield
    finally:
        set_threads(before, of_kernels=kernels)
