"""Plays a session to its end, from its start or from a checkpoint, with its observers, its record and its outcome."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from clients.core.user_code import naming
from clients.engines.progress import Progress
from dashboards.report.report import ReportWriter
from server.algorithms.state import ServerState
from server.convergence.verdict import Verdict
from server.record.checked.kept_lines import KeptLines
from server.record.checkpoint import CheckpointStore
from server.record.recorder import Recorder
from server.record.records import RunFolder
from server.rounds.best_model import BestModel
from server.rounds.checkpointer import CheckpointSaver, ParameterSaver, RunCheckpointer
from server.rounds.experiment import Experiment
from server.rounds.loop import initial_line, run_rounds, show_model
from server.rounds.observers import Observers
from simulator.runs.announcement import EventLog, describe, log_notices
from simulator.runs.building import Overrides
from simulator.runs.conclusion import conclude, save_models, with_findings, with_hint
from simulator.runs.experiment import certifier_of, experiment_of
from simulator.runs.resumption import ON_NODES, Resumption, fingerprint, name_on_nodes, restore
from simulator.runs.session import Session


@dataclass(frozen=True)
class Ended:
    """What a session that was played to its end leaves.

    Attributes:
        verdict: how it ended.
        outcome: the results, as in outcome.json.
        lines: the record.
        state: the server's last finite state.
        best: the best model by validation.
    """

    verdict: Verdict
    outcome: Mapping[str, Any]
    lines: KeptLines
    state: ServerState
    best: BestModel


class History:
    """Keeps the lines of a run in memory, packed."""

    critical = True

    def __init__(self, lines: Sequence[dict[str, Any]] = ()) -> None:
        self.lines = KeptLines(lines)

    def round_finished(self, line: dict[str, Any]) -> None:
        """Keep a line."""
        self.lines.append(line)


def play(
    session: Session,
    given: Overrides,
    folder: RunFolder | None,
    store: CheckpointStore | None,
    observers: Sequence[object],
    stop_asked: Callable[[], bool],
    *,
    run_id: str,
    back: Resumption | None = None,
) -> Ended:
    """Play a session to its end, from the start or from a checkpoint.

    Args:
        session: what is run.
        given: the parts passed from Python.
        folder: the run's folder; None records nothing.
        store: the folder's checkpoints.
        observers: the user's.
        stop_asked: called after each round; if it returns True, the run stops.
        run_id: the run's name.
        back: the point from which a resumed run continues.
    """
    if session.states is not None and folder is not None:
        session.states.folder = folder.path
    recorder = Recorder(folder) if folder is not None else None
    history = History(back.lines if back is not None else ())
    everyone = _observers(recorder, history, observers, folder)
    session.nodes.run = name_on_nodes(back.checkpoint if back is not None else None, run_id)
    checkpointer = _checkpointer(session, given, folder, store, recorder, everyone)
    try:
        certifier = certifier_of(session, session.scenario.run.certificate, recorder.certified if recorder else None)
        experiment = experiment_of(session, everyone, checkpointer, stop_asked, certifier)
        facts = describe(session, given, folder, run_id)
        if back is not None and back.branch is not None:
            facts["branch"] = dict(back.branch)
        progress = Progress(everyone.progress) if everyone.follow_progress else None
        if progress is not None:  # what was timed for the facts does not count
            session.count_progress(progress)
        everyone.run_started(facts)
        if not observers:
            log_notices(facts.get("notices", ()))
        state = begun(session, experiment, checkpointer, back)
        checkpointer.keep(state)
        state, verdict = run_rounds(experiment, state)
        checkpointer.keep(state, is_last=verdict.outcome != "interrupted")
        checkpointer.save(state)
        if progress is not None:
            progress.conclude()
        verdict = with_findings(verdict, history.lines, session.scenario.convergence)
        verdict = with_hint(verdict, state, folder, given.names)
        with naming("model", "fails after the last round, on test examples or in baselines"):
            outcome = conclude(session, state, verdict, history.lines, folder, recorder, checkpointer.best)
        if folder is not None:
            save_models(session, state, checkpointer.best, folder)
        everyone.run_finished(outcome)
        if verdict.outcome != "interrupted" and session.sender is not None and _nodes_keep_states(session):
            _dismiss(session)
    finally:
        if recorder is not None:
            recorder.close()
    return Ended(verdict, outcome, history.lines, state, checkpointer.best)


def _nodes_keep_states(session: Session) -> bool:
    """Return whether nodes may hold client states: a message to each of them takes as long as a round."""
    own = session.played.own
    return own is None or own.algorithm.local_work.remembers or session.task.local.buffers == "local"


def _dismiss(session: Session) -> None:
    """Have the nodes delete the client states of the run; the run is over even if they cannot be reached."""
    try:
        session.nodes.finish(session.grid)
    except Exception as error:  # Flower's grid may raise whatever its connection does
        logging.getLogger("fedscape").warning("the nodes keep the run's client states: %s", error)


def _observers(
    recorder: Recorder | None, history: History, observers: Sequence[object], folder: RunFolder | None
) -> Observers:
    """Return all observers. The report is last: it is drawn from the outcome, which the recorder writes first."""
    report = [ReportWriter(folder)] if folder is not None else []
    unseen = [] if observers else [EventLog()]
    return Observers([*([recorder] if recorder else []), history, *observers, *unseen, *report])


def _checkpointer(
    session: Session,
    given: Overrides,
    folder: RunFolder | None,
    store: CheckpointStore | None,
    recorder: Recorder | None,
    observers: Observers,
) -> RunCheckpointer:
    run, played = session.scenario.run, session.played
    return RunCheckpointer(
        session.states,
        recorder,
        store,
        strategy=played.strategy if played.strategy is not played.own else None,
        facts={"fingerprint": fingerprint(session.scenario, given.algorithm)}
        | ({ON_NODES: session.nodes.run} if session.sender is not None else {}),
        every_seconds=run.checkpoint_seconds,
        every_rounds=run.checkpoint_rounds,
        parameters=_parameters(session, folder, observers),
        checkpoints=CheckpointSaver(folder.kept_checkpoints, run.keep_checkpoints_every, observers.event)
        if folder is not None and run.keep_checkpoints_every
        else None,
    )


def begun(
    session: Session, experiment: Experiment, checkpointer: RunCheckpointer, back: Resumption | None
) -> ServerState:
    """Return the state before the next round: that of a checkpoint, or the first, whose line is recorded."""
    state, observers = session.start, experiment.observers
    resumes = back is not None and back.checkpoint is not None
    if back is not None and resumes:
        observers.recorded_before(back.lines)
        state = restore(session, experiment, checkpointer, back)
    if back is not None and back.branch is not None and back.is_new:
        observers.event({"round": state.round_index, "kind": "branched", "message": branched_words(back.branch)})
    elif back is not None:
        message = f"resumed after round {state.round_index}{f': {back.note}' if back.note else ''}"
        observers.event({"round": state.round_index, "kind": "resumed", "message": message})
    if not resumes:
        line = initial_line(experiment, state)
        checkpointer.best.observe(state, line)
        observers.round_finished(line)
        show_model(experiment, state, line, {})
    return state


def branched_words(branch: Mapping[str, Any]) -> str:
    """Return from where a run was branched, and what was changed.

    Example:
        >>> branched_words({"parent": "digits-7f3a", "round": 20, "sets": ["local.local_lr=0.02"]})
        'branched from digits-7f3a after round 20, with local.local_lr=0.02'
    """
    changes = ", ".join(branch.get("sets") or ()) or "no change"
    notes = "".join(f"; {note}" for note in branch.get("notes") or ())
    return f"branched from {branch['parent']} after round {branch['round']}, with {changes}{notes}"


def _parameters(session: Session, folder: RunFolder | None, observers: Observers) -> ParameterSaver | None:
    """Return what saves the parameters of earlier rounds; None where none are kept."""
    every = session.scenario.run.keep_parameters_every
    if folder is None or not every:
        return None

    def tensors_of(state: ServerState) -> dict[str, Tensor]:
        return dict(session.module(state.params, state.buffers).state_dict())

    return ParameterSaver(folder.parameters, every, tensors_of, observers.event)
