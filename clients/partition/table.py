"""The table of partitions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clients.core.rows import Row, Table, lazy
from clients.partition.options import (
    CalibratedOptions,
    DirichletOptions,
    IidOptions,
    NaturalOptions,
    QuantityOptions,
    ShardsOptions,
    SimilarityOptions,
)


@dataclass(frozen=True, kw_only=True)
class PartitionRow(Row):
    """A kind of partition.

    Attributes:
        owners: (options, pooled examples) -> who owns each (`clients.partition.partitions.Owners`).
        keeps_clients: whether it leaves data that bring their own clients as they are.
        facts: (options, targets, features, rows, offsets, seed) -> what the record says of the finished partition.
    """

    owners: Callable[..., Any]
    keeps_clients: bool = False
    facts: Callable[..., dict[str, float]] | None = None


def _dealt(name: str) -> Callable[..., Any]:
    return lazy("clients.partition.partitions", name)


PARTITIONS: Table[PartitionRow] = Table(
    "a partition",
    PartitionRow(kind="iid", options=IidOptions, owners=_dealt("iid")),
    PartitionRow(kind="dirichlet", options=DirichletOptions, owners=_dealt("dirichlet")),
    PartitionRow(kind="shards", options=ShardsOptions, owners=_dealt("shards")),
    PartitionRow(kind="quantity", options=QuantityOptions, owners=_dealt("quantity")),
    PartitionRow(kind="similarity", options=SimilarityOptions, owners=_dealt("similarity")),
    PartitionRow(kind="natural", options=NaturalOptions, owners=_dealt("natural"), keeps_clients=True),
    PartitionRow(
        kind="requested",
        options=CalibratedOptions,
        owners=_dealt("calibrated"),
        facts=lazy("clients.partition.calibrated", "measured"),
    ),
)
