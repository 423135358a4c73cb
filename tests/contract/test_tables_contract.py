"""Every row of the scenario tables has the properties listed here: one test for each property."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any, Literal, get_type_hints

import pytest

from clients.concept_drift.table import DRIFTS
from clients.core.errors import UserError
from clients.core.rows import Lazy, Row, Table
from clients.faults.table import EFFECTS, FAULTS, LabelFaultRow, SensorFaultRow
from clients.federation.data_kinds import DATA
from clients.models.table import MODELS
from clients.partition.table import PARTITIONS
from server.algorithms.table import ALGORITHMS
from server.convergence.criteria import CRITERIA
from server.convergence.monitor import ConvergenceOptions
from simulator.scenario.kinds import parts, tables
from simulator.scenario.sections import Scenario, parse_scenario

TABLES: dict[str, Table[Any]] = {
    "data": DATA,
    "partition": PARTITIONS,
    "faults": FAULTS,
    "drifts": DRIFTS,
    "model": MODELS,
    "algorithm": ALGORITHMS,
}
ROWS: dict[str, Row] = {f"{name} {kind}": row for name, table in TABLES.items() for kind, row in table.items()}
REQUIRED: dict[str, dict[str, Any]] = {
    "data images": {"path": "set.npz"},
    "data table": {"path": "set.csv"},
    "data huggingface": {"path": "folder", "features": "image", "label": "label"},
    "partition iid": {"clients": 3},
    "partition dirichlet": {"clients": 3, "concentration": 0.3},
    "partition shards": {"clients": 3},
    "partition quantity": {"clients": 3},
    "partition similarity": {"clients": 3, "similarity": 0.5},
    "partition requested": {"clients": 3, "label_js": 0.3},
    "faults label_class_dependent": {"rates": (0.1, 0.2)},
}
"""What a kind needs besides its name, in the fewest keys."""


def sections(hint: Any) -> Iterator[type]:
    """Yield the dataclasses of a type hint, the sections inside them, and those of their tables."""
    for part in parts(hint):
        for options in part.table.options if hasattr(part, "table") else [part]:
            if isinstance(options, type) and dataclasses.is_dataclass(options):
                yield options
                for inner in get_type_hints(options, include_extras=True).values():
                    yield from sections(inner)


CRITERIA_KEYS = {ConvergenceOptions: set(CRITERIA)}
"""Keys that the rows of a table add to a section: the docstring of the row's options describes each."""

every = pytest.mark.parametrize("name", ROWS)


def test_scenario_reads_these_tables() -> None:
    assert tables(Scenario, named=False) | tables(Scenario, named=True) == TABLES


@every
def test_options_are_made_from_the_kind_and_its_required_keys(name: str) -> None:
    section, kind = name.split(" ")
    given = REQUIRED.get(name, {})
    row = ROWS[name]
    fields = dataclasses.fields(row.options)
    missing = {f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING}
    assert missing <= set(given)
    options = row.options(kind=kind, **given)
    assert options.kind == row.kind == kind
    written = {"kind": kind, **given}
    table = {"name": "x", section: {"n": written} if section in tables(Scenario, named=True) else written}
    read = getattr(parse_scenario(table, source="x"), section)
    assert (read["n"] if isinstance(read, dict) else read) == options


@every
def test_options_of_one_kind_allow_that_kind_alone(name: str) -> None:
    section, kind = name.split(" ")
    options = ROWS[name].options
    shared = [row.kind for row in TABLES[section].values() if row.options is options]
    assert get_type_hints(options)["kind"] == (Literal[kind] if shared == [kind] else str)  # type: ignore[valid-type]


@every
def test_parts_built_later_can_be_imported(name: str) -> None:
    row = ROWS[name]
    for f in dataclasses.fields(row):
        value = getattr(row, f.name)
        if isinstance(value, Lazy):
            assert callable(value.target)


@pytest.mark.parametrize("options", dict.fromkeys(sections(Scenario)), ids=lambda options: options.__name__)
def test_every_key_is_described_where_it_is_declared(options: type) -> None:
    for owner in options.__mro__[:-1]:
        own = {key for key in inspect.get_annotations(owner) if not key.startswith("__")}
        own -= CRITERIA_KEYS.get(owner, set())
        inherited = {f for base in owner.__mro__[1:-1] for f in inspect.get_annotations(base)}
        listed = (owner.__doc__ or "").partition("Attributes:")[2]
        lines = re.findall(r"^ {8}(\w[\w, ]*):", listed, re.MULTILINE)
        described = {key.strip() for line in lines for key in line.split(",")}
        assert own - inherited <= described, f"{owner.__name__} has no description of these keys"
        assert described <= own | inherited, f"{owner.__name__} describes keys that it does not have"


def test_options_of_another_table_are_refused() -> None:
    with pytest.raises(UserError, match=r"kind: 'iid' is not a model\. "):
        MODELS.row_of(PARTITIONS["iid"].options(clients=3))


@pytest.mark.parametrize("kind", [["mlp"], {}, 3, ""])
@pytest.mark.parametrize("section", TABLES)
def test_kind_that_is_not_a_name_is_refused(section: str, kind: object) -> None:
    written: Any = {"kind": kind}
    table = {section: {"n": written} if section in tables(Scenario, named=True) else written}
    with pytest.raises(UserError, match=rf"kind: .* is not {TABLES[section].what}\."):
        parse_scenario(table, source="x")


def test_rows_of_faults_say_their_effect() -> None:
    assert {row.measure for row in FAULTS.values()} == set(EFFECTS)
    assert all(isinstance(row, SensorFaultRow | LabelFaultRow) for row in FAULTS.values())
