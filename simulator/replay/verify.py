"""Verifies a recorded run: plays it again and says that it is equal, or where it first differs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from flwr.clientapp import ClientApp

from clients.core.arrays import Array
from clients.core.errors import RunFolderError, UserError, listed
from clients.engines.native.threads import threads_restored
from clients.flower.shim import quiet
from server.algorithms.algorithm import Algorithm
from server.record.checked.line_files import damaged
from server.record.client_rows import ClientRows
from server.record.jsonlines import Line
from server.record.records import RunFolder
from simulator.engines.devices import device_restored
from simulator.replay.comparing import Difference, RoundAccount, difference
from simulator.replay.replaying import Replayable, ReplayedRound, play_again
from simulator.runs.arguments.checks import check_parts, check_run_path
from simulator.runs.building import DataLike, ModelLike, Overrides
from simulator.runs.record import recorded_scenario
from simulator.runs.strategies import StrategyChoice

TOLERANCES = {"float32": 1e-4, "float64": 1e-9}
"""Relative differences of the losses of round 1 that two engines or machines may have, by the type of parameters."""
LOSSES = ("train_loss", "validation_loss")
ON_CLIENTS = frozenset(("federated_loss", "federated_accuracy", "federated_balanced_accuracy", "federated_macro_f1",
                        "federated_error", "federated_mae", "client_spread"))  # fmt: skip
"""Clients on nodes evaluate one by one, so their sums may differ in the last bits."""


@dataclass(frozen=True)
class Verification:
    """What a replay of a run found.

    Attributes:
        path: the run's folder.
        result: "equal"; "different"; or "not reproducible here", where the environment differs, bits differ from the
            first round on, and its losses agree within the tolerance.
        first_round: the first round that was compared.
        last_round: the last one.
        first_difference: the first round that differs, with its tensors and clients; None where all are equal.
        reasons: how the environment differs, one clause each.
        tolerance: the largest relative difference of the losses of the first round that counts as agreement.
        differs_by: the relative difference that they have; None where the run is equal, or has no losses.
        hashed: how many of the rounds have a hash of the state in the record.
        data: how data files have changed since the run was played, as a clause; empty where they have not.
    """

    path: Path
    result: Literal["equal", "different", "not reproducible here"]
    first_round: int
    last_round: int
    first_difference: Difference | None
    reasons: tuple[str, ...]
    tolerance: float
    differs_by: float | None
    hashed: int
    data: str = ""

    def __str__(self) -> str:
        """Return the result in one sentence."""
        rounds = f"rounds {self.first_round} to {self.last_round}"
        if self.result == "equal":
            states = "" if self.hashed else "; the record has no hashes, so its numbers were compared"
            data = f"; {self.data} since, without an effect" if self.data else ""
            return f"equal: {rounds} have the same bits{states}{data}"
        where = f"first difference in {self.first_difference}"
        if self.result == "different":
            data = f"{self.data} since the run was played: restore the data to verify it" if self.data else ""
            reasons = "; ".join(filter(None, (data, *self.reasons)))
            why = f" ({reasons})" if reasons else ""
            return f"different: {where}{why}"
        close = f"{self.differs_by:.1e}, within {self.tolerance:g}" if self.differs_by is not None else "unknown"
        reasons = listed(self.reasons, mark="; ")
        return f"not reproducible here: {reasons}; {where}; the losses of its first round differ by {close}"


@threads_restored()
@device_restored()
def verify(
    run: Path | str,
    *,
    rounds: int | None = None,
    model: ModelLike | None = None,
    data: DataLike | None = None,
    algorithm: Algorithm | None = None,
    strategy: StrategyChoice | None = None,
    client_app: ClientApp | None = None,
) -> Verification:
    """Play a recorded run again, in memory, and compare every round with the record. The folder does not change.

    Args:
        run: the run's folder.
        rounds: the last round to compare; all that were recorded by default.
        model: the one passed to `simulate`, if any.
        data: likewise.
        algorithm: likewise.
        strategy: likewise.
        client_app: likewise.

    Raises:
        RunFolderError: the folder cannot be read, or parts from Python are missing.
        UserError: the run cannot be played here.
    """
    quiet()
    check_parts(model=model, data=data, algorithm=algorithm, strategy=strategy, client_app=client_app)
    found = opened(run, Overrides(model, data, algorithm, strategy, client_app))
    if rounds is not None and (isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1):
        raise UserError("rounds", f"must be a whole number of at least 1, got {rounds!r:.40}")
    if rounds is not None and rounds <= found.first:
        raise UserError("rounds", f"must be after {found.first}, where the branch begins, got {rounds}")
    recorded = recorded_of(found.folder, found.lines)
    last = min(max(recorded.lines), rounds if rounds is not None else max(recorded.lines))
    comparison = _Comparison(recorded, from_nodes="grid" in (found.started.get("from_python") or ()))
    reasons = tuple(play_again(found, comparison.judge, after=found.first, last=last))
    if comparison.first is None and comparison.last < last:
        comparison.first = Difference(comparison.last + 1, numbers=("the replay ended before it",))
    return comparison.verification(found, reasons, TOLERANCES[recorded_scenario(found.folder).run.dtype])


def opened(run: Path | str, given: Overrides) -> Replayable:
    """Return a recorded run with what is needed to play it again.

    Raises:
        RunFolderError: it cannot be read, has no rounds, or was started with parts from Python that are not passed.
    """
    check_run_path(run)
    folder = RunFolder.open(Path(run))
    record = folder.read_rounds()
    if record.damage:
        raise damaged(folder.rounds, record)
    if not record.values:
        raise RunFolderError(str(folder.rounds), "has no rounds", fix="Run the scenario first.")
    environment = folder.read_environment() or {}
    started = environment.get("run") or {}
    missing = [name for name in started.get("from_python") or () if name not in (*given.names, "grid")]
    if missing:
        fix = f"Pass them: {'=..., '.join(missing)}=... ."
        raise RunFolderError(str(folder.path), f"was started from Python with its own {' and '.join(missing)}", fix=fix)
    return Replayable(folder, given, record.values, started, environment)


@dataclass(frozen=True)
class Recorded:
    """What a record has of each round.

    Attributes:
        lines: the lines by round.
        certificates: the lines of the certificate by round; empty without one.
        rows: the client rows.
    """

    lines: Mapping[int, Line]
    certificates: Mapping[int, Line]
    rows: ClientRows

    def account(self, round_index: int) -> RoundAccount:
        """Return what is known of a round."""
        start, end = np.searchsorted(self._rounds, [round_index, round_index + 1])
        columns = {name: values[start:end] for name, values in self._columns.items()} if end > start else {}
        return RoundAccount(self.lines[round_index], self.certificates.get(round_index, {}), columns)

    @cached_property
    def _columns(self) -> dict[str, Array]:
        return {name: self.rows[name] for name in self.rows.columns}

    @cached_property
    def _rounds(self) -> Array:
        return self.rows["round"] if len(self.rows) else np.zeros(0, np.int64)


def recorded_of(folder: RunFolder, lines: Any) -> Recorded:
    """Return what a run's folder has of each round.

    Raises:
        RunFolderError: the certificate or the client rows cannot be read.
    """
    certificate = folder.read_certificate()
    if certificate.damage:
        raise damaged(folder.certificate, certificate)
    by_round = {line["round"]: line for line in certificate.values}
    return Recorded({line["round"]: line for line in lines}, by_round, ClientRows.read(folder.clients))


class _Comparison:
    """Compares replayed rounds with recorded ones."""

    def __init__(self, recorded: Recorded, *, from_nodes: bool) -> None:
        self._recorded, self._without = recorded, ON_CLIENTS if from_nodes else frozenset[str]()
        self.first: Difference | None = None
        self.last, self._begun, self._hashed = -1, -1, 0
        self._losses: float | None = None

    def judge(self, seen: ReplayedRound) -> bool:
        """Compare a round; return True at the first difference, once the losses of the first round are known."""
        round_index = seen.line["round"]
        if round_index not in self._recorded.lines:
            return True
        account = self._recorded.account(round_index)
        self._begun = round_index if self._begun < 0 else self._begun
        self.last = round_index
        self._hashed += "state_hash" in account.line
        replayed = RoundAccount(seen.line, seen.certificate, seen.columns)
        self.first = self.first or difference(account, replayed, without=self._without)
        if round_index > 0 and self._losses is None:
            self._losses = _apart(account.line, seen.line)
        return self.first is not None and round_index > 0

    def verification(self, run: Replayable, reasons: tuple[str, ...], tolerance: float) -> Verification:
        """Return the result of the comparison."""
        data = run.changed_data
        within = self._losses is not None and self._losses <= tolerance
        result: Literal["equal", "different", "not reproducible here"] = "equal"
        if self.first is not None:
            at_once = self.first.round_index <= self._begun + 1  # later: rounds before have the same bits here
            result = "not reproducible here" if reasons and within and at_once and not data else "different"
        apart = self._losses if self.first is not None else None
        return Verification(
            run.folder.path, result, self._begun, self.last, self.first, reasons, tolerance, apart, self._hashed,
            data,
        )  # fmt: skip


def _apart(recorded: Line, replayed: Line) -> float | None:
    """Return the largest relative difference of the losses of a round; None where it has none."""
    found = []
    for name in LOSSES:
        one, other = recorded.get(name), replayed.get(name)
        if one is not None and other is not None:
            gap = abs(one - other) / max(abs(one), 1e-12)
            found.append(gap if math.isfinite(gap) else math.inf)
    return max(found, default=None)
