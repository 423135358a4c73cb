"""The arguments of `surface`, checked."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from clients.core.errors import UserError, unknown_name
from simulator.replay.replaying import Replayable
from simulator.runs.record import Record
from simulator.runs.run import Run
from simulator.surface.states import State

PLANES = ("path", "clients", "random")
LOSSES = ("objective", "validation")
SMALLEST, LARGEST = 3, 201
"""The smallest and the largest size of a grid."""
EXAMPLES = 10_000
"""The most examples of the loss, unless another number is passed."""
SECONDS = 60.0
"""How long rounds are played again, unless another time is passed."""


@dataclass(frozen=True)
class SurfaceRequest:
    """The checked arguments: see `simulator.surface.measuring.surface`.

    Attributes:
        run: the run.
        plane: "path", "clients", "random" or "states".
        through: the states of a plane through states; empty for others.
        size: models along each axis.
        of: the loss.
        round_index: the round whose data count, and whose clients' ends are shown.
        line: two states, or none.
        hessian: in how many rounds eigenvalues are found.
        seconds: how long rounds may be played again.
        examples: the most examples.
    """

    run: Replayable
    plane: str
    through: tuple[State, ...]
    size: int
    of: str
    round_index: int
    line: tuple[State, ...]
    hessian: int
    seconds: float
    examples: int

    @property
    def last(self) -> int:
        """The last recorded round."""
        return int(self.run.lines[-1]["round"])


def path_of(run: Any) -> Path | str:
    """Return the folder of a run.

    Raises:
        UserError: nothing was recorded, or it is no run.
    """
    if isinstance(run, Run | Record):
        if run.path is None:
            raise UserError("run", "was not recorded, so its states are gone", fix="Leave record=False out.")
        return run.path
    if not isinstance(run, str | PathLike):
        raise UserError("run", f"must be a run or its folder, got a {type(run).__name__}", fix="Pass run.path.")
    return Path(run)


def request_of(
    run: Replayable, plane: Any, size: Any, of: Any, round_index: Any, line: Any, hessian: Any, seconds: Any,
    examples: Any,
) -> SurfaceRequest:  # fmt: skip
    """Check the arguments of `surface`.

    Raises:
        UserError: one is not valid; the message names it.
    """
    last = int(run.lines[-1]["round"])
    through: tuple[State, ...] = ()
    if isinstance(plane, str):
        if plane not in PLANES:
            raise UserError("plane", unknown_name(plane, PLANES, "a plane"), fix="Or pass three states.")
    else:
        through, plane = _states("plane", plane, 3), "states"
    if of not in LOSSES:
        raise UserError("of", unknown_name(of, LOSSES, "a loss"))
    for field, value, low, high in (
        ("size", size, SMALLEST, LARGEST), ("hessian", hessian, 0, 100), ("examples", examples, 1, 2**31),
        ("round", last if round_index is None else round_index, 0, last),
    ):  # fmt: skip
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise UserError(field, f"must be a whole number from {low} to {high:,}, got {value!r:.40}")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
        raise UserError("seconds", f"must be a number of at least 0, got {seconds!r:.40}")
    pair = _states("line", line, 2) if not isinstance(line, tuple | list) or len(line) else ()
    chosen = last if round_index is None else round_index
    if plane == "clients" and chosen < 1:
        raise UserError("round", "must be at least 1: in round 0 no client trains", fix="Name a later round.")
    return SurfaceRequest(run, plane, through, size, of, chosen, pair, hessian, float(seconds), examples)


def _states(field: str, given: Any, count: int) -> tuple[State, ...]:
    """Return so many states.

    Raises:
        UserError: they are others.
    """
    if not isinstance(given, tuple | list) or len(given) != count:
        got = f"{len(given)} states" if isinstance(given, tuple | list) else f"a {type(given).__name__}"
        fix = f"Such as {field}=[{', '.join(map(str, range(0, 20 * count, 20)))}], by round."
        raise UserError(field, f"must be {count} states in a list, got {got}", fix=fix)
    return tuple(given)
