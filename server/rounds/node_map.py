"""The map from clients to Flower nodes."""

from __future__ import annotations

import time
from collections.abc import Callable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from clients.core.arrays import I64
from clients.core.errors import StrategyError
from clients.core.shown.text import presentable
from clients.flower.messages import QUERY
from clients.flower.shim import FIRST_NODE

WAIT_SECONDS = 120.0


class NodeMap:
    """Maps clients to nodes: by arithmetic on an in-process grid, elsewhere by one query to every node.

    A node answers a `query` with `client` (its partition id); see `clients.flower.app`.
    """

    def __init__(self, num_clients: int) -> None:
        self._num_clients = num_clients
        self._node_of: list[int] | None = None
        self._client_of: dict[int, int] = {}

    def on(self, grid: Grid) -> Callable[[I64], list[int]]:
        """Return clients (K,) -> node ids (K) on a grid; the first call queries its nodes where needed."""
        if getattr(grid, "nodes_by_client", False):
            return lambda clients: (clients + FIRST_NODE).tolist()
        if self._node_of is None:
            self._node_of = self._query(grid)
        nodes = self._node_of
        return lambda clients: [nodes[c] for c in clients.tolist()]

    def client_of(self, node: int) -> int:
        """Return the client a node holds."""
        return self._client_of.get(node, node - FIRST_NODE)

    def _query(self, grid: Grid) -> list[int]:
        """Wait until every client has a node, and query each node for its client.

        Raises:
            StrategyError: too few nodes joined or answered in time, or two nodes hold the same client.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while len(ids := list(grid.get_node_ids())) < self._num_clients:
            if time.monotonic() > deadline:
                raise StrategyError(
                    "nodes",
                    f"{len(ids)} of {self._num_clients} nodes joined within {WAIT_SECONDS:.0f} s",
                    fix="Start as many SuperNodes as the scenario has clients.",
                )
            time.sleep(0.1)
        queries = [Message(RecordDict(), dst_node_id=node, message_type=QUERY) for node in ids]
        nodes = [0] * self._num_clients  # a list: Flower's node ids are unsigned, 64 bits wide, and never 0
        for reply in grid.send_and_receive(queries, timeout=WAIT_SECONDS):
            node = reply.metadata.src_node_id
            if reply.has_error():
                raise StrategyError("nodes", f"node {node} failed its query: {presentable(str(reply.error.reason))}")
            client = _client_in(reply)
            if not 0 <= client < self._num_clients or nodes[client]:
                raise StrategyError(
                    "nodes",
                    f"node {node} holds client {client}, which is taken or unknown",
                    fix="Give the nodes the partition ids 0 to clients - 1, once each.",
                )
            nodes[client] = node
            self._client_of[node] = client
        if 0 in nodes:
            problem = f"{nodes.count(0)} of {len(nodes)} clients were reported by no node within {WAIT_SECONDS:.0f} s"
            raise StrategyError("nodes", problem, fix="Read the logs of the nodes.")
        return nodes


def _client_in(reply: Message) -> int:
    """Return the client that a node names in its reply.

    Raises:
        StrategyError: it names none: the node runs another app.
    """
    named = [record["client"] for record in reply.content.metric_records.values() if "client" in record]
    if len(named) == 1 and isinstance(named[0], int):
        return named[0]
    node, got = reply.metadata.src_node_id, f"got {named[0]!r:.60}" if named else "it has none"
    fix = (
        "Start the SuperNodes with fedscape's ClientApp, or answer queries with MetricRecord({'client': partition_id})."
    )
    raise StrategyError("nodes", f"node {node} must answer a query with its client, a whole number; {got}", fix=fix)
