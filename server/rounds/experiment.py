"""Everything that the round loop needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor, nn

from clients.core.arrays import Array
from clients.core.population import Population
from clients.flower.codec import Codec
from server.algorithms.state import ServerState
from server.certificate.certifier import Certifier
from server.nodes.node_map import NodeMap
from server.nodes.sending import Sender
from server.record.jsonlines import Line
from server.rounds.cohort_metrics import Clock
from server.rounds.judgement import Judge
from server.rounds.model_metrics import ModelMetrics
from server.rounds.observers import Observers
from server.rounds.strategy import FederatedStrategy


class RoundInterrupted(Exception):
    """A round cannot be finished, and the run ends as interrupted after the round before; the text says why."""


class Machinery(Protocol):
    """What runs the clients' work in several processes."""

    def facts(self) -> dict[str, Any]:
        """Return what was measured since the last call, for the line of a round: it depends on the clock."""

    def events(self) -> list[dict[str, Any]]:
        """Return events since the last call, such as the loss of a worker."""


class Checkpointer(Protocol):
    """Keeps client states, client rows and checkpoints."""

    def commit(self, state: ServerState, line: Line, columns: dict[str, Array], scores: dict[str, Array]) -> None:
        """Make a finished round permanent: commit its client states; write a checkpoint when one is due."""

    def rollback(self) -> None:
        """Drop the client states that a failed round staged."""

    def resumable_from(self, round_index: int) -> int:
        """Return the earliest round from which a run may go on that was killed after `round_index`."""


@dataclass(frozen=True)
class Experiment:
    """What `play_round` and `run_rounds` work on. A round changes only the client states in it.

    Attributes:
        strategy: any Flower strategy.
        own: fedscape's strategy, if it is `strategy` or wrapped by it; None where a user's strategy plays.
        grid: any Flower grid.
        nodes: maps clients to the grid's nodes.
        codec: encodes and decodes models.
        population: the clients and their data.
        clock: simulated time.
        model_metrics: measures models.
        judge: derives criteria, totals and rate from the lines of the record.
        observers: receive the moments of the run.
        checkpointer: makes finished rounds permanent.
        rounds: the most rounds to play.
        seed: root seed.
        sender: sends on a grid of real nodes; None where the clients are in this process.
        min_respondents: fewest clients whose updates a round needs, on real nodes.
        machinery: the worker processes; None where all clients are trained in one process.
        module: parameters [P] and buffers [Q] -> a copy of the model with them, for observers.
        stop_requested: called after each round; True interrupts the run there.
        certifier: hashes the state after each round; None where nothing is certified.
    """

    strategy: Strategy
    own: FederatedStrategy | None
    grid: Grid
    nodes: NodeMap
    codec: Codec
    population: Population
    clock: Clock
    model_metrics: ModelMetrics
    judge: Judge
    observers: Observers
    checkpointer: Checkpointer
    rounds: int
    seed: int
    module: Callable[[Tensor, Tensor], nn.Module]
    sender: Sender | None = None
    min_respondents: int = 1
    machinery: Machinery | None = None
    stop_requested: Callable[[], bool] = lambda: False
    certifier: Certifier | None = None

    @property
    def is_foreign(self) -> bool:
        """Whether the strategy is a user's. Flower's strategies draw from Python's and NumPy's global generators."""
        return self.strategy is not self.own
