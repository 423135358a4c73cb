"""A [partition] of the scenario before `data.kind` changed to data that bring their own clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clients.federation.data_kinds import DATA
from clients.partition.table import PARTITIONS
from simulator.scenario.changes import Changed


def adapt_partition(changed: Changed, before: Mapping[str, Any]) -> None:
    """Drop [partition] where the new kind of data brings its own clients, with a notice.

    A section that a change has touched stays, so that it is reported as a mistake.
    """
    data, old, partition = changed.table.get("data"), before.get("data"), changed.table.get("partition")
    if not isinstance(data, Mapping) or not isinstance(partition, Mapping):
        return
    kind: Any = data.get("kind")
    was: Any = partition.get("kind")
    is_new = kind in DATA and kind != (old.get("kind") if isinstance(old, Mapping) else None)
    if not is_new or DATA[kind].partition != "refused" or was not in PARTITIONS or PARTITIONS[was].keeps_clients:
        return
    if all(path[0] != "partition" for path in changed.paths):
        del changed.table["partition"]
        changed.notices.append(f"data.kind is now {kind!r}, which brings its own clients: dropped [partition] {was!r}")
