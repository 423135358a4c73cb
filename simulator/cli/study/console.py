"""The observer that prints a study: a live display on a terminal, plain lines elsewhere, the answer at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from clients.core.shown.text import printable
from dashboards.report.formats import clock_time, count, is_number
from simulator.studies.arms import PlannedRun, version
from simulator.studies.conducting import Progress
from simulator.studies.folder import StudyFolder
from simulator.studies.plan import StudyPlan
from simulator.studies.rows import DIVERGED, FAILED, FINISHED
from simulator.studies.study import Study

if TYPE_CHECKING:
    from simulator.tuning.findings import TrialRow, Tuned

DRAWS_A_SECOND = 2
PLAIN_SECONDS = 30.0
"""Without a terminal, the least seconds between lines of progress."""
BAR, MOST_ARMS, MOST_SENTENCES, MOST_FAILURES = 30, 8, 12, 5
_ASCII = str.maketrans({"·": "-", "━": "=", "─": "-", "×": "x", "−": "-", "≥": ">=", "≤": "<="})


class StudyConsole:
    """Prints a study to a stream.

    Args:
        stream: the stream.
        live: whether to redraw in place; by default if `stream` is a terminal that supports it.
        clock: returns seconds.
    """

    def __init__(
        self, stream: TextIO, *, live: bool | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        terminal = stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")
        self._is_live = terminal if live is None else live
        encoding = getattr(stream, "encoding", None) or "utf-8"
        self._ascii = "" if encoding.lower().startswith("utf") else encoding
        self._console = Console(
            file=stream, force_terminal=self._is_live, force_jupyter=False, highlight=False, markup=False, emoji=False
        )
        self._clock, self._due = clock, 0.0
        self._live: Live | None = None
        self._plan: StudyPlan | None = None
        self._again = self._done = 0

    def study_started(self, plan: StudyPlan, folder: StudyFolder, processes: int, threads: int) -> None:
        """Print the header."""
        self._plan = plan
        arms, seeds = count(len(plan.arms), "arm"), count(len(plan.seeds), "seed")
        each = f", {count(threads, 'thread')} each" if threads > 1 else ""
        where = f"{count(processes, 'process', 'processes')}{each}"
        self._print(f"fedscape {version()} · study {plan.options.name} · {arms} × {seeds} · {where}", "bold")
        if plan.options.title:
            self._print(f"  {plan.options.title}")
        self._print(f"  folder {folder.path}")
        if self._again:
            self._print(f"  {count(self._again, 'run')} finished before")
        self._print("")

    def run_ended(self, run: PlannedRun, row: Mapping[str, Any], *, again: bool) -> None:
        """Print a run that has ended, but for those of an earlier start."""
        if again:
            self._again += 1
            return
        state = row["state"]
        words = f"failed: {row['error']}" if state == FAILED else row["verdict"].lower()
        seconds = f"  ({clock_time(row['seconds'])})" if is_number(row.get("seconds")) else ""
        if not self._is_live or state in (FAILED, DIVERGED):
            self._print(f"  {run.arm.name}, seed {run.seed}: {words}{seconds}")

    def trial_ended(self, arm: str, row: TrialRow, tuned: Tuned) -> None:
        """Print a trial of an arm's tuning that has ended."""
        from simulator.tuning.words import trial_line

        self._print(f"  tuning {arm}: {trial_line(row, tuned)}")

    def progress(self, state: Progress) -> None:
        """Show how far the study is: in the display, or as a line now and then."""
        now = self._clock()
        if now < self._due:
            return
        self._due = now + (1 / DRAWS_A_SECOND if self._is_live else PLAIN_SECONDS)
        if not self._is_live:
            self._print(f"  {self._numbers(state)}")
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        lines = Text("\n").join([self._bar(state), *map(Text, self._playing(state)), *map(Text, self._ranking(state))])
        lines.plain = "\n".join(map(self._plain, lines.plain.split("\n")))
        lines.no_wrap, lines.overflow = True, "crop"
        self._live.update(lines, refresh=True)

    def study_ended(self, done: Study) -> None:
        """Print the answer, the ranking, what failed, and where everything is."""
        self.close()
        table = done.table()
        ended = int(table["state"].isin([*FINISHED, FAILED]).sum())
        left = int(table["state"].isin(["planned", "running"]).sum())
        self._print("")
        if not table["state"].isin(FINISHED).any():
            self._print("no run has ended", "bold yellow")
        else:
            self._answer(done)
        for key, error in list(done.failures.items())[:MOST_FAILURES]:
            self._print(f"  failed: {error} (runs/{key})", "bold red")
        if len(done.failures) > MOST_FAILURES:
            self._print(f"  {len(done.failures) - MOST_FAILURES} more runs failed; the table says which", "bold red")
        if left:
            self._print(f"  {ended} of {len(table)} runs have ended; go on with: fedscape study {done.path}")
        self._print(f"  {'table':<13}   {done.folder.table}")
        if done.page.is_file():
            self._print(f"  {'page':<13}   {done.page}")

    def close(self) -> None:
        """Restore the terminal. Calling it again does nothing."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _answer(self, done: Study) -> None:
        """Print the comparisons of the study's question, and the ranking."""
        found = done.comparisons()
        for one in found[:MOST_SENTENCES]:
            self._print(one.sentence, "bold")
        if len(found) > MOST_SENTENCES:
            self._print(f"{len(found) - MOST_SENTENCES} more comparisons are in the page")
        measure = done.measure
        self._print(f"  by {measure.spoken}:")
        ranking = done.ranking()
        width = max(len(name) for name in ranking["arm"])
        groups = {name: number for number, group in enumerate(done.plan.groups) for name in group}
        group = 0
        for row in ranking.to_dict("records"):
            if groups[row["arm"]] != group:  # arms of the next one are not compared with those before
                group = groups[row["arm"]]
                self._print("")
            value = measure.shown(row["median"]) if is_number(row["median"]) else "missed" if row["missed"] else "–"
            missed = f", {row['missed']} missed" if row["missed"] else ""
            self._print(f"  {row['arm']:<{width}}   median {value} of {count(row['runs'], 'run')}{missed}")

    def _numbers(self, state: Progress) -> str:
        parts = [f"{state.done} of {state.of} runs"]
        parts += [f"about {clock_time(state.left)} left"] if state.left is not None and state.done < state.of else []
        parts += [f"{count(state.elsewhere, 'run')} in other processes"] if state.elsewhere else []
        return " · ".join(parts)

    def _bar(self, state: Progress) -> Text:
        done = round(BAR * state.done / max(1, state.of))
        return Text.assemble("  ", ("━" * done, "cyan"), ("─" * (BAR - done), "dim"), f"  {self._numbers(state)}")

    def _playing(self, state: Progress) -> list[str]:
        return [f"  {run.arm.name}, seed {run.seed}: {share:.0%}" for run, share in state.playing.values()][:MOST_ARMS]

    def _ranking(self, state: Progress) -> list[str]:
        """Return the ranking so far, by the mean of the seeds that each arm has."""
        plan = self._plan
        measure = plan.measure(state.rows) if plan is not None else None
        if plan is None or measure is None or len(plan.arms) < 2 or len(plan.groups) > 1:
            return []
        means = []
        for arm in plan.arms:
            found = [state.rows[key] for seed in plan.seeds if (key := arm.key(seed)) in state.rows]
            values = [v for row in found if (v := (row.get("measures") or {}).get(measure.key)) is not None]
            if values:
                means.append((sum(values) / len(values), len(values), arm.name))
        means.sort(reverse=measure.better == "higher")
        lines = [f"  {name}: {measure.shown(mean)} in {count(seeds, 'run')}" for mean, seeds, name in means[:MOST_ARMS]]
        return [f"  {measure.spoken} so far:", *lines] if lines else []

    def _plain(self, text: str) -> str:
        text = printable(text)
        return text if not self._ascii else text.translate(_ASCII).encode(self._ascii, "replace").decode(self._ascii)

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(Text(self._plain(text), style), soft_wrap=True)
