"""CohortGrid: a Flower grid whose clients live in this process.

A lazy cohort from our strategy is trained as one tensor program. Messages of any other strategy are gathered into
cohorts by their model. A user's ClientApp receives its messages one by one, unchanged.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from clients.core.user_code import described
from clients.engines.progress import Progress
from clients.flower.messages import TRAIN, CohortMessages
from clients.flower.shim import FIRST_NODE, Run, claim_identity, empty_run, set_message_id
from simulator.grid.local_clients import LocalClients
from simulator.grid.waiting import WaitWatch


class CohortGrid(Grid):
    """A grid of `num_clients` in-process clients; node id is client + `FIRST_NODE`.

    Args:
        num_clients: clients N.
        local: trains and evaluates the clients; None if `client_app` does. Clients without training examples are then
            no nodes: a strategy that samples nodes, or gives each an equal say, must not count them.
        client_app: a user's ClientApp, called with one message a client.
        run_config: `context.run_config` of the ClientApp.

    Attributes:
        progress: counts the clients whose ClientApp has replied; None where no one listens.
    """

    nodes_by_client = True

    def __init__(
        self,
        num_clients: int,
        local: LocalClients | None = None,
        *,
        client_app: ClientApp | None = None,
        run_config: Mapping[str, bool | int | float | str] | None = None,
    ) -> None:
        assert (local is None) != (client_app is None), "a grid has an engine or a ClientApp"
        claim_identity()
        self._num_clients, self._local, self._app = num_clients, local, client_app
        every = range(FIRST_NODE, FIRST_NODE + num_clients)
        self._nodes: Sequence[int] = every if local is None else local.busy_nodes(every)
        self._run, self._run_config = empty_run(), dict(run_config or {})
        self._contexts: dict[int, Context] = {}
        self._answers: dict[str, Message] = {}
        self._ids = itertools.count()
        self._watch = WaitWatch(len(self._nodes))
        self.progress: Progress | None = None

    def set_run(self, run: Run) -> None:
        """Take Flower's description of the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message (deprecated in Flower; use `Message`)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Sequence[int]:
        """Return the ids of the nodes that may be sent work, in order of client.

        Raises:
            StrategyError: the strategy waits for more nodes, for ever.
        """
        self._watch.polled(sys._getframe(1), "nodes")
        return self._nodes

    def push_messages(self, messages: Iterable[Message]) -> Sequence[str]:
        """Answer messages at once and keep the replies until they are pulled."""
        pushed = []
        for reply in self.send_and_receive(messages):
            pushed.append(reply.metadata.reply_to_message_id)
            self._answers[pushed[-1]] = reply
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Sequence[Message]:
        """Return the replies that have arrived.

        Raises:
            StrategyError: the strategy waits for replies that never come.
        """
        found = [self._answers.pop(i) for i in message_ids if i in self._answers]
        if found:
            self._watch.moved()
        else:
            self._watch.polled(sys._getframe(1), "replies")
        return found

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Return the clients' replies to messages, in order of client. `timeout` is ignored: replies come at once."""
        self._watch.moved()
        if isinstance(messages, CohortMessages) and self._local is not None:
            if messages.kind == TRAIN:
                return self._local.train(messages, messages.work)
            return self._local.evaluate(messages, messages.work)
        ordered = sorted(messages, key=lambda m: m.metadata.dst_node_id)
        for message in ordered:
            set_message_id(message, f"{self._run.run_id}-{next(self._ids)}")
        if not ordered:
            return []
        if self._local is not None:
            return self._local.gather(ordered)
        if self.progress is not None:
            self.progress.begin("work of the clients", len(ordered), "clients")
        return [self._call(message) for message in ordered]

    def _call(self, message: Message) -> Message:
        """Call the user's ClientApp with one message. An exception becomes an error reply, as in Flower."""
        assert self._app is not None
        node = message.metadata.dst_node_id
        context = self._contexts.setdefault(
            node,
            Context(
                run_id=self._run.run_id,
                node_id=node,
                node_config={"partition-id": node - FIRST_NODE, "num-partitions": self._num_clients},
                state=RecordDict(),
                run_config=self._run_config,
            ),
        )
        received = Message(RecordDict(dict(message.content)), metadata=message.metadata)  # type: ignore[call-overload]
        try:
            reply = self._app(received, context)
            if not isinstance(reply, Message):
                raise TypeError(f"the ClientApp returned {type(reply).__name__}, not a Message")
        except Exception as error:
            reply = Message(Error(code=2, reason=described(error)), reply_to=message)
        set_message_id(reply, f"{message.metadata.message_id}-reply")
        if self.progress is not None:
            self.progress.add(1)
        return reply
