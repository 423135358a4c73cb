"""Shortens waits of Flower that it has no setting for, in the processes of a federation on this machine.

Flower 1.41 has them as numbers in its code: an idle SuperNode looks for a message every 3 seconds, one that waits for
its ClientApp every 0.5 seconds, and who fetches a message that is not whole yet tries again after 1, 2, 4, ... seconds.
Between machines these are right; on one machine they are most of a round. Nothing else of Flower is changed, and a
version of Flower that has other names keeps its own waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace

SHORTEST_LOOK, LOOK_A_NODE = 0.25, 0.04
"""Seconds between two looks of an idle SuperNode, and of its SuperExec, at least and for each node: looks of all nodes
together cost the same however many there are."""
_REPLY_SECONDS = 0.1
_FIRST_RETRY = 0.05
_IDLE, _WAITING = 3, 0.5
"""What Flower's SuperNode passes to `time.sleep`."""
_LOOP, _FETCHING = "flwr.supernode.start_client_internal", "flwr.supercore.inflatable.inflatable_utils"
_RETRY_NAME = "initial_backoff"


def look_seconds(nodes: int) -> float:
    """Return the seconds between two looks of an idle SuperNode, where there are so many; at most Flower's.

    Example:
        >>> look_seconds(3), look_seconds(50)
        (0.25, 2.0)
    """
    return min(max(SHORTEST_LOOK, LOOK_A_NODE * nodes), float(_IDLE))


def shorten_looks(seconds: float) -> bool:
    """Make a SuperNode in this process look every so many seconds; return whether this Flower's loop is known."""
    loop = import_module(_LOOP)
    if getattr(loop, "time", None) is not time:
        return False
    waits = {_IDLE: seconds, _WAITING: min(_REPLY_SECONDS, seconds)}
    loop.time = SimpleNamespace(**{**vars(time), "sleep": _sleep(waits)})  # type: ignore[attr-defined]
    return True


def shorten_retries() -> bool:
    """Make this process fetch what is not there yet again soon; return whether this Flower's functions are known."""
    fetching = import_module(_FETCHING)
    for name in ("pull_objects", "pull_and_inflate_object_from_tree"):
        defaults = getattr(getattr(fetching, name, None), "__kwdefaults__", None) or {}
        if _RETRY_NAME not in defaults:
            return False
        defaults[_RETRY_NAME] = _FIRST_RETRY
    return True


def _sleep(waits: dict[float, float]) -> Callable[[float], None]:
    return lambda seconds: time.sleep(waits.get(seconds, seconds))
