"""Branches of a run: another run from one of its checkpoints, with changes, and the same random numbers after it."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from clients.core.errors import RunFolderError, UserError, listed
from clients.engines.native.threads import threads_restored
from clients.flower.shim import quiet
from server.algorithms.algorithm import Algorithm
from server.record.checked.json_files import write_json
from server.record.checked.line_files import damaged
from server.record.checkpoint import Checkpoint, CheckpointStore
from server.record.files import writing
from server.record.jsonlines import RoundWriter, head_of
from server.record.recorder import sole_writer
from server.record.records import RunFolder
from simulator.engines.devices import device_restored
from simulator.replay.changes import adapted, changed_keys, check_changes
from simulator.runs.arguments.checks import check_observers, check_out, check_parts, check_run_path
from simulator.runs.building import DataLike, ModelLike, Overrides
from simulator.runs.record import recorded_scenario
from simulator.runs.resumption import fingerprint
from simulator.runs.run import RUNS, Run, go_on
from simulator.runs.strategies import StrategyChoice
from simulator.scenario.data_files import require_same_data
from simulator.scenario.sections import Scenario, load_scenario, to_toml
from simulator.workers.ranks import ranks_of_torchrun


@threads_restored()
@device_restored()
def branch(
    run: Path | str,
    *,
    round: int,
    sets: Sequence[str] | Mapping[str, Any] = (),
    out: Path | str | None = None,
    model: ModelLike | None = None,
    data: DataLike | None = None,
    algorithm: Algorithm | None = None,
    strategy: StrategyChoice | None = None,
    observers: Sequence[object] = (),
    stop_asked: Callable[[], bool] = lambda: False,
) -> Run:
    """Start a run from a round of another one, with changes; without changes it has the bits of that run.

    The new run's folder has the lines of the rounds before, marked `inherited`, and is resumed as any other.

    Args:
        run: the folder of the run.
        round: the round after which the branch begins: one with a kept checkpoint (`run.keep_checkpoints_every`), or
            one of the last checkpoint of the run.
        sets: changes as after `--set`, or a table. Data, partition, model, seed and types cannot change; faults and
            drifts only where they start later.
        out: the new run's folder; must be new or empty. By default a new one in `runs/`.
        model: the one passed to `simulate`, if any.
        data: likewise.
        algorithm: likewise.
        strategy: likewise.
        observers: as in `simulate`.
        stop_asked: as in `simulate`.

    Raises:
        UserError: the round has no checkpoint; the message names those that have one.
        ScenarioError: a change cannot apply after the round.
        RunFolderError: the folder or the checkpoint cannot be used.
    """
    quiet()
    check_parts(model=model, data=data, algorithm=algorithm, strategy=strategy)
    check_observers(observers, stop_asked)
    check_out(out)
    check_run_path(run)
    if ranks_of_torchrun() is not None:
        raise UserError("branch", "cannot start under torchrun", fix="Start it without torchrun, then resume it there.")
    given = Overrides(model, data, algorithm, strategy)
    folder = _prepared(RunFolder.open(Path(run)), round, sets, out, algorithm)
    with sole_writer(folder.path):
        try:
            return go_on(folder, given, observers, stop_asked)
        except UserError:
            if "version" not in ((folder.read_environment() or {}).get("run") or {}):  # it never started
                shutil.rmtree(folder.path, ignore_errors=True)
            raise


def kept_rounds(folder: RunFolder) -> list[int]:
    """Return the rounds from which a run can be branched: those of kept checkpoints, and of the last ones."""
    return sorted({*folder.kept_checkpoints.rounds(), *CheckpointStore.rounds_in(folder.checkpoint)})


def checkpoint_of(folder: RunFolder, round_index: int) -> Checkpoint:
    """Return the checkpoint after a round.

    Raises:
        UserError: there is none; the message names those that there are.
        RunFolderError: it is damaged.
    """
    rounds = kept_rounds(folder)
    if round_index not in rounds:
        there = f"Rounds that have one: {listed(map(str, rounds), 12)}." if rounds else "The run has none."
        more = "run.keep_checkpoints_every = k keeps those of every k rounds."
        raise UserError("round", f"{round_index} has no checkpoint", fix=f"{there} {more}")
    if round_index in folder.kept_checkpoints.rounds():
        return folder.kept_checkpoints.read(round_index)

    def problem_of(last: int, facts: Mapping[str, Any]) -> str:
        return "" if last == round_index else f"is of round {last}"

    found = CheckpointStore(folder.checkpoint).load(problem_of)
    assert found is not None, "a manifest names it"
    return found


def _prepared(
    parent: RunFolder, round_index: int, sets: Any, out: Path | str | None, algorithm: Algorithm | None
) -> RunFolder:
    """Return a new run's folder that holds the rounds before the branch, and its checkpoint as its last one."""
    before = recorded_scenario(parent)
    after = load_scenario(parent.scenario, sets=sets)
    started = (parent.read_environment() or {}).get("run") or {}
    _check_parts_of(parent, started)
    require_same_data(parent.path, started.get("data_files"), before)
    checkpoint = checkpoint_of(parent, round_index)
    check_changes(before, after, round_index)
    record = parent.read_rounds()
    if record.damage and len(record.values) <= round_index:
        raise damaged(parent.rounds, record)
    if len(record.values) <= round_index:
        raise RunFolderError(str(parent.rounds), f"lacks rounds before the checkpoint at round {round_index}")
    checkpoint, notes = adapted(checkpoint, before, after)
    folder = _new_folder(after, out)
    name = started.get("run_id") or parent.path.resolve().name
    changes = changed_keys(before, after)
    branched = {"parent": name, "round": round_index, "sets": _written(sets), "notes": notes}
    _inherit(parent, folder, round_index)
    stem = folder.path.resolve().name
    run = {"run_id": f"{stem}-{secrets.token_hex(2)}" if out else stem, "branch": branched,
           "from_python": started.get("from_python") or [], "scenario_notices": list(after.notices)}  # fmt: skip
    if not _plans_anew(changes, started.get("engine_plan")):
        run["engine_plan"] = started.get("engine_plan")
    if started.get("data_files"):
        run["data_files"] = started["data_files"]
    write_json(folder.environment, {"run": run}, indent=True)
    heads = {file.name: head_of(file).hex() for file in (folder.rounds, folder.events)}
    store = CheckpointStore(folder.checkpoint)
    facts = {"fingerprint": fingerprint(after, algorithm), "record": heads}
    facts |= {"best": best} if (best := checkpoint.facts.get("best")) else {}
    store.save(round_index, checkpoint.tensors, facts, checkpoint.client_states)
    folder.kept_checkpoints.keep(store)
    folder.write_scenario(to_toml(after))  # last: without it a folder is no run, so a kill leaves none
    return folder


def _plans_anew(changes: Sequence[str], plan: Mapping[str, Any] | None) -> bool:
    """Return whether a branch chooses its engine anew: other local steps may not have the kernel in C of the plan."""
    sections = {key.partition(".")[0] for key in changes}
    other_steps = "local" in sections or "algorithm.kind" in changes
    return "engine" in sections or (other_steps and bool((plan or {}).get("native")))


def _check_parts_of(parent: RunFolder, started: Mapping[str, Any]) -> None:
    """Refuse a run whose clients were not in its process.

    Raises:
        RunFolderError: they were on nodes, or in a ClientApp.
    """
    for part, where in (("grid", "on nodes"), ("client_app", "in a ClientApp")):
        if part in (started.get("from_python") or ()):
            problem = f"had its clients {where}, whose states are not in its checkpoints"
            raise RunFolderError(str(parent.path), problem, fix="Branch a run whose clients were in this process.")


def _new_folder(scenario: Scenario, out: Path | str | None) -> RunFolder:
    if out:
        return RunFolder.create_at(Path(out))
    return RunFolder.create(RUNS, scenario.name or "scenario", now=datetime.now())


def _inherit(parent: RunFolder, folder: RunFolder, round_index: int) -> None:
    """Copy the record up to a round; its lines are marked. What lies beyond is cut when the branch goes on."""
    _copy_lines(folder.rounds, parent.read_rounds().values, round_index, {"inherited": True})
    _copy_lines(folder.events, parent.read_events().values, round_index, {})
    _copy_lines(folder.certificate, parent.read_certificate().values, round_index, {})
    with writing(folder.path):
        for source, place in ((parent.clients, folder.clients), (parent.scores, folder.scores),
                              (parent.parameters.path, folder.parameters.path)):  # fmt: skip
            if source.is_dir() and not source.is_symlink():
                shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)


def _copy_lines(file: Path, lines: Sequence[Mapping[str, Any]], last: int, mark: Mapping[str, Any]) -> None:
    writer: RoundWriter | None = None
    try:
        for line in lines:
            if line.get("round", 0) <= last:
                writer = writer or RoundWriter(file)
                writer.append({**line, **mark})
        if writer is not None:
            writer.sync()
    finally:
        if writer is not None:
            writer.close()


def _written(sets: Any) -> list[str]:
    """Return changes as texts."""
    if isinstance(sets, Mapping):
        return [f"{key}={value}" for key, value in sets.items()]
    return list(sets)
