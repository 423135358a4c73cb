"""Observers receive the moments of a run: the record, the console, exporters. A failing observer is dropped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from clients.core.arrays import Array
from clients.core.errors import FedscapeError, UserError
from clients.core.shown.text import all_printable, presentable
from clients.core.user_code import described, is_our_object, naming

_log = logging.getLogger("fedscape.observers")

MOMENTS = {
    "run_started": "facts",
    "recorded_before": "lines",
    "progress": "facts",
    "round_finished": "line",
    "snapshot_taken": "snapshot",
    "event": "event",
    "run_finished": "outcome",
}
"""The methods of an observer that receive a moment of a run, and what they receive."""
_Listener = Callable[[Any], object]


@dataclass(frozen=True)
class Snapshot:
    """A round as an observer may see it. All of it is a copy: a change reaches neither the run nor other observers.

    Attributes:
        round_index: the round; 0 is before the first.
        line: the line of `rounds.jsonl`.
        clients: one value for each respondent by name, as `run.clients` has them: `clients["client_drift"]`; empty in
            round 0.
    """

    round_index: int
    line: Mapping[str, Any]
    clients: Mapping[str, Array]
    _make: Callable[[], nn.Module] = field(repr=False)

    def model(self) -> nn.Module:
        """Return a new module with the parameters after the round, in evaluation mode."""
        return self._make()

    def parameters(self) -> dict[str, Tensor]:
        """Return the parameters and buffers after the round, a new state dict."""
        return {name: tensor.detach() for name, tensor in self._make().state_dict().items()}


class Observer(Protocol):
    """The methods of an observer. Every method is optional; an absent method costs nothing.

    An observer with the attribute `critical = True` is part of the run, as the record is: an error in it stops the run.
    An observer passed from Python receives copies, so it cannot change the run. fedscape's own observers share the
    objects they receive and must not change them.
    """

    def attached(self, announce: Callable[[dict[str, Any]], object]) -> None:
        """Called once, first. `announce` sends an event of the observer's own; any method may call it."""

    def run_started(self, facts: dict[str, Any]) -> None:
        """Called before the first round: run_id, scenario, seed, clients, engine and why, rounds, ..."""

    def recorded_before(self, lines: Sequence[dict[str, Any]]) -> None:
        """Called in a resumed run before its first new round: the lines recorded so far, from round 0 on."""

    def progress(self, facts: dict[str, Any]) -> None:
        """Called a few times a second while local training or an evaluation takes more than two seconds.

        `round` is the round that is played, None after the last; `phase`, and `done` `of` so many `unit`s; `seconds`
        since the phase began.
        """

    def round_finished(self, line: dict[str, Any]) -> None:
        """Called after each round, and after the evaluation of round 0: the line of `rounds.jsonl`."""

    def snapshot_taken(self, snapshot: Snapshot) -> None:
        """Called after `round_finished`, with the model after the round and the values of its clients."""

    def event(self, event: dict[str, Any]) -> None:
        """Called for each event: `round`, `kind`, `message` and more."""

    def run_finished(self, outcome: dict[str, Any]) -> None:
        """Called after the last round: the outcome and the final results."""


class Observers:
    """Passes the moments of a run to several observers, in the order given.

    An observer that raises is logged and dropped, the others receive an event of kind `observer_dropped`, and the run
    goes on. The error of a critical observer reaches the round loop; one of the user's is named in a `UserError`.

    Args:
        observers: objects with some of `Observer`'s methods. Critical observers belong first: then no observer shows
            what is not recorded.

    Example:
        >>> class Losses:
        ...     def round_finished(self, line):
        ...         print(line["train_loss"])
        >>> Observers([Losses()]).round_finished({"round": 1, "train_loss": 0.5})
        0.5
    """

    def __init__(self, observers: Sequence[object]) -> None:
        self._observers = list(observers)
        self._dropped: set[int] = set()
        self._round: int | None = None
        self._bind()
        for observer in observers:
            if callable(attached := getattr(observer, "attached", None)):
                with naming("observers", f"{type(observer).__name__} fails in attached"):
                    attached(self.event)

    def _bind(self) -> None:
        """Look the methods up once, so that a moment costs one call for each observer that has the method."""
        kept = [observer for observer in self._observers if id(observer) not in self._dropped]
        self._listeners: dict[str, tuple[tuple[object, _Listener], ...]] = {
            moment: tuple((o, _shielded(o, getattr(o, moment))) for o in kept if callable(getattr(o, moment, None)))
            for moment in MOMENTS
        }

    def run_started(self, facts: dict[str, Any]) -> None:
        """Announce the start; foreign names in the facts, such as those of columns, are made printable."""
        self._announce("run_started", all_printable(facts))

    def recorded_before(self, lines: Sequence[dict[str, Any]]) -> None:
        """Announce the lines from which a resumed run continues."""
        self._round = lines[-1].get("round") if lines else None
        self._announce("recorded_before", lines)

    @property
    def follow_progress(self) -> bool:
        """Whether any observer has the method `progress`."""
        return bool(self._listeners["progress"])

    def progress(self, facts: dict[str, Any]) -> None:
        """Announce progress inside a round."""
        self._announce("progress", {"round": 0 if self._round is None else self._round + 1} | facts)

    def round_finished(self, line: dict[str, Any]) -> None:
        """Announce a round's line."""
        self._round = line.get("round")
        self._announce("round_finished", line)

    @property
    def follow_snapshots(self) -> bool:
        """Whether any observer has the method `snapshot_taken`."""
        return bool(self._listeners["snapshot_taken"])

    def snapshot_taken(self, snapshot: Snapshot) -> None:
        """Announce the model after a round."""
        self._announce("snapshot_taken", snapshot)

    def event(self, event: dict[str, Any]) -> None:
        """Announce an event. Its message may quote a server, a node or a user's code, so it is made presentable."""
        message = {"message": presentable(str(event["message"]))} if "message" in event else {}
        self._announce("event", {**all_printable(event), **message})

    def run_finished(self, outcome: dict[str, Any]) -> None:
        """Announce the end."""
        self._announce("run_finished", all_printable(outcome))

    def _announce(self, moment: str, what: Any) -> None:
        for observer, listener in self._listeners[moment]:
            if id(observer) in self._dropped:  # dropped during this moment: it failed at the event of another failure
                continue
            try:
                listener(what)
            except Exception as error:
                if getattr(observer, "critical", False):
                    if isinstance(error, FedscapeError) or is_our_object(observer):
                        raise
                    raise self._ending(observer, moment, error) from error
                self._drop(observer, moment, error)

    def _ending(self, observer: object, moment: str, error: Exception) -> UserError:
        """Return the error of a user's critical observer, which ends the run."""
        where = f" of round {self._round}" if self._round is not None else ""
        problem = f"{type(observer).__name__} fails in {moment}{where}: {described(error)}"
        return UserError("observers", problem, fix="It is critical, so it ends the run. A recorded run can be resumed.")

    def _drop(self, observer: object, moment: str, error: Exception) -> None:
        """Drop `observer`, log it, and announce an event."""
        name = type(observer).__name__
        _log.exception("%s raised in %s and was dropped from this run", name, moment)
        self._dropped.add(id(observer))
        self._bind()
        message = f"{name} failed in {moment} and was dropped: {described(error)}"
        self.event({"round": self._round, "kind": "observer_dropped", "message": message})


def _shielded(observer: object, listener: _Listener) -> _Listener:
    """Return a listener that gives a user's observer copies; fedscape's own change nothing and need none."""
    if is_our_object(observer):
        return listener
    return lambda what: listener(copied(what))


def copied(value: Any) -> Any:
    """Return what observers receive with its own mappings, lists and arrays.

    Example:
        >>> line = {"round": 3, "worst": [{"client": 7}]}
        >>> copied(line)["worst"].clear()
        >>> line
        {'round': 3, 'worst': [{'client': 7}]}
    """
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    if isinstance(value, tuple):
        return tuple(copied(item) for item in value)
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Snapshot):
        return replace(value, line=copied(value.line), clients=copied(value.clients))
    return value
