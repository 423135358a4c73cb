"""Who is told of a run's moments: the record, the console, exporters; none of them can stop or slow a run unseen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

_log = logging.getLogger("fedscape.observers")

MOMENTS = ("run_started", "recorded_before", "round_finished", "event", "run_finished")
_Listener = Callable[[Any], object]


class Observer(Protocol):
    """What an observer may have. Every method is optional: one that is absent costs nothing.

    An observer with the attribute `critical = True` is part of the run (the record): what it raises stops the run.
    Observers share what they are given and must not change it.
    """

    def attached(self, tell: Callable[[dict[str, Any]], object]) -> None:
        """Once, at first: the function that announces an event of the observer's own, from any of these methods."""

    def run_started(self, facts: dict[str, Any]) -> None:
        """Before the first round: run_id, scenario, seed, clients, engine and why, rounds, ..."""

    def recorded_before(self, lines: Sequence[dict[str, Any]]) -> None:
        """In a resumed run, before its first new round: the lines recorded so far, round 0's first."""

    def round_finished(self, line: dict[str, Any]) -> None:
        """After each round, round 0's evaluation included: the line of `rounds.jsonl`."""

    def event(self, event: dict[str, Any]) -> None:
        """Something happened besides: `round`, `kind`, `message` and more."""

    def run_finished(self, outcome: dict[str, Any]) -> None:
        """After the last round: the typed outcome and what was reached."""


class Observers:
    """Tells several observers of the moments, in the order given.

    An observer that raises is logged and dropped, the others are told by an event of kind `observer_dropped`, and the
    run goes on; a critical one's error goes up to the round loop.

    Args:
        observers: objects with some of `Observer`'s methods; the critical ones belong first, so that nothing is shown
            that is not recorded.

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
        """Look the methods up once, so that a moment costs one call an observer that has it."""
        heard = [observer for observer in self._observers if id(observer) not in self._dropped]
        self._listeners: dict[str, tuple[tuple[object, _Listener], ...]] = {
            moment: tuple((o, getattr(o, moment)) for o in heard if callable(getattr(o, moment, None)))
            for moment in MOMENTS
        }

    def run_started(self, facts: dict[str, Any]) -> None:
        """Announce the start."""
        self._tell("run_started", facts)

    def recorded_before(self, lines: Sequence[dict[str, Any]]) -> None:
        """Announce what a resumed run goes on from."""
        self._tell("recorded_before", lines)

    def round_finished(self, line: dict[str, Any]) -> None:
        """Announce a round's line."""
        self._round = line.get("round")
        self._tell("round_finished", line)

    def event(self, event: dict[str, Any]) -> None:
        """Announce an event."""
        self._tell("event", event)

    def run_finished(self, outcome: dict[str, Any]) -> None:
        """Announce the end."""
        self._tell("run_finished", outcome)

    def _tell(self, moment: str, what: Any) -> None:
        for observer, listener in self._listeners[moment]:
            if id(observer) in self._dropped:  # since this moment began: an event about another reached it first
                continue
            try:
                listener(what)
            except Exception as error:
                if getattr(observer, "critical", False):
                    raise
                self._drop(observer, moment, error)

    def _drop(self, observer: object, moment: str, error: Exception) -> None:
        """Go on without `observer`, and say so."""
        name = type(observer).__name__
        _log.exception("%s raised in %s and hears nothing more of this run", name, moment)
        self._dropped.add(id(observer))
        self._bind()
        message = f"{name} failed in {moment} and was dropped: {type(error).__name__}: {error}"
        self.event({"round": self._round, "kind": "observer_dropped", "message": message})
