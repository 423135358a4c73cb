"""What a federation runs, and the folder that its run and its logs are in."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from clients.core.errors import RunFolderError, require
from server.record.checked.json_files import read_json, write_json
from server.record.files import folder_name, writing
from server.record.jsonlines import RoundWriter
from server.record.recorder import sole_writer
from server.record.records import RunFolder
from simulator.federate.feed import FeedReader
from simulator.runs.record import recorded_scenario
from simulator.runs.run import RUNS
from simulator.scenario.sections import Scenario

MOST_RESTARTS = 1_000


@dataclass(frozen=True)
class Wanted:
    """What to run.

    Attributes:
        scenario: the experiment; None where `resume` names a run.
        nodes: number of SuperNodes; None takes that of the run to continue, else 3, or fewer for fewer clients.
        out: the run's folder, new or empty; None takes a new one in `runs/`.
        certs: a folder of `fedscape certs`; None makes certificates that last two days.
        resume: the folder of a run to continue.
        port: the SuperLink's port; None takes a free one.
        restarts: how often a SuperNode that has ended is replaced, each.
    """

    scenario: Scenario | None = None
    nodes: int | None = None
    out: Path | None = None
    certs: Path | None = None
    resume: Path | None = None
    port: int | None = None
    restarts: int = 0


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


def check_restarts(restarts: int) -> None:
    """Check how often a SuperNode may be replaced.

    Raises:
        UserError: it is no possible number.
    """
    require(0 <= restarts <= MOST_RESTARTS, "--restart-nodes", f"must be 0 to {MOST_RESTARTS}, got {restarts}")


def write_facts(record: Path, *, nodes: int) -> None:
    """Write what `--resume` needs to know of the federation: its number of SuperNodes.

    Raises:
        RunFolderError: it cannot be written.
    """
    write_json(RunFolder(record).federation, {"nodes": nodes}, indent=True)


def nodes_before(wanted: Wanted) -> int | None:
    """Return with how many SuperNodes the run to continue was played last; None where that is not known.

    Raises:
        RunFolderError: the file is damaged.
    """
    found = read_json(RunFolder(wanted.resume).federation) if wanted.resume is not None else None
    return int(found[0]["nodes"]) if found is not None else None


def record_rest(record: Path, feed: FeedReader) -> None:
    """Append the events that the ServerApp did not live to record. It has ended, so this process alone writes.

    A finished record is closed: then they were shown and are in the logs alone.
    """
    folder, events = RunFolder(record), feed.take_unrecorded()
    if not events or not folder.events.exists() or folder.outcome.exists():
        return
    try:
        with sole_writer(record):
            writer = RoundWriter(folder.events)
            for event in events:
                writer.append(event)
            writer.sync()
            writer.close()
    except RunFolderError as error:  # a full disk, or a damaged line: the run's own error is the news
        logging.getLogger("fedscape").warning("%s", error)
