"""Torch's number of threads, which a plan and a worker's job change for some time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def threads_restored(count: int | None = None) -> Iterator[None]:
    """Restore torch's number of threads at the end.

    Args:
        count: the number until then; None leaves it as it is.

    Example:
        >>> before = torch.get_num_threads()
        >>> with threads_restored(before + 1):
        ...     torch.get_num_threads() - before
        1
        >>> torch.get_num_threads() == before
        True
    """
    before = torch.get_num_threads()
    try:
        set_threads(before if count is None else count)
        yield
    finally:
        set_threads(before)


def set_threads(count: int) -> None:
    """Set torch's number of threads where it differs."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
