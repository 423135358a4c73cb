"""Observers receive the moments of a run: the record, the console, exporters. A failing observer is dropped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from clients.core.shown.text import all_printable, presentable
from clients.core.user_code import described

_log = logging.getLogger("fedscape.observers")

MOMENTS = ("run_started", "recorded_before", "progress", "round_finished", "event", "run_finished")
_Listener = Callable[[Any], object]


class Observer(Protocol):
    """The methods of an observer. Every method is optional; an absent method costs nothing.

    An observer with the attribute `critical = True` is part of the run, as the record is: an error in it stops the run.
    Observers share the objects they receive and must not change them.
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

    def event(self, event: dict[str, Any]) -> None:
        """Called for each event: `round`, `kind`, `message` and more."""

    def run_finished(self, outcome: dict[str, Any]) -> None:
        """Called after the last round: the outcome and the final results."""


class Observers:
    """Passes the moments of a run to several observers, in the order given.

    An observer that raises is logged and dropped, the others receive an event of kind `observer_dropped`, and the run
    goes on. The error of a critical observer reaches the round loop.

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
                attached(self.event)

    def _bind(self) -> None:
        """Look the methods up once, so that a moment costs one call for each observer that has the method."""
        kept = [observer for observer in self._observers if id(observer) not in self._dropped]
        self._listeners: dict[str, tuple[tuple[object, _Listener], ...]] = {
            moment: tuple((o, getattr(o, moment)) for o in kept if callable(getattr(o, moment, None)))
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
                    raise
                self._drop(observer, moment, error)

    def _drop(self, observer: object, moment: str, error: Exception) -> None:
        """Drop `observer`, log it, and announce an event."""
        name = type(observer).__name__
        _log.exception("%s raised in %s and was dropped from this run", name, moment)
        self._dropped.add(id(observer))
        self._bind()
        message = f"{name} failed in {moment} and was dropped: {described(error)}"
        self.event({"round": self._round, "kind": "observer_dropped", "message": message})
