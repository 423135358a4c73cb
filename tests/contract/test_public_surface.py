"""The public surface: the names of `fedscape`, and rooms (sub-packages) that export nothing by accident."""

from __future__ import annotations

import ast
import dataclasses
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import fedscape
from simulator.scenario.kinds import classes_of, hints_of

# A new public name is added here, in `fedscape.__all__` and in CHANGELOG.md.
PUBLIC = [
    "Aggregate",
    "Aggregation",
    "Algorithm",
    "Bisection",
    "ClientFacts",
    "ClientRows",
    "CohortData",
    "Comparison",
    "DataError",
    "EngineError",
    "Examples",
    "Explanation",
    "FedscapeError",
    "HeterogeneityMeasures",
    "Lesson",
    "LocalResult",
    "LocalRule",
    "PartitionError",
    "PooledArrays",
    "PlayedLesson",
    "Population",
    "Probes",
    "Record",
    "RoundTable",
    "Run",
    "RunFolderError",
    "Scenario",
    "ScenarioError",
    "ServerState",
    "ServerTransform",
    "Snapshot",
    "StepContext",
    "StrategyError",
    "Study",
    "Surface",
    "Tried",
    "Tuning",
    "Uplink",
    "UserError",
    "Verdict",
    "Verification",
    "adagrad",
    "adam",
    "arrays",
    "bisect",
    "branch",
    "builtin_names",
    "chain",
    "clip_norm",
    "clipped",
    "coordinate_median",
    "custom_population",
    "describe_data",
    "explain",
    "lesson",
    "lessons",
    "load_scenario",
    "local_rule",
    "momentum",
    "open_run",
    "open_study",
    "population",
    "probe",
    "proximal",
    "quadratics",
    "resume",
    "sgd",
    "simulate",
    "study",
    "surface",
    "to_toml",
    "top_k",
    "try_change",
    "tune",
    "verify",
    "weighted_mean",
    "yogi",
]

ROOT = Path(fedscape.__file__).parents[1]
PACKAGES = ("clients", "server", "simulator", "dashboards")
ROOMS = sorted(file.parent for package in PACKAGES for file in (ROOT / package).rglob("__init__.py"))
MODULES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
MOST_MODULES, MOST_LINES = 15, 5

every_room = pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(ROOT)))


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"), str(file))


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def test_fedscape_exports_exactly_the_public_names() -> None:
    assert sorted(fedscape.__all__) == sorted(PUBLIC)
    assert len(set(PUBLIC)) == len(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_resolves_to_a_documented_object(name: str) -> None:
    assert name in dir(fedscape)
    assert getattr(fedscape, name).__doc__


def test_options_has_the_documented_class_of_every_section_and_kind() -> None:
    names = dir(fedscape.options)
    assert "options" in dir(fedscape)
    for hint in hints_of(fedscape.Scenario).values():
        assert {cls.__name__ for cls in classes_of(hint)} <= set(names)
    for name in names:
        cls = getattr(fedscape.options, name)
        assert cls.__name__ == name
        assert dataclasses.is_dataclass(cls)
        assert cls.__doc__
    with pytest.raises(AttributeError, match=r"has no class 'FedproxOptions'\. Nearest: FedProxOptions\."):
        fedscape.options.FedproxOptions  # noqa: B018


def test_every_folder_of_modules_is_a_room() -> None:
    assert {file.parent for file in MODULES} == set(ROOMS)


@every_room
def test_room_describes_itself_in_at_most_five_lines(room: Path) -> None:
    words = ast.get_docstring(parsed(room / "__init__.py"))
    assert words
    assert len(words.splitlines()) <= MOST_LINES


@every_room
def test_room_exports_no_name(room: Path) -> None:
    """An `__init__` may act (`clients` switches Flower's telemetry off), but it binds only standard modules."""
    names = {name for name in bound_names(parsed(room / "__init__.py")) if not is_private(name)}
    assert names <= sys.stdlib_module_names


def bound_names(module: ast.Module) -> Iterator[str]:
    """Yield every name that a module binds."""
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


@every_room
def test_room_holds_at_most_fifteen_modules(room: Path) -> None:
    modules = [file.stem for file in room.glob("*.py") if not file.stem.startswith("__")]
    assert len(modules) <= MOST_MODULES, modules


@pytest.mark.parametrize("package", PACKAGES)
def test_private_names_stay_in_their_room(package: str) -> None:
    found = [
        f"{file.relative_to(ROOT)}:{line}: {name}"
        for file in MODULES
        if file.relative_to(ROOT).parts[0] == package
        for line, name in private_uses(file)
    ]
    assert found == []


def private_uses(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line and name of each private module or name that a module takes from another room."""
    foreign: set[str] = set()
    for line, path, name in imports(parsed(file)):
        if path.split(".")[0] in PACKAGES and room_of(path) != file.parent:
            foreign.add(name)
            if any(is_private(part) for part in path.split(".")):
                yield line, path
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and ast.unparse(node.value) in foreign:
            yield node.lineno, ast.unparse(node)


def imports(module: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Yield the line, the dotted path and the local name of each import."""
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}", alias.asname or alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, alias.asname or alias.name


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions count too: they would only hide a circle."""
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in MODULES}
    graph = {name: {m for m in uses(file, names) if m != name} for name, file in names.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def uses(file: Path, names: Mapping[str, Path]) -> Iterator[str]:
    """Yield the modules that a module imports."""
    for _, path, _ in imports(parsed(file)):
        module = path if path in names else path.rpartition(".")[0]
        if module in names:
            yield module


def room_of(path: str) -> Path:
    """Return the folder of the innermost room that a dotted path goes through."""
    room = ROOT
    for part in path.split("."):
        if not (room / part).is_dir():
            break
        room /= part
    return room
