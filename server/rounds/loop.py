"""The round loop: Flower's `Strategy.start` with hooks, early stop, measures and resume, for any Flower strategy."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch

from clients.core.arrays import Array
from clients.core.user_code import naming
from server.algorithms.state import ServerState
from server.convergence.verdict import Verdict
from server.record.jsonlines import Line
from server.rounds.experiment import Experiment, RoundInterrupted
from server.rounds.observers import Snapshot
from server.rounds.play import play_round

BY_THE_CLOCK = ("wall_seconds", "clients_per_second", "finished_at", "workers")
"""Keys of a line that depend on the clock and the machine; two equal runs agree on all others."""


def run_rounds(experiment: Experiment, state: ServerState) -> tuple[ServerState, Verdict]:
    """Play rounds until a verdict.

    Args:
        experiment: the experiment to play.
        state: the server's state to start from: the initial one, or a checkpoint's.

    Returns:
        The last finite state, and the verdict.

    Raises:
        StrategyError: every client of a round failed, or a user's strategy did.
    """
    observers, ended = experiment.observers, experiment.judge.verdict
    if ended is not None and state.round_index > 0:  # resumed from a checkpoint of the run's last round
        return state, ended
    for round_index in range(state.round_index + 1, experiment.rounds + 1):
        started = time.perf_counter()
        for event in events_of(experiment, round_index):
            observers.event({"round": round_index, **event})
        try:
            new, result = play_round(experiment, state)
        except RoundInterrupted as why:
            experiment.checkpointer.rollback()
            _tell_events(experiment)
            return state, Verdict("interrupted", state.round_index, (str(why),))
        except BaseException:
            experiment.checkpointer.rollback()
            raise
        _tell_events(experiment)
        for event in result.events:
            observers.event(event)
        line = result.line
        line["wall_seconds"] = time.perf_counter() - started
        line["clients_per_second"] = line["respondents"] / max(line["wall_seconds"], 1e-9)
        line["finished_at"] = time.time()
        verdict = experiment.judge.observe(line, result.predicted).verdict
        if verdict is not None and round_index < experiment.rounds:
            line |= experiment.model_metrics.curves_at_end(new)
        if experiment.machinery is not None:
            line["workers"] = experiment.machinery.facts()
        if experiment.certifier is not None:
            line["state_hash"] = experiment.certifier.certify(new, result.hashes)
        observers.round_finished(line)
        show_model(experiment, new, line, result.columns)
        if verdict is not None and verdict.outcome == "diverged" and not torch.isfinite(new.params).all():
            return state, verdict
        state = new
        experiment.checkpointer.commit(state, line, result.columns, result.scores)
        if "client" in result.columns:
            experiment.nodes.committed(round_index, result.columns["client"])
        experiment.nodes.checkpoint = experiment.checkpointer.resumable_from(round_index)
        if verdict is not None:
            return state, verdict
        with naming("stop_asked", f"raised after round {round_index}"):
            stopping = experiment.stop_requested()
        if stopping:
            return state, Verdict("interrupted", round_index, ("a stop was requested",))
    return state, experiment.judge.stopped(state.round_index, experiment.rounds)


def _tell_events(experiment: Experiment) -> None:
    """Tell the observers what happened to the worker processes."""
    if experiment.machinery is not None:
        for event in experiment.machinery.events():
            experiment.observers.event(event)


def initial_line(experiment: Experiment, state: ServerState) -> Line:
    """Measure and judge the model before the first round."""
    measured = experiment.model_metrics.measure(None, state)
    curves = experiment.model_metrics.curves(state)
    line: Line = {"round": 0, **measured.line, **curves, "finished_at": time.time()}
    if experiment.machinery is not None:
        experiment.machinery.facts()  # the work before the first round is not the first round's
    experiment.judge.observe(line, measured.predicted)
    if experiment.certifier is not None:
        line["state_hash"] = experiment.certifier.certify(state)
    return line


def show_model(experiment: Experiment, state: ServerState, line: Line, columns: Mapping[str, Array]) -> None:
    """Show the observers that follow snapshots the model after a round."""
    if experiment.observers.follow_snapshots:
        params, buffers, module = state.params.clone(), state.buffers.clone(), experiment.module
        experiment.observers.snapshot_taken(Snapshot(state.round_index, line, columns, lambda: module(params, buffers)))


def events_of(experiment: Experiment, round_index: int) -> list[Line]:
    """Return an event for each change of the data at the start of a round."""
    events = experiment.population.history.events
    return list(events(round_index)) if events is not None else []
