"""The observer that prints a run: a live display on a terminal, plain lines elsewhere, the verdict at the end."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from clients.core.shown.text import printable
from dashboards.report import run_text
from dashboards.report.formats import clock_time
from server.convergence.verdict import RESUME
from simulator.cli import console_text

UPDATES_A_SECOND = 10
PLAIN_LINES = 20
PLAIN_SECONDS = 10.0
"""Without a terminal, the least seconds between lines of progress inside a round."""
MOST_EVENTS = 20
IN_THE_DATA = ("storm", "power_cut", "outage")
"""Kinds of events that the console does not print, because they belong to the data; the record has them."""
BAR, SHORTEST_BAR = 24, 6
MOST_CRITERIA = 4
_STYLES = {"converged": "bold green", "stopped": "bold yellow", "diverged": "bold red", "interrupted": "bold yellow"}
_ASCII = str.maketrans({"·": "-", "━": "=", "─": "-", "→": "->"})


class ConsoleObserver:
    """Prints a run to a stream. A round is drawn only when the display is due, so most rounds cost almost nothing.

    Args:
        stream: the stream; standard output by default.
        live: whether to redraw in place; by default if `stream` is a terminal that supports it.
        clock: returns seconds.

    Example:
        >>> console = ConsoleObserver()
        >>> console.run_started({"version": "0.1", "scenario": "digits", "seed": 7, "rounds": 1})
        fedscape 0.1 · scenario digits · seed 7
        <BLANKLINE>
        >>> console.round_finished({"round": 1, "train_loss": 0.5})
          round 1/1  training loss 0.5
        >>> console.run_finished({"headline": "Stopped at round 1", "reasons": ["the budget of 1 round is spent"]})
        <BLANKLINE>
        Stopped at round 1
          - the budget of 1 round is spent
    """

    def __init__(
        self, stream: TextIO | None = None, *, live: bool | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        stream = sys.stdout if stream is None else stream
        terminal = stream.isatty()
        self._is_live = terminal and os.environ.get("TERM", "") not in ("dumb", "unknown") if live is None else live
        encoding = getattr(stream, "encoding", None) or "utf-8"
        self._ascii = "" if encoding.lower().startswith("utf") else encoding
        # Set explicitly: otherwise rich reads colours from the environment and searches the process for a notebook.
        self._console = Console(
            file=stream, force_terminal=self._is_live, force_jupyter=False, highlight=False, markup=False, emoji=False
        )
        self._clock = clock
        self._live: Live | None = None
        self._line: dict[str, Any] | None = None
        self._rounds: int | None = None
        self._started: tuple[float, int] | None = None  # the time and the number of the first round that ended
        self._shown_at, self._shown_round, self._next = -1.0, -1, 0
        self._waiting: list[str] = []
        self._events = 0
        self._progress, self._printed_at = "", self._clock()

    def run_started(self, facts: dict[str, Any]) -> None:
        """Print the header."""
        self._rounds = facts.get("rounds")
        first, *rest = run_text.header(facts)
        self._print(first, "bold")
        for line in [*rest, ""]:
            self._print(line)

    def progress(self, facts: dict[str, Any]) -> None:
        """Show how far a long round is: in the display, or as a line every `PLAIN_SECONDS`."""
        now = self._clock()
        where = "after the last round" if facts.get("round") is None else f"round {facts['round']}"
        self._progress = f"  {where}: {console_text.progress(facts)}"
        if self._is_live:
            self._draw(now)
        elif now - self._printed_at >= PLAIN_SECONDS:
            self._print(self._progress)
            self._printed_at = now

    def round_finished(self, line: dict[str, Any]) -> None:
        """Keep the round; draw it when the display is due."""
        self._line, self._progress = line, ""
        now = self._clock()
        if self._started is None:
            self._started = now, line.get("round", 0)
        if not self._is_live:
            if line.get("round", 0) >= self._next:
                self._print_round(line)
        elif now - self._shown_at >= 1 / UPDATES_A_SECOND:
            self._draw(now)

    def event(self, event: dict[str, Any]) -> None:
        """Print an event. Only the first ones are printed, so that a run with many events stays readable."""
        if event.get("kind") in IN_THE_DATA:
            return
        self._events += 1
        if self._events > MOST_EVENTS + 1:
            return
        where = f"round {event['round']}: " if event.get("round") is not None else ""
        words = f"  {where}{event.get('message') or event.get('kind', '')}"
        if self._events > MOST_EVENTS:
            words = "  more events are in events.jsonl"
        if self._live:
            self._waiting.append(words)
        else:
            self._print(words)

    def run_finished(self, outcome: dict[str, Any]) -> None:
        """Print the last round if it was not shown, then the verdict with its reasons, and the results."""
        self._progress = ""
        self._started = None  # the run is over: no time left to estimate
        if self._is_live and self._line:
            self._draw(self._clock())
        elif self._line and self._line.get("round", 0) > self._shown_round:
            self._print_round(self._line)
        self.close()
        self._print("")
        ending = run_text.ending(outcome)
        self._print(ending.headline, _STYLES.get(str(outcome.get("outcome")), "bold"))
        resume = RESUME.replace("RUN", str(outcome.get("record") or "RUN"))
        hints = (hint.replace(RESUME, resume) for hint in ending.hints)
        for line in (*(f"- {reason}" for reason in ending.reasons), *hints):
            self._print(f"  {line}")
        rows = run_text.reached(outcome)
        width = max([13, *(len(name) for name, _ in rows)])
        for name, value in rows:
            self._print(f"  {name:<{width}}   {value}")

    def close(self) -> None:
        """Restore the terminal (cursor, standard streams). Calling it again does nothing."""
        for words in self._waiting:
            self._print(words)
        self._waiting = []
        if self._live:
            self._live.stop()
            self._live = None

    def _plain(self, text: str) -> str:
        """Return a line without control characters, and without those that the stream's encoding lacks."""
        text = printable(text)
        if not self._ascii:
            return text
        return text.translate(_ASCII).encode(self._ascii, "replace").decode(self._ascii)

    def _print(self, text: str, style: str = "") -> None:
        if not self._is_live:  # a file or a pipe: unwrapped lines, which grep can search
            self._console.print(Text(self._plain(text), style), soft_wrap=True)
            return
        indent = " " * (len(text) - len(text.lstrip()) + 2)
        width = max(20, self._console.width)
        for line in textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False) or [""]:
            self._console.print(Text(self._plain(line), style), soft_wrap=True)

    def _head(self, line: dict[str, Any]) -> str:
        """Return the round's number and the budget."""
        index = line.get("round", 0)
        return f"  round {index:>{len(str(self._rounds))}}/{self._rounds}" if self._rounds else f"  round {index}"

    def _print_round(self, line: dict[str, Any]) -> None:
        """Print a round as one line, and set when the next line is due."""
        index = line.get("round", 0)
        every = max(-(-self._rounds // PLAIN_LINES), 1) if self._rounds else max(index, 1)  # unknown: 1, 2, 4, 8, ...
        self._shown_round, self._next = index, (index // every + 1) * every
        parts = (
            console_text.measures(line),
            console_text.pace(line),
            console_text.nearing(line.get("criteria") or {}, MOST_CRITERIA),
        )
        self._print("  ".join((self._head(line), *(part for part in parts if part))))
        self._printed_at = self._clock()

    def _left(self, now: float, index: int) -> str:
        """Return the longest time that the remaining rounds may take, in words."""
        if not self._rounds or self._started is None or index <= self._started[1]:
            return ""
        since, first = self._started
        seconds = (now - since) / (index - first) * (self._rounds - index)
        return f"at most {clock_time(seconds)} left" if index < self._rounds else ""

    def _fitted(self, line: dict[str, Any], now: float) -> Text:
        """Return the two lines of the live display, with the bar and the criteria that fit the terminal's width."""
        index, width = line.get("round", 0), self._console.width - 1
        head, numbers = self._head(line), console_text.measures(line)
        bar = min(BAR, width - len(head) - len(numbers) - 4) if self._rounds else 0
        bar = bar if bar >= SHORTEST_BAR else 0
        done = min(round(bar * index / self._rounds), bar) if self._rounds else 0
        gap = "  " if bar else ""
        first = Text.assemble((head, "bold"), gap, ("━" * done, "cyan"), ("─" * (bar - done), "dim"), "  ", numbers)
        aside = " · ".join(part for part in (console_text.pace(line), self._left(now, index)) if part)
        room = width - 4 - len(aside)
        names = (console_text.nearing(line.get("criteria") or {}, most) for most in range(MOST_CRITERIA, -1, -1))
        near = next((words for words in names if len(words) <= room), "")
        across = max(min(len(first), width) - 2 - len(near), len(aside) + 2)
        return Text("\n").join([first, Text(f"  {near}{aside:>{across}}", "dim")])

    def _draw(self, now: float) -> None:
        """Redraw the live display, and print the waiting events above it."""
        shown = [self._fitted(self._line, now)] if self._line is not None else []
        lines = Text("\n").join([*shown, *([Text(self._progress, "cyan")] if self._progress else [])])
        lines.plain = "\n".join(map(self._plain, lines.plain.split("\n")))
        lines.no_wrap, lines.overflow = True, "crop"
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        for words in self._waiting:
            self._print(words)
        self._waiting = []
        self._live.update(lines, refresh=True)
        self._shown_at = now
        self._shown_round = self._line.get("round", 0) if self._line is not None else self._shown_round
