"""Where two accounts of a round differ: numbers, tensors and clients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clients.core.arrays import Array
from clients.core.errors import listed
from server.record.jsonlines import Line, to_json
from server.rounds.loop import BY_THE_CLOCK

NOT_COMPARED = frozenset((*BY_THE_CLOCK, "state_hash", "inherited", "rejected", "late_replies", "repeats"))
"""Keys of a line that say nothing of the numbers, or are compared apart."""
OWN = frozenset(("num_examples", "local_steps", "train_loss", "train_errors", "client_drift", "gradient_norm",
                 "update_norm"))  # fmt: skip
"""Columns that follow from a client's own work; cosines and distances change with any other client of the round."""
OF_CLIENTS = "clients/"
"""How the names of client states begin."""
MOST_NAMES = 8


@dataclass(frozen=True)
class Difference:
    """How two accounts of a round differ.

    Attributes:
        round_index: the round.
        tensors: names of the state's tensors that differ, as in `certificate.jsonl`; empty where hashes are missing.
        clients: the clients whose updates differ; empty where none could be named.
        numbers: keys of the round's line that differ.
    """

    round_index: int
    tensors: tuple[str, ...] = ()
    clients: tuple[int, ...] = ()
    numbers: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the round, the clients, the tensors and, without these, the numbers."""
        parts = [f"round {self.round_index}"]
        if self.clients:
            parts.append(f"client{'s' * (len(self.clients) > 1)} {listed(map(str, self.clients), MOST_NAMES)}")
        if self.tensors:
            parts.append(f"tensors {listed(self.tensors, MOST_NAMES)}")
        elif self.numbers:
            parts.append(listed(self.numbers, MOST_NAMES))
        return ", ".join(parts) if len(parts) < 3 else f"{parts[0]}, {parts[1]}: {parts[2]}"


@dataclass(frozen=True)
class RoundAccount:
    """What is known of a round of a run.

    Attributes:
        line: its line of the record.
        certificate: its line of the certificate; empty where there is none.
        columns: one value for each client by name, with `client`; empty where there are none.
    """

    line: Line
    certificate: Mapping[str, Any]
    columns: Mapping[str, Array]


def difference(one: RoundAccount, other: RoundAccount, *, without: frozenset[str] = frozenset()) -> Difference | None:
    """Return how two accounts of the same round differ; None where they do not.

    Args:
        one: an account; keys that its line lacks are not compared.
        other: the other.
        without: keys of a line that are left out.
    """
    numbers = _numbers(one.line, other.line, without)
    hashed = "state_hash" in one.line and "state_hash" in other.line
    same_state = same_states(one, other) if hashed else not numbers
    clients = clients_that_differ(one, other)
    if same_state and not numbers and not clients:
        return None
    tensors = () if same_state else _tensors(one.certificate, other.certificate)
    return Difference(one.line["round"], tensors, clients, numbers)


def same_states(one: RoundAccount, other: RoundAccount) -> bool:
    """Return whether the hashes of two accounts show the same state; False where one has none."""
    hashes = one.line.get("state_hash"), other.line.get("state_hash")
    if None in hashes or hashes[0] == hashes[1]:
        return None not in hashes
    both = bool(one.certificate and other.certificate)
    return both and not _tensors(one.certificate, other.certificate)


def _numbers(one: Line, other: Line, without: frozenset[str]) -> tuple[str, ...]:
    skipped = NOT_COMPARED | without
    return tuple(key for key, value in one.items()
                 if key not in skipped and to_json({key: value}) != to_json({key: other.get(key)}))  # fmt: skip


def _tensors(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    first, second = one.get("tensors") or {}, other.get("tensors") or {}
    if not first or not second:
        return ()
    if _keeps_states(first) != _keeps_states(second):  # the states of clients on nodes are not in the certificate
        first, second = ({name: found for name, found in tensors.items() if not name.startswith(OF_CLIENTS)}
                         for tensors in (first, second))  # fmt: skip
    return tuple(name for name in dict.fromkeys((*first, *second)) if first.get(name) != second.get(name))


def _keeps_states(tensors: Mapping[str, str]) -> bool:
    return any(name.startswith(OF_CLIENTS) for name in tensors)


def clients_that_differ(one: RoundAccount, other: RoundAccount) -> tuple[int, ...]:
    """Return the clients whose updates differ, by hashes where both have them, else by their recorded numbers."""
    first, second = one.certificate.get("updates"), other.certificate.get("updates")
    if first and second:
        names = dict.fromkeys((*first, *second))
        return tuple(sorted(int(name) for name in names if first.get(name) != second.get(name)))
    rows = [_rows(account.columns) for account in (one, other)]
    if not rows[0] or not rows[1]:
        return ()
    return tuple(sorted(client for client in rows[0].keys() | rows[1].keys()
                        if rows[0].get(client) != rows[1].get(client)))  # fmt: skip


def _rows(columns: Mapping[str, Array]) -> dict[int, dict[str, str]]:
    """Return what each client has, as texts that tell bits apart; numbers that were not measured are left out."""
    if "client" not in columns:
        return {}
    found: dict[int, dict[str, str]] = {int(client): {} for client in columns["client"]}
    for name, values in columns.items():
        if name not in OWN:
            continue
        for client, value in zip(columns["client"].tolist(), np.asarray(values).tolist(), strict=True):
            if value is not None and value == value:
                found[client][name] = float(value).hex() if isinstance(value, int | float) else str(value)
    return found
