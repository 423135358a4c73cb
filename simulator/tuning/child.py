"""A process that plays trials: trials come as lines of JSON, and values and results go back. It ends with its input."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from clients.core.errors import FedscapeError
from simulator.tuning.players import task_of
from simulator.tuning.trial_runs import play


def main() -> None:
    """Play the trials of the standard input until it ends.

    What a model of the user's prints goes to the standard error: the standard output has messages alone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    stop = threading.Event()
    messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(messages, stop), name="input", daemon=True).start()

    def send(message: Mapping[str, Any]) -> None:
        out.write(json.dumps(message).encode() + b"\n")
        out.flush()

    def report(step: int, value: float) -> bool:
        send({"kind": "value", "step": step, "value": value})
        answer = messages.get()
        return answer is not None and bool(answer["goes_on"])

    while (message := messages.get()) is not None:
        try:
            played = play(task_of(message), report, stop.is_set)
            results = [result.to_dict() for result in played.results]
            send({"kind": "done", "results": results, "is_whole": played.is_whole})
        except FedscapeError as error:
            send({"kind": "failed", "words": str(error)})


def _listen(messages: queue.SimpleQueue[dict[str, Any] | None], stop: threading.Event) -> None:
    """Take messages apart: trials and answers are waited for, and a stop may come at any time."""
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if message["kind"] == "stop":
            stop.set()
        else:
            messages.put(message)
    stop.set()
    messages.put(None)


if __name__ == "__main__":
    with suppress(BrokenPipeError):  # the tuning has ended
        main()
