"""Waiting for an event, with a time limit that suits a busy machine."""

from __future__ import annotations

import time
from typing import Any


def eventually(is_so: Any, *, seconds: float = 60.0, pause: float = 0.05) -> None:
    """Wait until a condition is true."""
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, f"not so within {seconds} seconds: {is_so}"
        time.sleep(pause)
