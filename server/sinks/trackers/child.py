"""The other end of a tracker's process: reads a run from the standard input and hands it to the library.

Messages are lines of JSON: the target, the facts with the lines recorded before, a line for each round, the outcome.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from clients.core.user_code import described
from server.metrics.samples import RunFold
from server.sinks.curves import outcome_numbers, round_curves


class TrackedRun(Protocol):
    """A run in a tracker."""

    def round(self, number: int, at: float, values: Mapping[str, float]) -> None:
        """Take the numbers of a round, which was over at a moment in seconds since 1970; 0 where unknown."""

    def end(self, outcome: Mapping[str, Any] | None, values: Mapping[str, float]) -> str:
        """Take the outcome (None for a run that was killed) and its numbers, and return where the run is."""


Opening = Callable[[str, Mapping[str, Any], Sequence[Mapping[str, Any]]], TrackedRun]
"""(target, facts, lines recorded before) -> the run."""


def serve(opening: Opening) -> None:
    """Hand the run of the standard input to a tracker, and answer where it is or why it is not.

    Args:
        opening: opens the run. What the library prints does not reach the answers.
    """
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    messages = map(json.loads, sys.stdin.buffer)
    try:
        target = next(messages)["target"]
        started = next(messages, None)
        if started is None:
            return
        facts, before = started["facts"], started["before"]
        fold, outcome = RunFold(), None
        for line in before:
            fold.observe(line)
        run = opening(target, facts, before)
        for message in messages:
            if "line" in message:
                line = message["line"]
                run.round(int(line["round"]), float(line.get("finished_at") or 0.0), round_curves(fold.observe(line)))
            else:
                outcome = message["outcome"]
        answer = {"done": run.end(outcome, outcome_numbers(outcome) if outcome is not None else {})}
    except Exception as error:  # whatever the library raises is the answer, and the run goes on
        answer = {"failed": described(error)}
    out.write(json.dumps(answer) + "\n")
    out.flush()
