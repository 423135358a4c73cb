"""What a round does beside training does not grow with its number: the calls of a late round are those of an early one.

Calls are counted, since times are noisy. A loop over earlier rounds, or over what a run keeps of them, makes more.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import FrameType

from server.record.checked.kept_lines import BLOCK
from simulator.cli.console import ConsoleObserver
from simulator.runs.run import simulate
from simulator.scenario.sections import load_scenario

EARLY, LATE, WINDOW = 100, 600, 40
"""Windows of rounds: with the same number of rate fits and of checkpoints, and none in which lines are packed."""
SETS = (
    "algorithm={kind='scaffold'}", "evaluation.federated_every=2", "convergence.stop=never", "run.checkpoint_rounds=20",
    f"run.rounds={LATE + WINDOW}",
)  # fmt: skip


class CallCounter:
    """Counts the calls, in Python and in C, of the rounds of two windows."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys((EARLY, LATE), 0)
        self.round_index = 0
        self._window: int | None = None

    def stop_asked(self) -> bool:
        self.round_index += 1
        if self.round_index in self.counts:
            self._window = self.round_index
            sys.setprofile(self._count)
        elif self.round_index - WINDOW in self.counts:
            sys.setprofile(None)
        return False

    def _count(self, frame: FrameType, event: str, argument: object) -> None:
        if self._window is not None and event in ("call", "c_call"):
            self.counts[self._window] += 1


def test_late_round_makes_as_many_calls_as_an_early_one(tmp_path: Path) -> None:
    assert all(first // BLOCK == (first + WINDOW) // BLOCK for first in (EARLY, LATE))
    counter = CallCounter()
    console = ConsoleObserver(io.StringIO(), live=True, clock=lambda: float(counter.round_index))
    try:
        simulate(load_scenario("quadratic-two-clients", sets=SETS), out=tmp_path / "run", observers=[console],
                 stop_asked=counter.stop_asked)  # fmt: skip
    finally:
        sys.setprofile(None)
    assert counter.counts[EARLY] > 1000 * WINDOW
    assert counter.counts[LATE] < 1.02 * counter.counts[EARLY]
