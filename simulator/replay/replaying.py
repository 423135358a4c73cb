"""Plays the rounds of a recorded run again, in memory, and shows each of them to a judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from clients.core.arrays import Array
from clients.core.errors import EngineError
from server.certificate.certifier import Certified
from server.certificate.machine import differences, machine_facts
from server.record.checked.kept_lines import KeptLines
from server.record.environment import environment
from server.record.jsonlines import Line, from_json, to_json
from server.record.records import RunFolder
from server.rounds.checkpointer import RunCheckpointer
from server.rounds.loop import run_rounds
from server.rounds.observers import Observers, Snapshot
from simulator.engines.plan import EnginePlan
from simulator.replay.branch import checkpoint_of, kept_rounds
from simulator.runs.announcement import engine_here
from simulator.runs.building import Overrides
from simulator.runs.experiment import certifier_of, experiment_of
from simulator.runs.playing import begun
from simulator.runs.record import recorded_scenario
from simulator.runs.resumption import Resumption
from simulator.runs.session import Session, open_session
from simulator.scenario.data_files import data_changes, data_files

NEVER = 1e9
"""Seconds between checkpoints that are never written."""


@dataclass(frozen=True)
class ReplayedRound:
    """A round that was played again.

    Attributes:
        line: what the record would have, with values as they are read back.
        certificate: the line of the certificate.
        columns: one value for each client by name; empty for round 0.
    """

    line: Line
    certificate: Line
    columns: Mapping[str, Array] = field(default_factory=dict)


class _Witness:
    """Shows a judge each round once all of it is known, and asks to stop when the judge has seen enough."""

    critical = True

    def __init__(self, judge: Callable[[ReplayedRound], bool], last: int) -> None:
        self._judge, self._last = judge, last
        self._certificate: Line = {}
        self._line: Line = {}
        self.done = False

    def certified(self, line: Line) -> None:
        self._certificate = line

    def round_finished(self, line: dict[str, Any]) -> None:
        self._line = from_json(to_json(line))

    def snapshot_taken(self, snapshot: Snapshot) -> None:
        seen = ReplayedRound(self._line, self._certificate, snapshot.clients)
        self.done = self._judge(seen) or snapshot.round_index >= self._last


@dataclass(frozen=True)
class Replayable:
    """A recorded run with what is needed to play it again.

    Attributes:
        folder: its folder.
        given: the parts passed from Python.
        lines: its recorded lines.
        started: the facts of its start, in environment.json; empty where they are missing.
        recorded_environment: the content of environment.json; empty where it is missing.
    """

    folder: RunFolder
    given: Overrides
    lines: KeptLines
    started: Mapping[str, Any]
    recorded_environment: Mapping[str, Any]

    @property
    def first(self) -> int:
        """The round from which it can be played again without a kept checkpoint: that of its branch, or -1."""
        branch = self.started.get("branch")
        return int(branch["round"]) if branch else -1

    @property
    def changed_data(self) -> str:
        """How its data files have changed since it was played, as a clause; empty where they have not."""
        return data_changes(self.started.get("data_files"), data_files(recorded_scenario(self.folder)))


def play_again(
    run: Replayable,
    judge: Callable[[ReplayedRound], bool],
    *,
    after: int,
    last: int,
    certified: Certified = "clients",
) -> list[str]:
    """Play rounds of a run again, with the engine of its record.

    Args:
        run: the run.
        judge: receives each round; it returns True to stop.
        after: the round of the checkpoint to begin from; -1 begins before round 0.
        last: the last round to play.
        certified: what the certificates have.

    Returns:
        Why bits may differ here, as clauses; empty where nothing is known that moves them.

    Raises:
        UserError: the run cannot be played here at all.
    """
    scenario = replace(recorded_scenario(run.folder), notices=(), named=frozenset())
    scenario = replace(scenario, run=replace(scenario.run, rounds=max(scenario.run.rounds, last, 1)))
    reasons: list[str] = []
    try:
        plan = run.started.get("engine_plan")
        session = open_session(scenario, run.given, plan=EnginePlan.from_dict(dict(plan)) if plan else None)
    except EngineError as error:
        reasons.append(f"the engine of the run cannot be had ({error.field} {error.problem})")
        session = open_session(scenario, run.given)
    with closing(session):
        reasons += _reasons(run, session)
        _play(session, run, judge, after, last, certified)
    return reasons


def nearest_checkpoint(run: Replayable, before: int) -> int:
    """Return the round of the last kept checkpoint before a round; `run.first` where there is none."""
    return max([run.first, *(r for r in kept_rounds(run.folder) if r < before)])


def _reasons(run: Replayable, session: Session) -> list[str]:
    now = environment() | {"run": {"certificate": machine_facts(engine_here(session))}}
    found = differences(run.recorded_environment, now)
    if not run.recorded_environment:
        found.append("environment.json is missing, so the engine was chosen anew")
    if "grid" in (run.started.get("from_python") or ()):
        found.append("its clients were on nodes, and are in one process here")
    plan = session.plan
    unset = plan is not None and plan.threads is None and plan.workers == 1
    threads = [environment.get("threads") for environment in (run.recorded_environment, now)]
    if unset and threads[0] is not None and threads[0] != threads[1]:
        found.append(f"torch has {threads[1]} threads, and had {threads[0]}")
    return found


def _play(
    session: Session,
    run: Replayable,
    judge: Callable[[ReplayedRound], bool],
    after: int,
    last: int,
    certified: Certified,
) -> None:
    witness = _Witness(judge, last)
    observers = Observers([witness])
    strategy = session.played.strategy if session.played.strategy is not session.played.own else None
    checkpointer = RunCheckpointer(
        session.states, None, None, strategy=strategy, facts={}, every_seconds=NEVER, every_rounds=None
    )
    certifier = certifier_of(session, certified, witness.certified)
    experiment = experiment_of(session, observers, checkpointer, lambda: witness.done, certifier)
    back = None
    if after >= 0:
        lines = KeptLines(line for line in run.lines if line["round"] <= after)
        back = Resumption(checkpoint_of(run.folder, after), lines, "")
    state = begun(session, experiment, checkpointer, back)
    if not witness.done:
        run_rounds(experiment, state)
