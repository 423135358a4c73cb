"""What a federation runs, and the folder that its run and its logs are in."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from clients.core.errors import RunFolderError, require
from server.record.files import folder_name, writing
from server.record.records import RunFolder
from simulator.runs.record import recorded_scenario
from simulator.runs.run import RUNS
from simulator.scenario.sections import Scenario


@dataclass(frozen=True)
class Wanted:
    """What to run.

    Attributes:
        scenario: the experiment; None where `resume` names a run.
        nodes: number of SuperNodes; None takes 3, or fewer where there are fewer clients.
        out: the run's folder, new or empty; None takes a new one in `runs/`.
        certs: a folder of `fedscape certs`; None makes certificates that last two days.
        resume: the folder of a run to continue.
        port: the SuperLink's port; None takes a free one.
    """

    scenario: Scenario | None = None
    nodes: int | None = None
    out: Path | None = None
    certs: Path | None = None
    resume: Path | None = None
    port: int | None = None


def scenario_of(wanted: Wanted) -> Scenario:
    """Return the scenario to run, or that of the run to continue.

    Raises:
        UserError: the run cannot be read, or its nodes bring data of their own.
    """
    if wanted.resume is not None:
        return recorded_scenario(RunFolder.open(wanted.resume))
    assert wanted.scenario is not None, "either a scenario or a run to continue"
    fix = "Start the SuperNodes by hand, each with its data=; docs/federations.md has the commands."
    problem = "must be false: fedscape federate deals the scenario's clients to its nodes"
    require(not wanted.scenario.nodes.own_data, "nodes.own_data", problem, fix=fix)
    return wanted.scenario


def new_folder(name: str) -> Path:
    """Return the path of a new folder for a run, as `RunFolder.create` names it."""
    return RUNS / f"{folder_name(name)}-{datetime.now():%m%d-%H%M}-{secrets.token_hex(2)}"


def log_folder(record: Path, *, is_new: bool) -> Path:
    """Make the folder of the logs, in the run's folder.

    Raises:
        RunFolderError: the run's folder holds another run, or cannot be written.
    """
    logs = RunFolder(record).logs
    if is_new and record.is_dir() and (held := RunFolder.held_by_others(record)) is not None:
        raise RunFolderError(str(record), f"already holds files ({held})", fix="Name another folder with --out.")
    with writing(logs, fix="Name another folder with --out."):
        logs.mkdir(parents=True, exist_ok=True)
    return logs
