"""Resuming a run: checks whether its folder allows it, and restores everything from its last checkpoint."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from clients.core.errors import RunFolderError
from clients.sources.pooled_arrays import PooledArrays
from dashboards.report.report import write_report
from server.algorithms.algorithm import Algorithm
from server.algorithms.state import ServerState
from server.nodes.node_map import NodeMap
from server.record.checked.kept_lines import KeptLines
from server.record.checked.line_files import RecordedLines
from server.record.checkpoint import Checkpoint, CheckpointStore
from server.record.client_rows import ClientRows
from server.record.completeness import client_problems, score_problems
from server.record.records import RunFolder
from server.rounds.checkpointer import RunCheckpointer, Stateful
from server.rounds.experiment import Experiment
from server.rounds.judgement import TOTALS
from simulator.runs.building import Overrides
from simulator.runs.session import Session
from simulator.scenario.sections import Scenario, to_toml

_LATER_KEYS = ("objective_every = 0\n", "test_every = 0\n", "keep_parameters_every = 0\n",
               "keep_checkpoints_every = 0\n", 'certificate = "state"\n',
               "adapt_every = 0\n", "adapt_steps = 5\n", "damping = 0.0\n", "history = 10\n",
               'line_search = "backtracking"\n', 'device = "auto"\n', "tf32 = false\n", "bf16 = false\n",
               'task = "classify"\n', "rotation = 0.0\n")  # fmt: skip
"""Keys of scenarios at their defaults that checkpoints of earlier versions do not have."""

_NODES = re.compile(r"^\[nodes\]\n(?:[^\[\n].*\n)*\n?", re.MULTILINE)
"""The section of waiting times, which decides no number of a checkpoint."""

ON_NODES = "name_on_nodes"
"""The fact of a checkpoint that names the run's client states on nodes."""

_SAME_LOSS = 1e-3
"""Losses of the same parameters on the same examples differ by less, also on another machine."""


@dataclass(frozen=True)
class Resumption:
    """The point from which a run continues.

    Attributes:
        checkpoint: the last one; None if the run stopped before its first, and starts again.
        lines: the record up to the checkpoint.
        note: what was lost, in words; may be empty.
        branch: for a run that was branched from another one: that run, the round and the changes.
        is_new: whether the run has not been started before, but only prepared.
    """

    checkpoint: Checkpoint | None
    lines: KeptLines
    note: str
    branch: Mapping[str, Any] | None = None
    is_new: bool = False

    @property
    def round_index(self) -> int:
        """The round of the checkpoint; -1 if there is none."""
        return self.checkpoint.round_index if self.checkpoint is not None else -1


def fingerprint(scenario: Scenario, algorithm: Algorithm | None = None) -> str:
    """Return a short hash of what a checkpoint depends on.

    Args:
        scenario: hashed without the run's budget and cadence.
        algorithm: an algorithm from Python, in place of the scenario's.
    """
    text = to_toml(
        replace(
            scenario,
            title="",
            notices=(),
            run=replace(
                scenario.run,
                rounds=1,
                checkpoint_seconds=1,
                checkpoint_rounds=None,
                keep_parameters_every=0,
                keep_checkpoints_every=0,
                certificate="state",
            ),
        )
    )
    for line in _LATER_KEYS:
        text = text.replace(line, "")
    text = _NODES.sub("", text)
    return hashlib.blake2b((text + (algorithm.signature if algorithm else "")).encode(), digest_size=8).hexdigest()


def name_on_nodes(checkpoint: Checkpoint | None, run_id: str) -> str:
    """Return the name under which nodes keep the run's client states: who can state it can have them deleted.

    It is drawn at random, and only the run's messages and its checkpoints have it.

    Args:
        checkpoint: the one from which the run goes on; None for a run that begins.
        run_id: the run's name, which names the states of a checkpoint by an earlier version.
    """
    return secrets.token_hex(16) if checkpoint is None else str(checkpoint.facts.get(ON_NODES, run_id))


def check_resumable(folder: RunFolder, started: Mapping[str, Any], given: Overrides) -> None:
    """Refuse a run that is over, or that was started with other parts from Python than are passed now.

    Args:
        folder: the run's folder.
        started: the facts of its start, in environment.json; empty where they are missing.
        given: the parts that are passed now.

    Raises:
        RunFolderError: the run cannot be resumed; the message says why.
    """
    path, ended = str(folder.path), folder.read_outcome()
    if ended is not None and ended.get("outcome") != "interrupted":
        verdict = ended.get("headline") or ended.get("words")  # a record of an earlier version has no headline
        report = f"; its report was missing and is written now: {file}" if (file := missing_report(folder)) else ""
        raise RunFolderError(path, f"is over: {verdict}{report}", fix="Run the scenario again for another run.")
    made, now = started.get("from_python") or [], given.names
    missing, added = [n for n in made if n not in now], [n for n in now if n not in made]
    if "client_app" in made:
        raise RunFolderError(path, "had its clients in a ClientApp, whose states were not kept", fix="Run it again.")
    if "grid" in made and "grid" in missing:
        by_hand = f"Start the same SuperNodes, then: flwr run . <federation> --run-config 'resume=\"{path}\"'"
        fix = f"Continue it: fedscape federate --resume {path}." if folder.federation.exists() else by_hand
        raise RunFolderError(path, "had its clients on nodes", fix=fix)
    if missing:
        fix = f"Resume it from Python: fedscape.resume(path, {'=..., '.join(missing)}=...)."
        raise RunFolderError(path, f"was started from Python with its own {' and '.join(missing)}", fix=fix)
    if added and started:
        raise RunFolderError(path, f"was started without {' and '.join(added)} from Python", fix="Leave that out.")


def missing_report(folder: RunFolder) -> Path | None:
    """Write the report of a run that is over and has none, since it was killed before; return its file.

    Returns:
        The file; None where the run is not over, or has its report.

    Raises:
        RunFolderError: the outcome cannot be read, or the report cannot be written.
    """
    ended = folder.read_outcome()
    if ended is None or ended.get("outcome") == "interrupted" or folder.report.exists():
        return None
    return write_report([folder.path])


def check_data(folder: RunFolder, scenario: Scenario, given: Overrides) -> None:
    """Refuse pooled arrays where the run had a population of its own clients, and the reverse.

    Raises:
        RunFolderError: the data are of the other kind.
    """
    if given.population is None or isinstance(given.population, PooledArrays) == (scenario.partition is not None):
        return
    had = "pooled arrays, fs.arrays(...)" if scenario.partition is not None else "a population of its own clients"
    raise RunFolderError(str(folder.path), f"was started with {had}", fix="Pass the same data= again.")


def check_strategy(folder: RunFolder, strategy: object) -> None:
    """Refuse a strategy whose state cannot be restored.

    Raises:
        RunFolderError: the strategy lacks `state_dict` or `load_state_dict`.
    """
    if not isinstance(strategy, Stateful):
        problem = f"was run with {type(strategy).__name__}, which has no state_dict and load_state_dict"
        raise RunFolderError(str(folder.path), problem, fix="Give the strategy those two methods and run again.")


def go_back(
    folder: RunFolder, store: CheckpointStore, scenario: Scenario, algorithm: Algorithm | None = None
) -> Resumption:
    """Read the newest checkpoint that is whole and fits the record, and cut the record back to it.

    Raises:
        RunFolderError: no checkpoint can be used, it belongs to another scenario, or the scenario was changed before
            the first checkpoint. The folder is then unchanged.
    """
    record = folder.read_rounds()
    checkpoint = _newest(folder, store, record)
    last = checkpoint.round_index if checkpoint is not None else -1
    changed = folder.scenario_problem()
    if checkpoint is not None and checkpoint.facts.get("fingerprint") != fingerprint(scenario, algorithm):
        problem = "its checkpoint belongs to another scenario or algorithm"
        fix = "Restore scenario.toml and the algorithm, or start a new run."
        raise RunFolderError(str(folder.path), problem, fix=fix)
    if checkpoint is None and changed:
        fix = f"There is no checkpoint to lose: run it as another run, fedscape run {folder.scenario}"
        raise RunFolderError(str(folder.scenario), changed, fix=fix)
    kept = KeptLines(islice(record.values, last + 1))
    lost = client_problems(folder.clients, kept, last) + score_problems(folder.scores, kept, last)
    events = folder.read_events()
    folder.truncate(last)
    notes = [checkpoint.note if checkpoint is not None else "there was no checkpoint yet"]
    notes += [f"scenario.toml {changed}"] * bool(changed)
    notes += [f"rounds.jsonl: {record.damage}, so it ends before that line"] * bool(record.damage)
    notes += [f"events.jsonl: {events.damage}, so it ends before that line"] * bool(events.damage)
    notes += [sentence.rstrip(".") for sentence in lost]
    again = len(record.values) - len(kept)
    notes += [f"{again} recorded rounds after it are played again"] * bool(again)
    notes += ["the last line of the record was not whole"] * record.truncated
    notes += ["the record has no checksums, since an earlier version wrote it"] * (not record.has_links)
    return Resumption(checkpoint, kept, "; ".join(note for note in notes if note))


def _newest(folder: RunFolder, store: CheckpointStore, record: RecordedLines) -> Checkpoint | None:
    """Return the newest checkpoint that is whole and fits the record; None where none was written.

    Raises:
        RunFolderError: there were checkpoints, and none can be used.
    """
    misfits: list[str] = []

    def problem_of(last: int, facts: Mapping[str, Any]) -> str:
        problem = _misfit(record, last, facts)
        misfits.extend([problem] if problem else [])
        return f"rounds.jsonl {problem}" if problem else ""

    try:
        return store.load(problem_of)
    except RunFolderError as error:
        if not misfits or "manifest" in error.problem or "safetensors" in error.problem:
            raise
        whole = f"Lines 1 to {len(record.values)} are complete. " if record.damage else ""
        fix = f"{whole}Restore the file from a copy, or run the scenario again."
        raise RunFolderError(str(folder.rounds), misfits[0], fix=fix) from error


def _misfit(record: RecordedLines, last: int, facts: Mapping[str, Any]) -> str:
    """Return why a checkpoint does not fit a record, as a clause; empty where it does.

    Args:
        record: the whole lines.
        last: the round of the checkpoint.
        facts: the facts of the checkpoint.
    """
    rounds = [line["round"] for line in islice(record.values, last + 1)]
    if rounds != list(range(len(rounds))) or len(rounds) <= last:
        newest = max((line["round"] for line in record.values), default="none")
        lacks = f"lacks rounds before the checkpoint at round {last}"
        return f"{record.damage}, so it {lacks}" if record.damage else f"{lacks}; the newest recorded round is {newest}"
    for line in islice(record.values, last + 1):
        if missing := [key for key in TOTALS if not isinstance(line.get(key), int | float)]:
            return f"lacks {missing[0]} in round {line['round']}"
    stated = facts.get("record")
    if isinstance(stated, Mapping) and stated.get("rounds.jsonl") != record.heads[last].hex():
        return f"is not the record of the checkpoint at round {last}: its lines have other checksums"
    return ""


def restore_nodes(nodes: NodeMap, folder: RunFolder, last: int) -> None:
    """Restore which state each client on a node goes on from, and which clients are excluded.

    Args:
        nodes: the map to fill.
        folder: the run's folder, cut back to round `last`.
        last: the round of the checkpoint; -1 for a run that starts again.
    """
    rows = ClientRows.read(folder.clients) if last > 0 else None
    if rows is not None and len(rows):
        nodes.restore(rows["round"], rows["client"])
    nodes.checkpoint = max(0, last)
    nodes.admission.replay(event for event in folder.read_events().values if event["round"] <= last)


def restore(session: Session, experiment: Experiment, checkpointer: RunCheckpointer, back: Resumption) -> ServerState:
    """Restore the server, client states, criteria and running sums from a checkpoint; return the server's state.

    Raises:
        RunFolderError: the checkpoint belongs to another model.
    """
    checkpoint = back.checkpoint
    assert checkpoint is not None
    params = checkpoint.tensors["parameters"]
    if params.shape != session.start.params.shape:
        problem = f"holds {params.numel()} parameters, and the model has {session.start.params.numel()}"
        raise RunFolderError("checkpoint", problem, fix="Pass the model that the run was started with.")
    state = checkpointer.restore(checkpoint)
    measured = experiment.model_metrics.measure(None, state)
    _check_measured(measured.line, back.lines[-1])
    if checkpointer.best.round_index is None:  # a checkpoint of an earlier version: the best from here on
        checkpointer.best.observe(state, back.lines[-1])
    experiment.judge.replay(back.lines, measured.predicted)
    return state


def _check_measured(now: Mapping[str, Any], recorded: Mapping[str, Any]) -> None:
    """Refuse a model or data from Python that give the checkpoint another loss than the record has.

    Raises:
        RunFolderError: they do.
    """
    loss, before = now.get("validation_loss"), recorded.get("validation_loss")
    if loss is None or before is None or not np.isfinite([loss, before]).all():
        return
    if abs(loss - before) > _SAME_LOSS * max(1.0, abs(before)):
        problem = f"has a validation loss of {before:.6g} in the record, and {loss:.6g} with the model and data of now"
        fix = "Pass the model= and data= that the run was started with, with the same values."
        raise RunFolderError("checkpoint", problem, fix=fix)
