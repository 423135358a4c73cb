"""Marks the moments of a federation's processes: Python imports this at the start of each, before any other code.

With this folder in PYTHONPATH and a file in FEDERATION_MARKS, each moment is a line of JSON in that file: `what`, `at`
(seconds of the machine's clock), `pid`, and what the moment has besides. Functions are wrapped when their module has
been imported; they do what they did.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

_FILE = os.environ.get("FEDERATION_MARKS", "")
Note = Callable[[tuple[Any, ...], Any], dict[str, Any]]
"""(arguments, result) -> what a mark has besides."""


def _nothing(arguments: tuple[Any, ...], result: Any) -> dict[str, Any]:
    return {}


def _taken(arguments: tuple[Any, ...], result: Any) -> dict[str, Any] | None:
    return None if result is None else {}  # None: no message was there


def _pushed(arguments: tuple[Any, ...], result: Any) -> dict[str, Any]:
    return {"nodes": [str(message.metadata.dst_node_id) for message in result.values()]}


def _pulled(arguments: tuple[Any, ...], result: Any) -> dict[str, Any] | None:
    return {"nodes": [str(reply.metadata.src_node_id) for reply in result]} if result else None


def _of_parent(arguments: tuple[Any, ...], result: Any) -> dict[str, Any]:
    words = sys.argv
    return {"parent": int(words[words.index("--parent-pid") + 1])} if "--parent-pid" in words else {}


def _process_seconds(arguments: tuple[Any, ...], result: Any) -> dict[str, Any]:
    used = os.times()
    return {"processor": used.user + used.system} | _of_parent(arguments, result)


def _node(arguments: tuple[Any, ...], result: Any) -> dict[str, Any]:
    return {"node": str(arguments[1])}


POINTS: dict[str, dict[str, tuple[str, str, Callable[..., dict[str, Any] | None]]]] = {
    "server.rounds.play": {"play_round": ("round begins", "round ends", _nothing)},
    "server.nodes.sending": {
        "Sender.send": ("sending", "collected", _nothing),
        "Sender._push": ("", "pushed", _pushed),
        "Sender._pull": ("", "pulled", _pulled),
    },
    "flwr.supernode.start_client_internal": {
        "_pull_and_store_message": ("", "node has message", _taken),
        "_push_messages": ("", "node has replied", _nothing),
    },
    "flwr.supernode.nodestate.in_memory_nodestate": {"InMemoryNodeState.set_node_id": ("", "node is known", _node)},
    "flwr.supercore.superexec.executor.subprocess_executor": {"SubprocessExecutor.launch": ("launch", "", _of_parent)},
    "flwr.supernode.cli.flwr_clientapp": {"run_clientapp": ("app begins", "", _of_parent)},
    "flwr.supernode.runtime.run_clientapp": {
        "pull_task_input": ("", "app has message", _of_parent),
        "push_message": ("app replies", "app has replied", _of_parent),
        "flwr_exit": ("app ends", "", _process_seconds),
    },
    "clients.flower.app": {"read_node_config": ("app works", "", _of_parent)},
}
"""By module and function: the marks before and after a call, each "" for none, and what they have besides."""


def mark(what: str, **more: Any) -> None:
    """Append a mark."""
    line = json.dumps({"what": what, "at": time.time(), "pid": os.getpid(), **more})
    handle = os.open(_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, line.encode() + b"\n")
    finally:
        os.close(handle)


def marked(call: Callable[..., Any], before: str, after: str, note: Callable[..., dict[str, Any] | None]) -> Any:
    """Return a function that does what `call` does, and marks it."""

    @functools.wraps(call)
    def wrapped(*args: Any, **options: Any) -> Any:
        if before:
            mark(before, **(note(args, None) or {}))
        result = call(*args, **options)
        if after and (more := note(args, result)) is not None:
            mark(after, **more)
        return result

    return wrapped


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of `POINTS` as the others do, and wraps their functions once they are imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in POINTS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            for path, (before, after, note) in POINTS[name].items():
                owner: Any = module
                *outer, last = path.split(".")
                for part in outer:
                    owner = getattr(owner, part)
                if (call := getattr(owner, last, None)) is not None and not hasattr(call, "__wrapped__"):
                    setattr(owner, last, marked(call, before, after, note))

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if _FILE:
    sys.meta_path.insert(0, _Finder())
