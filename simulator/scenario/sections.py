"""Scenario files: TOML of two levels, checked strictly; errors name the key."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tomli_w
from pydantic import TypeAdapter, ValidationError

from clients.concept_drift.options import DriftOptions
from clients.concept_drift.table import DRIFTS
from clients.core.errors import ScenarioError, require, unknown_name
from clients.core.options import STRICT, DataOptions, check_at_least
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
from simulator.engines.options import EngineOptions
from simulator.grid.options import FleetOptions
from simulator.scenario.kinds import OneOf, check_kinds
from simulator.scenario.mistakes import explain

DEFAULT = "digits-label-skew"


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What is measured besides the central validation of every round.

    Attributes:
        federated_every: rounds between evaluations on the clients; 0 for never.
        federated_clients: at most this many clients evaluate, chosen by seed.
        gradient_every: rounds between measurements of the clients' full gradients (gradient_norm,
            gradient_dissimilarity); 0 for never. At most `federated_clients` clients are measured, and no more than
            fit into `engine.keep_bytes` together.
        baselines: whether the run ends with pooled training and training alone, for comparison.
    """

    __pydantic_config__: ClassVar = STRICT
    federated_every: int = 10
    federated_clients: int = 1000
    gradient_every: int = 0
    baselines: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, 0, "federated_every", "gradient_every")
        check_at_least(self, 1, "federated_clients")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The run: its budget, seed, and how often it is saved.

    Attributes:
        rounds: most rounds.
        seed: root seed of every random number.
        dtype: type of parameters and features.
        checkpoint_seconds: wall seconds between checkpoints.
        checkpoint_rounds: rounds between checkpoints, instead of seconds.
    """

    __pydantic_config__: ClassVar = STRICT
    rounds: int = 100
    seed: int = 0
    dtype: Literal["float32", "float64"] = "float32"
    checkpoint_seconds: float = 10.0
    checkpoint_rounds: int | None = None

    def __post_init__(self) -> None:
        check_at_least(self, 1, "rounds")
        require(0 <= self.seed < 2**63, "seed", f"must be in [0, 2**63), got {self.seed}")
        require(self.checkpoint_seconds > 0, "checkpoint_seconds", f"must be > 0, got {self.checkpoint_seconds}")
        check_at_least(self, 1, "checkpoint_rounds")


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
        engine: how the clients' training is computed.
        run: the budget, the seed, and how often the run is saved.
        name: the scenario's name; the file's by default.
    """

    __pydantic_config__: ClassVar = STRICT
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
    engine: EngineOptions = field(default_factory=EngineOptions)
    run: RunOptions = field(default_factory=RunOptions)
    name: str = ""


@cache
def _adapter() -> TypeAdapter[Scenario]:
    return TypeAdapter(Scenario)


def parse_scenario(table: Mapping[str, Any], *, source: str) -> Scenario:
    """Check a table and return its scenario.

    Args:
        table: as read from TOML, with `--set` already applied.
        source: the name of the file, for messages.

    Raises:
        ScenarioError: the message names the key, the value, what is allowed and the nearest name.
    """
    check_kinds(table, Scenario, source)
    _check_fixed_local(table, source)
    try:
        return _adapter().validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        raise explain(error, source, Scenario) from None


def load_scenario(name: str | Path | None = None, *, sets: Sequence[str] = (), seed: int | None = None) -> Scenario:
    """Read a scenario from a file, or a built-in one by name; without a name, the default.

    Args:
        name: path of a TOML file, or the name of a built-in.
        sets: changes such as "local.local_lr=0.05"; a value is read as TOML, or as text if that fails; an empty value
            removes the key.
        seed: replaces `run.seed`.

    Raises:
        ScenarioError: there is no such scenario, or it is not valid.
    """
    if isinstance(sets, str):
        raise ScenarioError("sets", f"must be a list of changes, got the text {sets!r}", fix=f"Pass [{sets!r}].")
    text, source, stem = _find(_named(name))
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(source, f"is not TOML: {error}") from None
    for change in sets:
        apply_set(table, change)
    if seed is not None:
        table.setdefault("run", {})["seed"] = seed
    table.setdefault("name", stem)
    return parse_scenario(table, source=source)


def apply_set(table: dict[str, Any], change: str) -> None:
    """Apply one `--set section.key=value` to a table, before it is checked.

    Raises:
        ScenarioError: the change does not have that form.
    """
    path, equals, value = change.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ScenarioError("--set", f"must be section.key=value, got {change!r}")
    inner = table
    for key in keys[:-1]:
        inner = inner.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ScenarioError("--set", f"{path}: {key} is a value, not a section")
    if not value.strip():
        inner.pop(keys[-1], None)
        return
    try:
        inner[keys[-1]] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        inner[keys[-1]] = value.strip()


def builtin_names() -> list[str]:
    """Return the names of the built-in scenarios, the default first."""
    folder = resources.files("simulator.scenario") / "builtin"
    names = sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".toml"))
    return sorted(names, key=lambda n: n != DEFAULT)


def to_toml(scenario: Scenario) -> str:
    """Return a scenario as TOML with every default; reading it gives the same scenario."""
    given: object = scenario
    if not isinstance(given, Scenario):
        fix = "Pass fs.to_toml(fs.load_scenario(name))."
        raise ScenarioError("scenario", f"must be a Scenario, got {type(given).__name__}", fix=fix)
    return tomli_w.dumps(_plain(dataclasses.asdict(scenario)))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _named(name: object) -> str | Path:
    if name is None or name == "":
        return DEFAULT
    if not isinstance(name, str | Path):
        problem = f"must be a scenario, a file's path or a built-in's name, got {type(name).__name__}"
        raise ScenarioError("scenario", problem, fix="Write a table to a TOML file, and pass its path.")
    return name


def _find(name: str | Path) -> tuple[str, str, str]:
    """Return the scenario's text, its source and its name."""
    path = Path(name)
    builtins = builtin_names()
    if str(name) in builtins:
        return (
            (resources.files("simulator.scenario") / "builtin" / f"{name}.toml").read_text("utf-8"),
            str(name),
            str(name),
        )
    if not path.is_file():
        problem = unknown_name(str(name), builtins, "a scenario file or a built-in scenario")
        raise ScenarioError("scenario", problem)
    try:
        return path.read_text("utf-8"), str(path), path.stem
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(str(path), f"cannot be read: {error}") from None


def _check_fixed_local(table: Mapping[str, Any], source: str) -> None:
    """Refuse local work that the algorithm would ignore, because its definition fixes local work."""
    algorithm, local = table.get("algorithm"), table.get("local")
    if not isinstance(algorithm, Mapping) or not isinstance(local, Mapping):
        return
    fixed = ALGORITHMS[algorithm["kind"]].fixed_local
    conflict = fixed.conflict(local) if fixed is not None else None
    if fixed is not None and conflict is not None:
        key, value = conflict
        raise ScenarioError(
            f"local.{key}",
            f"is {value!r} in {source}, and {algorithm['kind']} {fixed.words}",
            fix=f"Remove it (--set local.{key}=), or use {fixed.instead}.",
        )
