"""Which clients each node holds, and which ports of the loopback are free."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

from clients.core.errors import UserError

LOOPBACK = "127.0.0.1"


def deal(clients: int, nodes: int) -> list[range]:
    """Deal clients 0 to `clients` - 1 to nodes in blocks whose sizes differ by at most one.

    Example:
        >>> deal(10, 3)
        [range(0, 3), range(3, 6), range(6, 10)]

    Raises:
        UserError: there are more nodes than clients.
    """
    if not 1 <= nodes <= clients:
        raise UserError("--nodes", f"must be 1 to {clients}, the number of the scenario's clients, got {nodes}")
    return [range(node * clients // nodes, (node + 1) * clients // nodes) for node in range(nodes)]


def node_config(held: range, node: int, nodes: int) -> dict[str, str | int]:
    """Return a SuperNode's `--node-config`: the clients it holds. The scenario is the user's, so it may name any file.

    Example:
        >>> node_config(range(3, 6), 1, 3)
        {'name': 'node-1', 'files': '/', 'clients': '3-5'}
    """
    own: dict[str, str | int] = {"name": f"node-{node}", "files": "/"}
    if len(held) > 1:
        return own | {"clients": f"{held[0]}-{held[-1]}"}
    return own | {"clients": held[0], "partition-id": node, "num-partitions": nodes}


def free_ports(count: int) -> list[int]:
    """Return free ports of the loopback. All are held at once while they are drawn, so they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(count)]
        return [held.getsockname()[1] for held in sockets]


def check_port(port: int) -> None:
    """Check that a port of the loopback is free.

    Raises:
        UserError: it is not, or it is no port.
    """
    if not 1024 <= port <= 65_535:
        raise UserError("--port", f"must be 1024 to 65535, got {port}")
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError as error:
        fix = "Stop the program that has it, or leave --port out: then a free one is taken."
        raise UserError("--port", f"{port} cannot be used: {os.strerror(error.errno or 0)}", fix=fix) from error
