"""One run of a study in a process of its own: found finished, resumed, or played, and put into a row."""

from __future__ import annotations

import time
import tomllib
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from clients.core.errors import DataError, FedscapeError, RunFolderError
from clients.engines.native.threads import threads_restored
from dashboards.report.compared_measures import MEASURES
from dashboards.report.formats import is_number
from dashboards.report.run_data import RunData, read_run
from server.record.hints import is_resumable, is_run
from server.record.records import RunFolder
from simulator.engines.plan import EnginePlan
from simulator.runs.building import Overrides
from simulator.runs.run import Run, finished, resume, start
from simulator.runs.session import Session, open_session
from simulator.scenario.data_files import data_files
from simulator.scenario.sections import Scenario, parse_scenario
from simulator.studies.arms import version
from simulator.studies.folder import StudyFolder
from simulator.studies.parts import parts_of
from simulator.studies.pinning import engine_group, pinned, with_share
from simulator.studies.processes.messages import Job
from simulator.studies.rows import BUSY, DIVERGED, DONE, FAILED, INTERRUPTED, is_finished

UNTIMED = EnginePlan("plain", None, compiled=False, reason="")
"""The plan of a session that trains nothing: its parts are digested."""


def play_job(folder: StudyFolder, job: Job, *, observer: object, stop_asked: Callable[[], bool]) -> dict[str, Any]:
    """Play a run of a study unless it is finished, and return its row.

    Args:
        folder: the study's folder.
        job: the run.
        observer: sees its rounds.
        stop_asked: called after each round; if it returns True, the run stops and keeps its checkpoint.

    Returns:
        The row: `state` is done, diverged, failed (with `error`), interrupted, or busy where another process has it.
    """
    with folder.tried(job.key) as held:
        if not held:
            return {"state": BUSY}
        row = folder.read_row(job.key)
        if row is not None and is_finished(folder, job.key, row):
            return row
        try:
            row = _played(folder, job, observer, stop_asked)
        except FedscapeError as error:
            row = {"state": FAILED, "error": str(error)}
        except Exception as error:  # whatever data, a disk or a library may raise: the study goes on
            traceback.print_exc()
            row = {"state": FAILED, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
        folder.write_row(job.key, row)
        return row


def row_of(path: Path) -> dict[str, Any]:
    """Return the row of a run from its folder; its seconds are those of its rounds.

    Raises:
        RunFolderError: it cannot be read.
    """
    return _row(read_run(path), None)


def row_of_played(run: Run, seconds: float) -> dict[str, Any]:
    """Return the row of a run that this process has just played: `row_of` without reading the record's rounds again.

    Args:
        run: the run, with its folder.
        seconds: its wall seconds.

    Raises:
        RunFolderError: its facts or its outcome cannot be read.
    """
    assert run.path is not None, "the runs of a study are recorded"
    folder = RunFolder(run.path)
    facts = (folder.read_environment() or {}).get("run") or {}
    return _row(RunData(folder, run.rounds.lines, facts, outcome=folder.read_outcome()), seconds)


def _row(run: RunData, seconds: float | None) -> dict[str, Any]:
    played = sum(line["wall_seconds"] for line in run.lines if is_number(line.get("wall_seconds")))
    state = {"diverged": DIVERGED, "interrupted": INTERRUPTED}.get(run.state, DONE)
    outcome = run.outcome or {}
    return {
        "version": version(),
        "state": state if run.outcome is not None else INTERRUPTED,
        "verdict": str(outcome.get("headline") or outcome.get("words") or ""),
        "rounds": run.last_round,
        "seconds": played if seconds is None else seconds,
        "measures": {m.key: _number(m.of(run)) for m in MEASURES},
        "at_least": {m.key: _number(least) for m in MEASURES if (least := m.at_least(run)) is not None},
    }


def _played(folder: StudyFolder, job: Job, observer: object, stop_asked: Callable[[], bool]) -> dict[str, Any]:
    """Play what is left of a run, and return its row."""
    path, began, before = folder.run(job.key), time.perf_counter(), 0.0
    if is_run(path) and _is_over(path):
        finished(path)  # writes a report that a kill has left out
        return row_of(path)
    scenario = replace(parse_scenario(tomllib.loads(job.scenario), source=f"run {job.key}"), named=frozenset())
    _check_data(job, scenario)
    if is_resumable(path) and any((path / "checkpoint").iterdir()):
        before = sum(line["wall_seconds"] for line in RunFolder(path).read_rounds().values if "wall_seconds" in line)
        try:
            run = resume(path, observers=[observer], stop_asked=stop_asked)
            return row_of_played(run, before + time.perf_counter() - began)
        except RunFolderError:
            traceback.print_exc()  # its checkpoint cannot be used: the run is played again
    folder.clear_run(job.key)
    scenario = replace(_with_engine(folder, job, scenario), notices=job.notices)
    given = Overrides(study={"name": job.study, "arm": job.arm} if job.arm else None)
    run = start(scenario, given, path, True, [observer], stop_asked)
    return row_of_played(run, time.perf_counter() - began)


def _check_data(job: Job, scenario: Scenario) -> None:
    """Refuse data files that have changed since the run was planned: its identity is that of the former ones.

    Raises:
        DataError: they have.
    """
    now = data_files(scenario)
    if job.data and now is not None and now.digest != job.data:
        fix = "Restore the data, or start the study again: all of its runs are then played with these."
        raise DataError("data.path", f"{now.path} holds other data than when the study began", fix=fix)


def _is_over(path: Path) -> bool:
    try:
        ended = RunFolder(path).read_outcome()
    except RunFolderError:
        return False
    return ended is not None and ended.get("outcome") != "interrupted"


def _with_engine(folder: StudyFolder, job: Job, scenario: Scenario) -> Scenario:
    """Return a scenario with the engine that the study has chosen for its group; choose it if this is the first."""
    group = engine_group(scenario)
    looks = job.looks and folder.read("parts", job.key) is None
    choice = folder.read("plans", group)
    if choice is None:
        with folder.locked(f"plan-{group}"):
            choice = folder.read("plans", group)
            if choice is None:
                choice = _choose(folder, job, group, with_share(scenario, job.threads), looks=looks)
                looks = False
    scenario = pinned(scenario, choice)
    if looks:
        with closing(open_session(scenario, Overrides(), plan=UNTIMED)) as session:
            folder.write("parts", job.key, parts_of(session))
    return scenario


def _choose(folder: StudyFolder, job: Job, group: str, scenario: Scenario, *, looks: bool) -> dict[str, Any]:
    with threads_restored(job.threads), closing(open_session(scenario, Overrides())) as session:
        if looks:
            folder.write("parts", job.key, parts_of(session))
        choice = _choice_of(session)
    folder.write("plans", group, choice)
    return choice


def _choice_of(session: Session) -> dict[str, Any]:
    """Return the keys of [engine] that give a session's engine again, for a file, with the plan's words and reason."""
    plan = session.plan
    assert plan is not None, "the clients of a study's run are in this process"
    keys: dict[str, Any] = {"kind": plan.engine, "workers": plan.workers, "compile": "never"}
    keys |= {"threads": plan.threads} if plan.threads is not None else {}
    if plan.engine == "stacked":
        cohort = session.played.cohort or session.task.population.federation.with_data
        keys |= {"tile": plan.tile or cohort, "native": "always" if plan.native else "never"}
        keys |= {"compile": "always"} if plan.compiled else {}
    words = f"{plan.words}{', kernel in C' if plan.native else ''}"
    return {"engine": keys, "words": words, "reason": plan.reason}


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None
