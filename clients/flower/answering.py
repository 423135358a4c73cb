"""A node's answer to a message: a function of the message, the node's config and its files.

It answers `train` and `evaluate` for the clients that the node holds, and `query` with their indices and sizes.
Messages may come from our strategy or from Flower's own strategies. The latter train a node's one client with the plain
local rule, or FedProx where their config has `proximal-mu`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from clients.core.arrays import I64
from clients.core.errors import StrategyError
from clients.engines.base import Engine
from clients.flower.codec import Codec
from clients.flower.decoding import whole_numbers
from clients.flower.decoding_work import decode_work
from clients.flower.incoming import LARGEST_STAMP, run_name, scenario_text, stamps_of, whole
from clients.flower.messages import (
    CHANNELS,
    CHECKPOINT,
    CLIENTS,
    CONFIG,
    EVALUATE,
    FINISHED,
    FIRST,
    GROUPED,
    METRICS,
    NAME,
    NAMES,
    OUTPUTS,
    OWN_DATA,
    QUERY,
    RUN,
    SCENARIO,
    SHAPE,
    SIZES,
    STAMPS,
    STATE_LOST,
    TASK,
    TOTAL,
    TRAIN,
    VERSION,
    EvaluationReplies,
    encode_evaluations,
    encode_rows,
    encode_update,
)
from clients.flower.node_config import MOST_CLIENTS, NodeConfig
from clients.flower.node_states import StoredStates, read_memory, write_memory
from clients.training.client_states import BUFFERS
from clients.training.losses import SCORE_NAMES
from clients.training.work import CohortWork, LocalWork

Config = Mapping[str, object]


@dataclass(frozen=True)
class ClientTask:
    """What a node needs to train clients of an experiment.

    Attributes:
        engine: trains and evaluates.
        codec: encodes and decodes models.
        local: the client half of the experiment's algorithm.
        version: the version of fedscape on the node.
    """

    engine: Engine
    codec: Codec
    local: LocalWork
    version: str = ""


@dataclass(frozen=True)
class OwnData:
    """Data that a node brings itself.

    Attributes:
        path: where they are.
        first: the server's index of the node's first client.
        total: clients of all nodes; 0 before the server has assigned indices.
    """

    path: str
    first: int = 0
    total: int = 0


Load = Callable[[str, OwnData | None], ClientTask]
"""(text of the scenario, empty where the message has none; the node's own data, or None) -> the task."""


def answer(kind: str, content: RecordDict, node: NodeConfig, load: Load, memory: RecordDict) -> RecordDict:
    """Answer a message.

    Args:
        kind: `MessageType.TRAIN`, `EVALUATE` or `QUERY`.
        content: the message's content.
        node: the node's config.
        load: makes the task; called once a message, so it should cache slow parts.
        memory: `context.state`; it holds the client state of messages that name no run.

    Raises:
        StrategyError: the message, the node's config or the node's files cannot be used.
    """
    config = {k: v for record in content.config_records.values() for k, v in record.items()}
    if kind == QUERY and FINISHED in config:
        StoredStates(node.states, run_name(config[FINISHED])).forget()
        return RecordDict()
    if kind == QUERY and SCENARIO not in config:
        return RecordDict({METRICS: MetricRecord({"client": _only_client(node)})})
    own = _own_data(config, node)
    task = load(scenario_text(config.get(SCENARIO), None if own is not None else node.files), own)
    _check_version(config, task)
    population = task.engine.task.population
    held = np.flatnonzero(population.sizes) if own is not None else node.held(population.num_clients)
    if kind == QUERY:
        return _census(held, task, node)
    clients = _clients(config, held)
    work = decode_work(content, clients, task.codec, task.local)
    if kind == TRAIN:
        return _train(work, config, node, task, memory)
    if kind == EVALUATE:
        return _evaluate(content, work, config, task)
    raise StrategyError("message", f"must be of type {TRAIN}, {EVALUATE} or {QUERY}, got {kind!r:.60}")


def _train(work: CohortWork, config: Config, node: NodeConfig, task: ClientTask, memory: RecordDict) -> RecordDict:
    lost: list[int] = []
    run = config.get(RUN)
    if run is None:
        rows = [read_memory(memory, work.params.dtype)]
    else:
        stored = StoredStates(node.states, run_name(run))
        checkpoint = whole(config, CHECKPOINT, LARGEST_STAMP)
        stamps = stamps_of(config, STAMPS, work.num_clients)
        rows = []
        for client, stamp in zip(work.clients.tolist(), stamps, strict=True):
            found = stored.read(client, stamp, most=_state_bytes(work)) if stamp > 0 and _remembers(task) else {}
            lost += [client] if found is None else []
            rows.append(found or {})
    update, new = task.engine.train(work, _stacked(rows, work))
    if new and run is None:
        write_memory(memory, {name: values[0] for name, values in new.items()})
    elif new:
        for k, client in enumerate(update.clients.tolist()):
            vectors = {name: values[k] for name, values in new.items()}
            stored.write(client, work.round_index, vectors, checkpoint=checkpoint)
    content = (
        encode_rows(update, task.codec, work.round_index)
        if config.get(GROUPED)
        else encode_update(update, 0, task.codec, None if run is None else work.round_index)
    )
    if lost:
        content.metric_records[METRICS][STATE_LOST] = lost
    return content


def _evaluate(content: RecordDict, work: CohortWork, config: Config, task: ClientTask) -> RecordDict:
    name = SCORE_NAMES[task.engine.task.population.task]
    found = task.engine.evaluate(work)
    if config.get(GROUPED):
        return encode_evaluations(found, name)
    reply = EvaluationReplies([], found, name, by_class=True).content(0)
    if CLIENTS in config:  # a node with several clients gets a message for each
        reply.metric_records[METRICS]["client"] = int(found.clients[0])
    return reply


def _own_data(config: Config, node: NodeConfig) -> OwnData | None:
    """Return the node's own data where the run needs them.

    Raises:
        StrategyError: the run needs them and the node has none, or the node has some and the run uses the scenario's.
    """
    if not config.get(OWN_DATA):
        if node.data:
            problem = "names data of the node's own, and the run uses the scenario's"
            fix = "Set nodes.own_data = true in the scenario, or start the SuperNode with clients=..."
            raise StrategyError("node_config.data", problem, fix=fix)
        return None
    if not node.data:
        problem = "is missing, and in this run each node brings data of its own"
        fix = 'Start the SuperNode with --node-config \'name="north" data="/path/north.csv"\'.'
        raise StrategyError("node_config.data", problem, fix=fix)
    first, total = (whole(config, key, MOST_CLIENTS) for key in (FIRST, TOTAL))
    return OwnData(node.data, first, total)


def _census(held: I64, task: ClientTask, node: NodeConfig) -> RecordDict:
    """Return which clients the node holds, their sizes and names, and what an example of its own data is."""
    population = task.engine.task.population
    names = [population.federation.client_name(client) for client in held.tolist()]
    numbers = MetricRecord({CLIENTS: held.tolist(), SIZES: population.sizes[held].tolist()})
    words = ConfigRecord({NAMES: names, VERSION: task.version})
    if node.data:
        spec = population.spec
        channels = [channel.name for channel in spec.channels]
        words.update({NAME: node.name, TASK: spec.task, SHAPE: list(spec.feature_shape), OUTPUTS: spec.outputs})
        words[CHANNELS] = channels
    return RecordDict({METRICS: numbers, CONFIG: words})


def _clients(config: Config, held: I64) -> I64:
    """Return the clients that a message is for: those that it names, else the node's only one.

    Raises:
        StrategyError: it names a client that the node does not hold, or none, and the node holds several.
    """
    if CLIENTS not in config:
        if len(held) != 1:
            problem = f"holds {len(held)} clients, and this strategy's messages train one client a node"
            raise StrategyError("node", problem, fix="Start a SuperNode for each client.")
        return held
    named = config[CLIENTS]
    listed = named if isinstance(named, list) else [named]
    if not 0 < len(listed) <= len(held):
        problem = f"holds {len(held)} clients, and the message is for {len(listed):,}"
        raise StrategyError("node", problem, fix="Restart the server, so that it queries the nodes anew.")
    try:
        clients = np.unique(whole_numbers(listed, ""))
    except ValueError:
        raise StrategyError("message", f"{CLIENTS!r} must list clients, got {named!r:.60}") from None
    missing = np.setdiff1d(clients, held)
    if len(missing) or len(clients) < len(listed):
        problem = f"holds clients {_short(held)}, and the message is for client {(missing.tolist() or listed)[0]}"
        raise StrategyError("node", problem, fix="Restart the server, so that it queries the nodes anew.")
    return clients


def _short(clients: I64) -> str:
    shown = ", ".join(map(str, clients[:8].tolist()))
    return f"{shown}, ... ({len(clients)} in all)" if len(clients) > 8 else shown


def _state_bytes(work: CohortWork) -> int:
    """Return the most bytes of a client's state: its vectors in float64 and a header."""
    return 8 * ((len(work.client_state) + 1) * work.params.numel() + work.buffers.numel()) + (1 << 20)


def _stacked(rows: list[dict[str, Tensor]], work: CohortWork) -> dict[str, Tensor]:
    """Return client states by name, [K, P]: zeros for a client without; its buffers are then the broadcast ones."""
    names = [*work.client_state, *([BUFFERS] if any(BUFFERS in row for row in rows) else [])]
    empty = {name: torch.zeros_like(work.params) for name in names} | {BUFFERS: work.buffers}
    if any(row[name].shape != empty[name].shape for row in rows for name in names if name in row):
        problem = "of this run have another model's size on the node"
        raise StrategyError("states", problem, fix="Start a new run: another scenario has used this run's name.")
    return {name: torch.stack([row.get(name, empty[name]) for row in rows]) for name in names}


def _remembers(task: ClientTask) -> bool:
    return task.local.remembers or task.engine.task.local.buffers == "local"


def _check_version(config: Config, task: ClientTask) -> None:
    """Refuse a server of another version.

    Raises:
        StrategyError: the message names another version than the node's.
    """
    named = config.get(VERSION, task.version)
    if task.version and named != task.version:
        problem = f"of the server is {named!r:.60}, and of this node {task.version!r}"
        raise StrategyError("fedscape's version", problem, fix="Install the same version on the server and its nodes.")


def _only_client(node: NodeConfig) -> int:
    """Return the one client that a node's config names, without the scenario."""
    if node.clients is not None and len(node.clients) == 1:
        return node.clients[0]
    if node.partition is None:
        return int(replace(node, clients=None).held(1)[0])
    return node.partition[0]
