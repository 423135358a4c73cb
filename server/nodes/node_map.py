"""The map from clients to Flower nodes, and what a message to a node carries."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import overload

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from clients.core.arrays import I32, I64
from clients.core.errors import StrategyError
from clients.flower.messages import (
    CHECKPOINT,
    CLIENTS,
    CONFIG,
    FINISHED,
    FIRST,
    GROUPED,
    OWN_DATA,
    QUERY,
    RUN,
    STAMPS,
    TOTAL,
    Parcel,
    node_is_gone,
)
from clients.flower.shim import FIRST_NODE
from server.nodes.admission import Admission
from server.nodes.answers import Answer, read_answer
from server.nodes.sending import Sender

WAIT_SECONDS = 120.0
"""How long the start waits until every client has a node, unless the scenario says otherwise."""
LAST_WORDS_SECONDS = 10.0
"""How long the end of a run waits for the nodes to delete client states."""


class NodeMap:
    """Maps clients to nodes: by arithmetic on an in-process grid, elsewhere by one query to every node.

    A node answers a `query` with its clients; see `clients.flower.answering`. A user's ClientApp may answer with
    `client`, its partition id.

    Args:
        num_clients: clients N.
        config: keys of every message to a node, such as the scenario's text.
        sizes: training examples of each client (N,), with which the nodes' must agree; None checks nothing.
        wait_seconds: how long the start waits until every client has a node.
        own: index of the first client of each node with data of its own, by the node's name; None where the clients are
            the scenario's.
        admission: which replies are used.
        one_each: send one message for each client even where a node holds several: a strategy that wraps ours sees
            clients, not nodes.

    Attributes:
        run: the run's name, under which nodes keep client states.
        checkpoint: the round of the newest checkpoint.
    """

    def __init__(
        self,
        num_clients: int,
        *,
        config: Mapping[str, str] | None = None,
        sizes: I32 | None = None,
        wait_seconds: float | None = None,
        one_each: bool = False,
        own: Mapping[str, int] | None = None,
        admission: Admission | None = None,
    ) -> None:
        self.one_each, self.run, self.checkpoint = one_each, "", 0
        self.admission = admission or Admission(np.zeros(num_clients, np.int32))
        self._num_clients, self._config, self._sizes = num_clients, dict(config or {}), sizes
        self._wait, self._own = wait_seconds, own
        self._first: dict[int, int] = {}
        self._node_of: I64 | None = None  # Flower's ids are unsigned, 64 bits wide, and never 0: kept as their bits
        self._held: dict[int, I64] = {}
        self._refused, self._silent = set[int](), set[int]()
        self._refusals: list[str] = []
        self._trained = np.zeros(num_clients, np.int64)
        self._lost: set[int] = set()

    def on(self, grid: Grid) -> Callable[[I64], Sequence[Parcel]]:
        """Return clients (K,) -> the messages to make; the first call queries the nodes, later ones new nodes."""
        if getattr(grid, "nodes_by_client", False):
            return OneEach
        if self._node_of is None:
            self._wait_for_all(grid)
        else:
            self._look(grid, WAIT_SECONDS if self._wait is None else self._wait)
        return self._parcels

    def client_of(self, node: int) -> int:
        """Return the client that a node holds; of a node that holds several, the first."""
        held = self._held.get(node)
        return int(held[0]) if held is not None and len(held) else node - FIRST_NODE

    def names_of(self, clients: Iterable[int]) -> str:
        """Return clients as a text, such as "4, 5, 6, 7"."""
        listed = sorted(clients)
        shown = ", ".join(map(str, listed[:8]))
        return f"{shown}, ... ({len(listed)} in all)" if len(listed) > 8 else shown

    def committed(self, round_index: int, clients: I64) -> None:
        """Take the clients whose updates a finished round counts: they go on from their states of this round."""
        self._trained[clients] = round_index

    def restore(self, rounds: I64, clients: I64) -> None:
        """Take all rounds of a record: `clients[i]` took part in `rounds[i]`."""
        np.maximum.at(self._trained, clients, rounds)

    def take_lost(self) -> list[int]:
        """Return the clients without a node since the last call, increasing."""
        lost, self._lost = sorted(self._lost), set()
        return lost

    def take_refusals(self) -> list[str]:
        """Return why nodes that joined after the start were not taken, since the last call."""
        refusals, self._refusals = self._refusals, []
        return refusals

    def finish(self, grid: Grid) -> None:
        """Have the nodes delete the client states of the run, which is over."""
        if not self.run or self._node_of is None:
            return
        content = RecordDict({CONFIG: ConfigRecord({FINISHED: self.run})})
        messages = [Message(content, dst_node_id=node, message_type=QUERY) for node in self._held]
        Sender(grid, LAST_WORDS_SECONDS).send(messages)

    def _parcels(self, clients: I64) -> list[Parcel]:
        """Return one message for each client, or for each node with clients of the cohort; none to a client without."""
        assert self._node_of is not None
        nodes = self._node_of[clients]
        self._lost.update(clients[nodes == 0].tolist())
        if self.one_each:
            return [self._parcel(int(n), np.array([k]), clients) for k, n in enumerate(nodes.tolist()) if n]
        order = np.argsort(nodes, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(nodes[order])) + 1) if len(order) else []
        found = [self._parcel(int(nodes[group[0]]), np.sort(group), clients) for group in groups if nodes[group[0]]]
        return sorted(found, key=lambda parcel: int(parcel.clients[0]))

    def _parcel(self, node: int, places: I64, clients: I64) -> Parcel:
        held = clients[places]
        config: dict[str, bool | int | str | list[int]] = dict(self._config)
        if self._config:
            config |= {CLIENTS: held.tolist(), GROUPED: not self.one_each, CHECKPOINT: self.checkpoint}
            config |= {STAMPS: self._trained[held].tolist()} | ({RUN: self.run} if self.run else {})
        node %= 2**64
        if self._own is not None:
            config |= {OWN_DATA: True, FIRST: self._first[node], TOTAL: self._num_clients}
        return Parcel(node, places, config)

    def _indices(self, answer: Answer) -> I64:
        """Return the server's indices of a node's clients.

        Raises:
            StrategyError: the node has data of its own, and another name than those of the run's start.
        """
        if self._own is None:
            return answer.clients
        first = self._own.get(answer.name)
        if first is None:
            problem = f"node {answer.name!r:.60} was not there when the run began, and brings clients of its own"
            raise StrategyError("nodes", problem, fix="Start the run again with it.")
        return answer.clients + first

    def _wait_for_all(self, grid: Grid) -> None:
        """Wait until every client has a node.

        Raises:
            StrategyError: too few nodes joined or answered in time, a node failed, or two hold the same client.
        """
        wait = WAIT_SECONDS if self._wait is None else self._wait
        deadline, self._node_of = time.monotonic() + wait, np.zeros(self._num_clients, np.int64)
        pause = 0.05
        try:
            while not self._node_of.all():
                joined = self._look(grid, deadline - time.monotonic(), strict=True)
                if self._node_of.all():
                    break
                if time.monotonic() > deadline:
                    raise self._too_few(joined, wait)
                time.sleep(pause)
                pause = min(1.5 * pause, 1.0)
        except BaseException:
            self._node_of = None
            raise

    def _too_few(self, joined: int, wait: float) -> StrategyError:
        assert self._node_of is not None
        without = np.flatnonzero(self._node_of == 0)
        problem = f"{len(without)} of {self._num_clients} clients have no node after {wait:.0f} s: "
        problem += f"{self.names_of(without.tolist())}; {joined} nodes joined"
        fix = "Start SuperNodes that hold them, --node-config 'clients=\"0-9\"', and read the logs of the nodes."
        return StrategyError("nodes", problem, fix=fix)

    def _look(self, grid: Grid, seconds: float = WAIT_SECONDS, *, strict: bool = False) -> int:
        """Query nodes that are new, and forget those that are gone; return how many there are.

        A node that was refused is queried again once another has left, whose clients it may hold.

        Args:
            grid: the grid.
            seconds: how long to wait for answers.
            strict: whether a node that fails its query, or holds what another one holds, is an error.
        """
        assert self._node_of is not None
        here = list(grid.get_node_ids())
        self._silent &= set(here)
        if left := (self._held.keys() | self._refused) - set(here):
            for node in left & self._held.keys():
                gone = self._held.pop(node)
                self._node_of[gone[self._node_of[gone] == _signed(node)]] = 0
            self._refused.clear()
        new = [n for n in here if n not in self._held and n not in self._refused | self._silent]
        keys: dict[str, bool | str] = {**self._config, **({OWN_DATA: True} if self._own is not None else {})}
        record = RecordDict({CONFIG: ConfigRecord(dict(keys))} if keys else {})
        queries = [Message(record, dst_node_id=node, message_type=QUERY) for node in new]
        replies = Sender(grid, max(1.0, seconds)).send(queries)
        if not strict:  # a node that is silent now would hold up every round
            answered = {reply.metadata.reply_to_message_id for reply in replies}
            silent = {q.metadata.dst_node_id for q in queries if q.metadata.message_id not in answered}
            self._refusals += [f"node {node} did not answer its query in {seconds:.0f} s" for node in sorted(silent)]
            self._silent |= silent
        for reply in replies:
            if node_is_gone(reply):
                continue
            try:
                self._take(reply)
            except StrategyError as error:
                if strict:
                    raise
                self._refused.add(reply.metadata.src_node_id)
                self._refusals.append(error.problem)
        return len(here)

    def _take(self, reply: Message) -> None:
        """Take a node's answer.

        Raises:
            StrategyError: it failed, or its clients are unknown, have another node, or other sizes.
        """
        assert self._node_of is not None
        answer = read_answer(reply, self._num_clients)
        node, held = answer.node, self._indices(answer)
        unknown = held[(held < 0) | (held >= self._num_clients)]
        taken = unknown if len(unknown) else held[self._node_of[held] != 0]
        if len(taken) or len(np.unique(held)) < len(held):
            client = taken[0] if len(taken) else held[0]
            fix = f"Give each of the clients 0 to {self._num_clients - 1} one node."
            raise StrategyError("nodes", f"node {node} holds client {client}, which is taken or unknown", fix=fix)
        if self._sizes is not None and answer.sizes is not None and not (self._sizes[held] == answer.sizes).all():
            k = int(np.flatnonzero(self._sizes[held] != answer.sizes)[0])
            problem = f"node {node} has {answer.sizes[k]} training examples of client {held[k]}"
            problem += f", and the scenario {self._sizes[held[k]]}"
            raise StrategyError("nodes", problem, fix="Put the same files on the server and on the node.")
        self._node_of[held] = _signed(node)
        self._held[node] = held
        self._first[node] = int(held[0]) if self._own and len(held) else 0


class OneEach(Sequence[Parcel]):
    """A message for each client of a cohort on an in-process grid, made as they are read."""

    def __init__(self, clients: I64) -> None:
        self._clients = clients

    def __len__(self) -> int:
        """Return the number of clients."""
        return len(self._clients)

    @overload
    def __getitem__(self, index: int) -> Parcel: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Parcel]: ...
    def __getitem__(self, index: int | slice) -> Parcel | Sequence[Parcel]:
        """Return one, or some."""
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        k = range(len(self))[index]
        return Parcel(int(self._clients[k]) + FIRST_NODE, np.array([k]))


def _signed(node: int) -> int:
    """Return the bits of an unsigned id as a signed number."""
    return node - 2**64 if node >= 2**63 else node
