"""probes.json: the probes of a run, one for each probed round."""

from __future__ import annotations

from server.record.checked.json_files import write_json
from server.record.records import RunFolder
from simulator.probes.result import Probes


def add_probes(folder: RunFolder, probes: Probes) -> None:
    """Write a probe into a run's folder, in order of round; it replaces one of the same round.

    Raises:
        RunFolderError: the file cannot be written, or the one there cannot be read.
    """
    kept = [one for one in folder.read_probes() if one["round_index"] != probes.round_index]
    every = sorted([*kept, probes.to_dict()], key=lambda one: one["round_index"])
    write_json(folder.probes, {"probes": every}, indent=True)


def read_probes(folder: RunFolder) -> dict[int, Probes]:
    """Return the probes of a run by round; empty where none were made.

    Raises:
        RunFolderError: the file is damaged, or another version of fedscape wrote it.
    """
    return {one["round_index"]: Probes.from_dict(folder.path, one) for one in folder.read_probes()}
