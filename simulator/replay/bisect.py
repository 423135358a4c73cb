"""Finds the first round in which two runs differ, with its tensors, its clients and the keys that differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clients.core.errors import FedscapeError, listed
from clients.engines.native.threads import threads_restored
from clients.flower.shim import quiet
from server.algorithms.algorithm import Algorithm
from server.certificate.machine import differences
from server.record.jsonlines import to_json
from simulator.engines.devices import device_restored
from simulator.replay.changes import changed_keys, values_of
from simulator.replay.comparing import Difference, RoundAccount, clients_that_differ, difference, same_states
from simulator.replay.replaying import Replayable, ReplayedRound, nearest_checkpoint, play_again
from simulator.replay.verify import Recorded, opened, recorded_of
from simulator.runs.arguments.checks import check_parts
from simulator.runs.building import DataLike, ModelLike, Overrides
from simulator.runs.record import recorded_scenario
from simulator.runs.strategies import StrategyChoice
from simulator.scenario.data_files import DataFiles, data_changes


@dataclass(frozen=True)
class Bisection:
    """Where two runs part.

    Attributes:
        paths: the folders of both.
        last_round: the last round that both have.
        first: the first round that differs, with its tensors and clients; None where all rounds are equal.
        keys: the keys of the scenario that differ -> the values of both.
        environment: how the environments differ, one clause each.
        replays: for each run that was played again, what that showed of the first round that differs, as a sentence.
    """

    paths: tuple[Path, Path]
    last_round: int
    first: Difference | None
    keys: dict[str, tuple[Any, Any]]
    environment: tuple[str, ...] = ()
    replays: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        """Return the first difference, then the keys and the environment, a line each."""
        if self.first is None:
            head = f"equal: rounds 0 to {self.last_round} have the same bits"
        else:
            head = f"first difference in {self.first}"
        keys = [f"{key}: {to_json(one)} and {to_json(other)}" for key, (one, other) in self.keys.items()]
        return "\n".join([head, *keys, *self.replays, *self.environment])


@threads_restored()
@device_restored()
def bisect(
    first: Path | str,
    second: Path | str,
    *,
    replay: bool = True,
    model: ModelLike | None = None,
    data: DataLike | None = None,
    algorithm: Algorithm | None = None,
    strategy: StrategyChoice | None = None,
) -> Bisection:
    """Find the first round in which two runs differ. The folders do not change.

    Tensors come from the certificates, clients from the hashes of their updates, or from their recorded numbers. Where
    these name no client, or the scenarios are the same, both runs are played again from the last kept checkpoint
    before that round: a run whose record is not what its scenario gives is named.

    Args:
        first: the folder of a run.
        second: that of another.
        replay: False plays nothing again.
        model: the one passed to `simulate`, if any; both runs get it.
        data: likewise.
        algorithm: likewise.
        strategy: likewise.

    Raises:
        RunFolderError: a folder cannot be read.
    """
    quiet()
    check_parts(model=model, data=data, algorithm=algorithm, strategy=strategy)
    runs = tuple(opened(path, Overrides(model, data, algorithm, strategy)) for path in (first, second))
    records = tuple(recorded_of(run.folder, run.lines) for run in runs)
    scenarios = [recorded_scenario(run.folder) for run in runs]
    differing = changed_keys(*scenarios)
    values = [values_of(scenario, differing) for scenario in scenarios]
    keys = {key: (values[0][key], values[1][key]) for key in differing}
    common = sorted(records[0].lines.keys() & records[1].lines.keys())
    found, last = _first_difference(records[0], records[1], common), common[-1] if common else -1
    remarks: list[str] = []
    if found is not None and replay and found.round_index > 0 and (not differing or not found.clients):
        found, remarks = _with_replays(runs, records, found)
    environment = differences(runs[0].recorded_environment, runs[1].recorded_environment)
    environment += _other_data(runs[0], runs[1])
    paths = runs[0].folder.path, runs[1].folder.path
    return Bisection(paths, last, found, keys, tuple(environment), tuple(remarks))


def _other_data(one: Replayable, other: Replayable) -> list[str]:
    """Return that two runs read other data from files of the same names; empty where they did not, or have no files."""
    files = [run.started.get("data_files") or {} for run in (one, other)]
    if not all(files):
        return []
    now = DataFiles(files[1]["path"], files[1]["digest"], files[1].get("files") or {})
    changes = data_changes(files[0], now)
    return [f"{changes} between the runs"] if changes else []


def _first_difference(one: Recorded, other: Recorded, rounds: list[int]) -> Difference | None:
    """Return the first round in which two records differ.

    Where both have a hash of the state, the state and the clients decide: equal states may be measured otherwise.
    """
    for round_index in rounds:
        accounts = one.account(round_index), other.account(round_index)
        if same_states(*accounts) and not clients_that_differ(*accounts):
            continue
        found = difference(*accounts)
        if found is not None:
            return found
    return None


def _with_replays(
    runs: tuple[Replayable, ...], records: tuple[Recorded, ...], found: Difference
) -> tuple[Difference, list[str]]:
    """Play a round of both runs again; return the difference with more clients known, and what each replay showed."""
    seen: list[RoundAccount | None] = []
    remarks = []
    for run, record in zip(runs, records, strict=True):
        account, why = _replayed(run, found.round_index)
        seen.append(account)
        if account is None:
            remarks.append(f"{run.folder.path} cannot be played again: {why}")
            continue
        wrong = difference(record.account(found.round_index), account)
        if wrong is None:
            remarks.append(f"{run.folder.path} is what its scenario gives")
        else:
            remarks.append(
                f"{run.folder.path} is not what its scenario gives here: {wrong}{f' ({why})' if why else ''}"
            )
    clients = found.clients
    if not clients and seen[0] is not None and seen[1] is not None:
        clients = clients_that_differ(seen[0], seen[1])
    for record, account in zip(records, seen, strict=True):
        if not clients and account is not None:
            clients = clients_that_differ(record.account(found.round_index), account)
    return Difference(found.round_index, found.tensors, clients, found.numbers), remarks


def _replayed(run: Replayable, round_index: int) -> tuple[RoundAccount | None, str]:
    """Play one round again; return it, or None and why it cannot be played; or it and why bits may differ here."""
    kept: list[ReplayedRound] = []

    def judge(seen: ReplayedRound) -> bool:
        if seen.line["round"] == round_index:
            kept.append(seen)
        return bool(kept)

    try:
        reasons = play_again(run, judge, after=nearest_checkpoint(run, round_index), last=round_index)
    except FedscapeError as error:
        return None, str(error)
    if not kept:
        return None, f"the replay ended before round {round_index}"
    why = [*([f"{data} since it was played"] if (data := run.changed_data) else []), *reasons]
    return RoundAccount(kept[0].line, kept[0].certificate, kept[0].columns), listed(why, mark="; ")
