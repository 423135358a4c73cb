"""The evidence of a recorded run: its folder as `server.diagnosis` reads it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from clients.core.errors import RunFolderError
from server.diagnosis.evidence import Evidence, labels_of
from server.record.checked.line_files import damaged
from server.record.client_rows import ClientRows
from server.record.records import RunFolder

COLUMNS = ("round", "client", "gradient_norm", "train_loss", "update_norm", "cosine")
"""Columns of the client rows that causes use."""


def evidence_of(folder: RunFolder, looks: Mapping[str, Any] | None = None) -> Evidence:
    """Return the evidence of a run's folder.

    Args:
        folder: the run's folder.
        looks: what was looked at; None for the record alone.

    Raises:
        RunFolderError: the record cannot be read, or has no rounds.
    """
    lines = folder.read_rounds()
    if lines.damage:
        raise damaged(folder.rounds, lines)
    if not lines.values:
        raise RunFolderError(str(folder.path), "has no recorded round", fix="Let the run go on: fedscape resume RUN.")
    rows = ClientRows.read(folder.clients)
    partition = folder.read_partition() or {}
    return Evidence(
        scenario=tomllib.loads(folder.read_scenario()),
        lines=lines.values,
        started=dict((folder.read_environment() or {}).get("run") or {}),
        columns={name: rows[name] for name in COLUMNS if name in rows.columns},
        labels=labels_of(partition),
        outcome=folder.read_outcome() or {},
        looks=looks or {},
        names=dict(zip(partition.get("shown") or (), partition.get("names") or (), strict=False)),
    )
