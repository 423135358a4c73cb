"""Runs on real nodes: what the server knows of them, how it sends, and what a node makes of the scenario."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flwr.app import Message
from flwr.serverapp import Grid

from clients.core.errors import ScenarioError, StrategyError
from clients.core.population import Population
from clients.federation.own_clients import numbered_from
from clients.flower.answering import OwnData
from clients.flower.messages import SCENARIO, TRAIN, VERSION, CohortMessages
from clients.tables.options import TableOptions
from server.nodes.admission import Admission
from server.nodes.census import population_of_nodes, take_census
from server.nodes.node_map import NodeMap
from server.nodes.sending import Sender
from server.record.environment import installed_version
from simulator.runs.building import Overrides, population_of
from simulator.scenario.sections import Scenario, to_toml


def is_local(grid: Grid) -> bool:
    """Return whether a grid's clients are in this process."""
    return bool(getattr(grid, "nodes_by_client", False))


def node_map(scenario: Scenario, given: Overrides, population: Population) -> NodeMap:
    """Return the map of clients to nodes. Nodes make the scenario's data and model from the text in their messages."""
    options = scenario.nodes
    travels = given.grid is not None and not is_local(given.grid) and not _from_python(given)
    return NodeMap(
        population.num_clients,
        config=_config(scenario) if travels else None,
        sizes=population.sizes if travels else None,
        wait_seconds=options.join_seconds,
        own=given.first_of,
        admission=Admission(
            population.sizes,
            options.max_update_norm,
            options.exclude_after,
            faults=lambda round_index: population.during(round_index).history.faults,
        ),
    )


def sender_of(scenario: Scenario, grid: Grid) -> Sender:
    """Return what sends messages to nodes, with the scenario's times and repeats."""
    options = scenario.nodes

    def enough(sent: Sequence[Message], replies: Sequence[Message]) -> bool:
        if not isinstance(sent, CohortMessages) or sent.kind != TRAIN:
            return bool(replies)
        clients = sum(len(sent.clients_of(reply)) for reply in replies)
        return clients >= min(options.min_respondents, sent.num_clients)

    return Sender(grid, options.timeout_seconds, options.retries, enough)


def check_own_data(scenario: Scenario, given: Overrides) -> None:
    """Refuse what cannot go with nodes that bring data of their own.

    Raises:
        UserError: the key that cannot.
    """
    if not scenario.nodes.own_data:
        return
    if given.grid is None or is_local(given.grid):
        problem = "is true, and the clients are in this process"
        raise ScenarioError(
            "nodes.own_data", problem, fix="Start it on nodes: flwr run . <federation>, or leave it out."
        )
    if _from_python(given):
        raise StrategyError("nodes.own_data", "cannot be used with model=, data= or algorithm= from Python")
    _table_of(scenario)
    simulated = {"world": scenario.world, "faults": scenario.faults, "drifts": scenario.drifts}
    for section, value in simulated.items():
        if value:
            problem = "is for simulated data, and each node brings data of its own"
            raise ScenarioError(section, problem, fix="Leave it out.")
    evaluation = scenario.evaluation
    for key in ("baselines", "gradient_every", "objective_every"):
        if getattr(evaluation, key):
            problem = "needs the clients' data, which are on the nodes"
            raise ScenarioError(f"evaluation.{key}", problem, fix="Leave it out.")


def with_census(scenario: Scenario, given: Overrides) -> Overrides:
    """Return the parts with the population of the nodes' own data, as far as the server knows it.

    Raises:
        UserError: too few nodes answer, or their data do not fit together.
    """
    if not scenario.nodes.own_data or given.grid is None:
        return given
    options = scenario.nodes
    census = take_census(given.grid, _config(scenario), nodes=options.count, wait_seconds=options.join_seconds)
    served = population_of(of_one_table(scenario), Overrides()) if options.validates else None
    found = population_of_nodes(census, served.spec if served is not None else None, served)
    return replace(given, nodes=found, first_of=census.first_of)


def own_population(scenario: Scenario, own: OwnData) -> Population:
    """Return the population of a node's own data: read as the scenario says, at the server's indices.

    Raises:
        UserError: they cannot be read.
    """
    population = population_of(of_one_table(scenario, own.path), Overrides())
    return numbered_from(population, own.first, own.total) if own.total else population


def of_one_table(scenario: Scenario, path: str = "") -> Scenario:
    """Return the scenario of one node's own table, by default of the server's. A table without clients is one client.

    Raises:
        ScenarioError: the data are no table, or are scaled by what no single node knows.
    """
    data = _table_of(scenario)
    is_whole = data.task != "forecast" and not data.id_column and data.layout == "wide"
    data = replace(data, path=path or data.path, layout="files" if is_whole else data.layout)
    return replace(scenario, data=data, partition=None)


def _table_of(scenario: Scenario) -> TableOptions:
    """Return how the nodes' tables are read.

    Raises:
        ScenarioError: the data are no table, or are scaled by what no single node knows.
    """
    data = scenario.data
    if not isinstance(data, TableOptions):
        kind = getattr(data, "kind", None)
        problem = f"is {kind!r}, and data of the nodes' own are tables"
        raise ScenarioError("data.kind", problem, fix="Set data.kind = 'table'.")
    if data.scale == "global" or (data.scale is None and data.task != "forecast"):
        problem = "must be 'client' or 'none': no node knows the mean of all nodes' data"
        raise ScenarioError("data.scale", problem, fix="Set data.scale = 'client'.")
    if data.task == "classification" and not data.classes:
        problem = "is missing, and a node may not have all classes"
        raise ScenarioError("data.classes", problem, fix='Such as data.classes = ["no", "yes"].')
    return data


def _from_python(given: Overrides) -> bool:
    return given.model is not None or given.population is not None or given.algorithm is not None


def _config(scenario: Scenario) -> dict[str, str]:
    return {SCENARIO: to_toml(scenario), VERSION: installed_version()}
