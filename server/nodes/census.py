"""The census of nodes with data of their own: sizes, names and the form of an example, and no data."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from clients.core.arrays import I32, I64
from clients.core.errors import DataError, StrategyError
from clients.core.examples import CohortData
from clients.core.population import ClientData, Population
from clients.core.population_parts import ExampleSpec, FederationFacts
from clients.flower.messages import CONFIG, OWN_DATA, QUERY, node_is_gone
from server.nodes.answers import Answer, read_answer
from server.nodes.sending import Sender


@dataclass(frozen=True)
class Census:
    """What nodes with their own data answered, in order of their names.

    Attributes:
        answers: one for each node.
    """

    answers: tuple[Answer, ...]

    @property
    def first_of(self) -> dict[str, int]:
        """The index of each node's first client, by the node's name."""
        ends = np.cumsum([len(a.clients) for a in self.answers]).tolist()
        return {a.name: end - len(a.clients) for a, end in zip(self.answers, ends, strict=True)}

    @property
    def sizes(self) -> I32:
        """Training examples of each client, (N,)."""
        every = [np.zeros(0, np.int64) if a.sizes is None else a.sizes for a in self.answers]
        return np.concatenate(every).astype(np.int32)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the clients, with the node's name."""
        return tuple(f"{a.name}: {name}" if len(a.names) > 1 else a.name for a in self.answers for name in a.names)


def take_census(
    grid: Grid,
    config: Mapping[str, str],
    *,
    nodes: int,
    wait_seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Census:
    """Query nodes until `nodes` of them have answered with their own data.

    Args:
        grid: the grid.
        config: the scenario's text and the server's version.
        nodes: how many nodes the run needs.
        wait_seconds: how long to wait for them.
        clock: monotonic seconds.
        sleep: waits for some seconds.

    Raises:
        StrategyError: too few nodes answered in time, one failed, or two have the same name.
    """
    deadline, found, pause = clock() + wait_seconds, dict[int, Answer](), 0.05
    content = RecordDict({CONFIG: ConfigRecord({**config, OWN_DATA: True})})
    while True:
        here = list(grid.get_node_ids())
        new = [node for node in here if node not in found]
        queries = [Message(content, dst_node_id=node, message_type=QUERY) for node in new]
        left = max(1.0, deadline - clock())
        replies = [reply for reply in Sender(grid, left).send(queries) if not node_is_gone(reply)]
        found |= {answer.node: answer for answer in map(read_answer, replies)}
        if len(found) >= nodes:
            break
        if clock() > deadline:
            problem = f"{len(found)} of {nodes} nodes with data of their own joined within {wait_seconds:.0f} s"
            raise StrategyError(
                "nodes.count", problem, fix="Start more SuperNodes with data=..., or lower nodes.count."
            )
        sleep(pause)
        pause = min(1.5 * pause, 1.0)
    return _checked(sorted(found.values(), key=lambda answer: answer.name))


def _checked(answers: Sequence[Answer]) -> Census:
    for answer in answers:
        if not answer.name or answer.sizes is None or answer.form is None or len(answer.names) != len(answer.clients):
            problem = f"node {answer.node} must name itself and its data to take part with data of its own"
            fix = 'Start it with --node-config \'name="north" data="/path/north.csv"\'.'
            raise StrategyError("nodes", problem, fix=fix)
        if (answer.sizes < 0).any() or (answer.sizes > np.iinfo(np.int32).max).any():
            raise StrategyError("nodes", f"node {answer.name!r:.60} reports a number of examples that cannot be")
    names = [answer.name for answer in answers]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise StrategyError("nodes", f"two nodes have the name {twice[0]!r:.60}", fix="Give each its own: name=...")
    return Census(tuple(answers))


def population_of_nodes(census: Census, spec: ExampleSpec | None, served: Population | None) -> Population:
    """Return the population as the server knows it: sizes and names of the clients, and its own central examples.

    Args:
        census: the nodes' answers.
        spec: what an example is on the server; None takes the nodes' word for it.
        served: the population of the server's own data, whose central examples validate; None for none.

    Raises:
        StrategyError: a node's examples have another form.
    """
    first = census.answers[0]
    assert first.form is not None
    ours = spec if spec is not None else first.form
    for answer in census.answers:
        form = answer.form
        assert form is not None
        if (form.task, form.feature_shape, form.outputs) != (ours.task, ours.feature_shape, ours.outputs):
            of = "the server's" if spec is not None else f"those of node {first.name!r:.60}"
            problem = f"node {answer.name!r:.60} has examples of {_words(form)}, and {of} are {_words(ours)}"
            raise StrategyError("nodes", problem, fix="Give the nodes tables with the same columns and classes.")
    names, sizes = census.names, census.sizes
    name = served.federation.name if served is not None else "data of the nodes' own"
    facts = FederationFacts(name=name, sizes=sizes, client_name=names.__getitem__)
    ours = replace(ours, forecast=None)
    found = Population(spec=ours, federation=facts, clients=ClientData(cohort=_far, elsewhere=True))
    return found if served is None else replace(found, central=served.central)


def _words(spec: ExampleSpec) -> str:
    outputs = "classes" if spec.task == "classification" else "outputs"
    return f"{spec.task} with features {list(spec.feature_shape)} and {spec.outputs} {outputs}"


def _far(clients: I64) -> CohortData:
    problem = f"the data of {len(clients)} clients are on their nodes and do not leave them"
    raise DataError("nodes", problem)
