"""What a SuperNode's `--node-config` says: the clients it holds, or its own data, and where it keeps client states."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clients.core.arrays import I64
from clients.core.errors import StrategyError

MOST_CLIENTS = 10_000_000
"""The most clients of one node."""
_RANGE = re.compile(r"\s*(\d{1,12})\s*(?:-\s*(\d{1,12})\s*)?")
_FIX = "Start the SuperNode with --node-config 'clients=\"0-9\"', or 'partition-id=0 num-partitions=2'."


@dataclass(frozen=True)
class NodeConfig:
    """What a node holds.

    Attributes:
        clients: indices in the scenario's population, increasing; None where the node did not name them.
        partition: (partition id, number of partitions) as Flower's simulation has them; the number is 0 where the node
            named none.
        data: path of the node's own data, which the server never sees; empty for data of the scenario.
        name: the node's name, for people; may be empty.
        states: folder in which clients keep their states between rounds.
        service: whether a local service answers messages; see `clients.service`.
        files: the folder in which a server's scenario may name files; None for any file of this machine, as in
            Flower's simulation.
    """

    clients: tuple[int, ...] | None = None
    partition: tuple[int, int] | None = None
    data: str = ""
    name: str = ""
    states: Path = Path()
    service: bool = True
    files: Path | None = None

    def held(self, population: int) -> I64:
        """Return the clients that the node holds of a population of `population` clients, increasing, int64 (K,).

        Fewer partitions than clients share them in even blocks: partition 1 of 3 holds clients 4 to 7 of 12.

        Raises:
            StrategyError: it names none, or some that the population does not have.
        """
        if self.clients is not None:
            return _within(np.array(self.clients, np.int64), "clients", population)
        if self.partition is None:
            raise StrategyError("node_config.partition-id", "must be the client's index, got None", fix=_FIX)
        index, parts = self.partition
        if 0 < parts < population:
            if not 0 <= index < parts:
                problem = f"must be from 0 to {parts - 1}, got {index}"
                raise StrategyError("node_config.partition-id", problem, fix=_FIX)
            return np.arange(index * population // parts, (index + 1) * population // parts)
        return _within(np.array([index], np.int64), "partition-id", population)


def read_node_config(values: Mapping[str, object]) -> NodeConfig:
    """Read a node's config.

    Args:
        values: `context.node_config`.

    Raises:
        StrategyError: a value is not valid; the message names its key.
    """
    partition = values.get("partition-id")
    clients = values.get("clients")
    data, name = str(values.get("data", "")), str(values.get("name", ""))
    if clients is not None and data:
        problem = "names clients of the scenario, and data= names data of the node's own"
        raise StrategyError("node_config.clients", problem, fix="Leave one of them out.")
    if partition is not None and (not isinstance(partition, int) or isinstance(partition, bool)):
        raise StrategyError("node_config.partition-id", f"must be the client's index, got {partition!r:.60}", fix=_FIX)
    parts = values.get("num-partitions", 0)
    if not isinstance(parts, int) or isinstance(parts, bool) or parts < 0:
        raise StrategyError("node_config.num-partitions", f"must be a whole number, got {parts!r:.60}", fix=_FIX)
    service = values.get("service", "on")
    if service not in ("on", "off", True, False):
        raise StrategyError("node_config.service", f"must be 'on' or 'off', got {service!r:.60}")
    return NodeConfig(
        clients=None if clients is None else parse_clients(clients),
        partition=None if partition is None else (partition, parts),
        data=data,
        name=name,
        states=Path(str(values["states"])) if values.get("states") else default_states(),
        service=service in ("on", True),
        files=_files(values.get("files"), simulated=clients is None and partition is not None),
    )


def _files(named: object, *, simulated: bool) -> Path | None:
    """Return the folder that the node opens to a server's scenario: the working folder, unless it names another.

    Where the working folder is the root of all files, as in some containers, it is `/data`.
    """
    if named is None:
        here = Path.cwd()
        return None if simulated else here / "data" if here == Path(here.anchor) else here
    folder = Path(str(named)).expanduser()
    if not folder.is_dir():
        raise StrategyError("node_config.files", f"must be a folder, got {str(named)!r:.200}")
    return folder


def parse_clients(value: object) -> tuple[int, ...]:
    """Return the clients in a text such as "0-3,7".

    Example:
        >>> parse_clients("0-3,7")
        (0, 1, 2, 3, 7)

    Raises:
        StrategyError: it is no such text, or names a client twice.
    """
    key = "node_config.clients"
    found: list[int] = []
    for part in str(value).split(","):
        match = _RANGE.fullmatch(part)
        if isinstance(value, bool) or match is None:
            problem = f"must be clients such as 3, '10-19' or '0-3,7', got {value!r:.60}"
            raise StrategyError(key, problem, fix=_FIX)
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < first + MOST_CLIENTS or len(found) > MOST_CLIENTS:
            problem = f"has the range {part.strip()!r:.60}, which must rise and name at most {MOST_CLIENTS} clients"
            raise StrategyError(key, problem, fix=_FIX)
        found += range(first, last + 1)
    if len(set(found)) < len(found):
        raise StrategyError(key, f"names a client twice: {value!r:.60}", fix=_FIX)
    return tuple(sorted(found))


def default_states() -> Path:
    """Return the folder of client states where the node names none."""
    if home := os.environ.get("FLWR_HOME"):
        return Path(home) / "fedscape"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "fedscape"


def _within(clients: I64, key: str, population: int) -> I64:
    outside = clients[(clients < 0) | (clients >= population)]
    if len(outside):
        problem = f"must be among the scenario's {population} clients, 0 to {population - 1}, got {outside[0]}"
        raise StrategyError(f"node_config.{key}", problem, fix=_FIX)
    return clients
