"""A scenario: its sections, and how it is loaded from a file, a built-in or Python; errors name the key."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w

from clients.concept_drift.options import DriftOptions
from clients.concept_drift.table import DRIFTS
from clients.core.errors import ScenarioError, require
from clients.core.numbers.bounds import AtMost, Rounds, Within
from clients.core.options import DataOptions, check_at_least
from clients.core.shown.urls import bare_urls
from clients.faults.options import FaultOptions
from clients.faults.table import FAULTS
from clients.federation.data_kinds import DATA
from clients.federation.options import FeatureOptions
from clients.models.options import ModelOptions
from clients.models.table import MODELS
from clients.partition.options import PartitionOptions
from clients.partition.table import PARTITIONS
from clients.training.options import LocalOptions
from clients.world.options import WorldOptions
from server.algorithms.options import AlgorithmOptions, FedAvgOptions
from server.algorithms.table import ALGORITHMS
from server.convergence.monitor import ConvergenceOptions
from server.nodes.options import NodeOptions
from simulator.engines.options import EngineOptions
from simulator.grid.options import FleetOptions
from simulator.scenario.changes import adapt_to_kinds, apply_changes, changes_of
from simulator.scenario.fixed_local import adapt_local, check_fixed_local
from simulator.scenario.kinds import OneOf, check_kinds, hints_of
from simulator.scenario.mistakes import first_of
from simulator.scenario.own_clients import adapt_partition
from simulator.scenario.plain import all_values, given_values, kind_of, plain, plain_table
from simulator.scenario.reading import Reader, read_table
from simulator.scenario.sources import BLANK, DEFAULT, PYTHON, Source, builtin_names, find
from simulator.scenario.unread import Path as Keys
from simulator.scenario.unread import paths_in, unread_keys

__all__ = [
    "BLANK",
    "DEFAULT",
    "Scenario",
    "ScenarioSource",
    "builtin_names",
    "load_scenario",
    "parse_scenario",
    "to_toml",
]

_LOGIN = re.compile(r"://[^\s/?#]*(@|%40)")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What is measured besides the central validation of every round.

    Attributes:
        federated_every: rounds between evaluations on the clients; 0 for never.
        federated_clients: at most this many clients evaluate, chosen by seed.
        gradient_every: rounds between measurements of the clients' full gradients (gradient_norm,
            gradient_dissimilarity); 0 for never. At most `federated_clients` clients are measured, and no more than
            fit into `engine.keep_bytes` together.
        objective_every: rounds between measurements of the global objective f(w) = sum p_k F_k(w) on the training data
            of all clients (`objective`), round 0 and the last round included; 0 for never. p_k are the weights that the
            aggregation gives to the clients if all take part with equal work. F_k is the mean training loss, without
            dropout and augmentation, plus the penalties l1 and l2. Each costs a pass over all training data.
        test_every: rounds between evaluations on the central test examples (`test_loss`, `test_accuracy`, ...), round
            0 and the last round included; 0 for the final model alone. No criterion, target or other decision of a run
            looks at them.
        adapt_every: rounds between evaluations after adaptation (`adapted_loss`, ...), round 0 and the last round
            included; 0 for never. At most `federated_clients` clients train the server's model for `adapt_steps` local
            steps on their own training data, and evaluate the result on the examples that they hold out.
        adapt_steps: local steps of that adaptation, by [local] without the algorithm's correction.
        baselines: whether the run ends with pooled training and training alone, for comparison.
    """

    federated_every: Rounds = 10
    federated_clients: AtMost = 1000
    gradient_every: Rounds = 0
    objective_every: Rounds = 0
    test_every: Rounds = 0
    adapt_every: Rounds = 0
    adapt_steps: Annotated[int, Within(1, 10**6, why="each is a batch of every client")] = 5
    baselines: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, 0, "federated_every", "gradient_every", "objective_every", "test_every", "adapt_every")
        check_at_least(self, 1, "federated_clients", "adapt_steps")

    def unread(self) -> dict[str, str]:
        """Return why a key has no effect, for each key that other keys leave without one."""
        return {} if self.adapt_every else {"adapt_steps": "no client adapts the model (evaluation.adapt_every = 0)"}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The run: its budget, seed, and how often it is saved.

    Attributes:
        rounds: most rounds.
        seed: root seed of every random number.
        dtype: type of parameters and features.
        checkpoint_seconds: wall seconds between checkpoints.
        checkpoint_rounds: rounds between checkpoints, instead of seconds.
        keep_parameters_every: rounds between copies of the model's parameters that stay in the run's folder
            (`parameters/`, one safetensors file each; `run.parameters(round)` reads one), round 0 and the last round
            included; 0 for none.
        keep_checkpoints_every: rounds between whole checkpoints that stay in the run's folder (`checkpoints/`), round
            0 included, from which `fedscape branch` starts; 0 for none.
        certificate: "state" writes a hash of the state after each round into the record, and those of its tensors into
            `certificate.jsonl`; "clients" also one of each client's update; "off" writes none.
    """

    rounds: Rounds = 100
    seed: Annotated[int, Within(0, 2**63 - 1, why="random numbers are addressed by an int64")] = 0
    dtype: Literal["float32", "float64"] = "float32"
    checkpoint_seconds: float = 10.0
    checkpoint_rounds: Rounds | None = None
    keep_parameters_every: Rounds = 0
    keep_checkpoints_every: Rounds = 0
    certificate: Literal["state", "clients", "off"] = "state"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "rounds")
        require(0 <= self.seed < 2**63, "seed", f"must be in [0, 2**63), got {self.seed}")
        require(self.checkpoint_seconds > 0, "checkpoint_seconds", f"must be > 0, got {self.checkpoint_seconds}")
        check_at_least(self, 1, "checkpoint_rounds")
        check_at_least(self, 0, "keep_parameters_every", "keep_checkpoints_every")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One experiment. `data` and `model` may be missing if they are passed from Python.

    Attributes:
        title: one line of description.
        data: where the clients' examples come from.
        partition: which client holds which example, for data without clients of their own.
        world: the generated city.
        faults: what is wrong with the training data, by the user's names, in the order in which they are applied.
        drifts: how the data change during training, by the user's names, in the order in which they are applied.
        features: how the features are processed before training.
        model: what is trained.
        local: what a client does in a round.
        algorithm: how clients' updates become the next model.
        evaluation: what is measured besides the central validation of every round.
        convergence: when the run ends.
        fleet: the speed of devices and links.
        nodes: how long a run on real nodes waits, and which replies it uses.
        engine: how the clients' training is computed.
        run: the budget, the seed, and how often the run is saved.
        name: the scenario's name; the file's by default.
        notices: what was dropped or replaced when it was loaded, in sentences; it is no key of a file.
        named: paths of the keys that the user set, in a file, a table or by `--set`; None where that is not known. It
            is no key of a file.

    Made from option classes in Python, it is checked as a file is, with a `ScenarioError` that names the key. A
    section may also be a table.
    """

    title: str = ""
    data: Annotated[DataOptions, OneOf(DATA)] | None = None
    partition: Annotated[PartitionOptions, OneOf(PARTITIONS)] | None = None
    world: WorldOptions | None = None
    faults: dict[str, Annotated[FaultOptions, OneOf(FAULTS)]] = field(default_factory=dict)
    drifts: dict[str, Annotated[DriftOptions, OneOf(DRIFTS)]] = field(default_factory=dict)
    features: FeatureOptions = field(default_factory=FeatureOptions)
    model: Annotated[ModelOptions, OneOf(MODELS)] | None = None
    local: LocalOptions = field(default_factory=LocalOptions)
    algorithm: Annotated[AlgorithmOptions, OneOf(ALGORITHMS)] = field(default_factory=FedAvgOptions)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    convergence: ConvergenceOptions = field(default_factory=ConvergenceOptions)
    fleet: FleetOptions = field(default_factory=FleetOptions)
    nodes: NodeOptions = field(default_factory=NodeOptions)
    engine: EngineOptions = field(default_factory=EngineOptions)
    run: RunOptions = field(default_factory=RunOptions)
    name: str = ""
    notices: tuple[str, ...] = field(default=(), compare=False, metadata={"is_key": False})
    named: frozenset[Keys] | None = field(default=None, compare=False, repr=False, metadata={"is_key": False})

    def __post_init__(self) -> None:
        reader = Reader(Scenario, PYTHON)
        sections = {key: plain_table(getattr(self, key), key) for key in hints_of(Scenario)}
        check_kinds({key: kind_of(value) for key, value in sections.items()}, Scenario, PYTHON)
        for key, hint in hints_of(Scenario).items():
            value = reader.value(sections[key], hint, key)
            if value is not getattr(self, key):
                object.__setattr__(self, key, value)
        if reader.mistakes:
            raise first_of(reader.mistakes, PYTHON)
        check_fixed_local(self.algorithm.kind, given_values(self.local), PYTHON)


ScenarioSource = Scenario | Mapping[str, Any] | str | Path | None
"""What describes a scenario: itself, a table, a file's path, or a built-in's name; None is the default scenario."""


def parse_scenario(table: Mapping[str, Any], *, source: str) -> Scenario:
    """Check a table and return its scenario.

    Args:
        table: as read from TOML, with `--set` already applied; or from Python.
        source: the name of the file, for messages.

    Raises:
        ScenarioError: the message names the key, the value, what is allowed and the nearest name.
    """
    table = plain(table)
    _refuse_passwords(table, source)
    check_kinds(table, Scenario, source)
    algorithm, local = table.get("algorithm"), table.get("local")
    if isinstance(algorithm, Mapping) and isinstance(local, Mapping):
        check_fixed_local(algorithm["kind"], local, source)
    return read_table(Scenario, table, source)


def _refuse_passwords(value: Any, source: str, path: str = "") -> None:
    """Refuse a URL with a login in any text: every record and report of a run holds its whole scenario."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_passwords(item, source, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_passwords(item, source, path)
    elif isinstance(value, str) and _LOGIN.search(value):
        problem = f"has a URL with a login ({bare_urls(value)!r}), and every record of a run holds its scenario"
        raise ScenarioError(path, f"{problem} ({source})", fix="Leave the login out.")


def load_scenario(
    scenario: ScenarioSource = None, *, sets: Sequence[str] | Mapping[str, Any] = (), seed: int | None = None
) -> Scenario:
    """Return a scenario from a file, a built-in's name or a table; without any, the default.

    Args:
        scenario: path of a TOML file; the name of a built-in, or "blank" for nothing but defaults; a table such as
            `{"data": {"kind": "digits"}, "run": {"rounds": 5}}`, whose sections may be option classes of
            `fedscape.options`; or a `Scenario`.
        sets: changes such as "local.local_lr=0.05", as after `--set`, or a table such as `{"local.local_lr": 0.05}`.
            A key without its section is found; an empty value or None removes the key. A new `kind` drops the keys
            that it does not have; the scenario's `notices` say which.
        seed: replaces `run.seed`.

    Raises:
        ScenarioError: there is no such scenario, or it is not valid.

    Example:
        >>> load_scenario({"run": {"rounds": 5}}, sets=["local_lr=0.2"]).local.local_lr
        0.2
    """
    changes = changes_of(sets)
    if isinstance(scenario, Scenario):
        if not changes and seed is None:
            return scenario
        table = {key: getattr(scenario, key) for key in hints_of(Scenario)}
        source, notices, named = Source(plain(table), PYTHON, scenario.name), list(scenario.notices), scenario.named
    else:
        source, notices = _source(scenario), []
        named = frozenset() if source.is_builtin else None
    changed = apply_changes(source.table, changes, Scenario)
    adapt_to_kinds(changed, source.table, Scenario)
    adapt_local(changed, source.table)
    adapt_partition(changed, source.table)
    run = changed.table.setdefault("run", {})
    if seed is not None and isinstance(run, dict):
        run["seed"] = seed
    changed.table.setdefault("name", source.name)
    made = parse_scenario(changed.table, source=source.words)
    by_themselves = unread_keys(made)  # a run adds these
    idle = [words for words in unread_keys(made, changed.paths) if words not in by_themselves]
    named = frozenset(paths_in(source.table)) if named is None else named
    return dataclasses.replace(made, notices=(*notices, *changed.notices, *idle), named=named | changed.paths)


def to_toml(scenario: Scenario) -> str:
    """Return a scenario as TOML with every default; reading it gives the same experiment.

    Keys of [local] that the algorithm fixes have the algorithm's values. Notices are comments at the start.
    """
    given: object = scenario
    if not isinstance(given, Scenario):
        fix = "Pass fs.to_toml(fs.load_scenario(name))."
        raise ScenarioError("scenario", f"must be a Scenario, got {type(given).__name__}", fix=fix)
    fixed = ALGORITHMS.row_of(scenario.algorithm).fixed_local
    local = scenario.local if fixed is None else dataclasses.replace(scenario.local, **fixed.values)
    table = {**all_values(scenario), "local": all_values(local)}
    return "".join(f"# {_printable(notice)}\n" for notice in scenario.notices) + tomli_w.dumps(table)


def _printable(text: str) -> str:
    """Return a text as TOML allows it in a comment: the names of faults may have any character."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _source(scenario: object) -> Source:
    if scenario is None or scenario == "":
        return find(DEFAULT)
    if isinstance(scenario, Mapping):
        return Source(plain(scenario), PYTHON, "scenario")
    if isinstance(scenario, str | Path):
        return find(scenario)
    problem = f"must be a scenario, a table, a file's path or a built-in's name, got {type(scenario).__name__}"
    raise ScenarioError("scenario", problem, fix="Such as {'data': {'kind': 'digits'}, 'run': {'rounds': 5}}.")
