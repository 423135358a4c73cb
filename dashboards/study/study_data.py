"""A study read from its folder: the rows of study.parquet, and the facts of study.json beside them.

study.json may have `title`, `scenario`, `version`, `measure` (the key of the compared measure), `arms` (tables with a
`name`, in order), `pairs` (lists of the first arm and the arm compared with it), `groups` (lists of the arms that are
compared with each other), `shared` (tables with `arms`, a pair, and `parts`: part -> whether they share it), `early`,
`stopped` (arm -> why) and `notes`. What is missing is taken from the table. What tuning found is in tuning/tuning.json.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from clients.core.errors import RunFolderError
from dashboards.report.compared_measures import MEASURES, Measure
from dashboards.report.formats import is_number
from server.record.checked.regular_files import open_regular

FILE, TABLE, FACTS, PAGE = "study.toml", "study.parquet", "study.json", "study.html"
TUNING = "tuning/tuning.json"
"""What the tuning of the arms found."""
OWN = ("arm", "seed", "run", "key", "state", "verdict", "rounds", "seconds")
"""Columns that are no factor and no measure."""
NEEDED = ("arm", "seed", "run", "state")
ENDED = ("done", "diverged")
"""States of runs that have numbers."""
LARGEST_TABLE, LARGEST_FACTS = 256 << 20, 64 << 20
AT_LEAST = "_at_least"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class StudyData:
    """The contents of a study's folder.

    Attributes:
        path: the folder.
        rows: a row for each planned run.
        facts: study.json; empty where there is none.
    """

    path: Path
    rows: Sequence[Row]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def arms(self) -> list[str]:
        """The arms' names, in the study's order."""
        found = list(dict.fromkeys(str(row["arm"]) for row in self.rows))
        listed = [name for name in _names(self.facts.get("arms")) if name in found]
        return list(dict.fromkeys([*listed, *found]))

    @cached_property
    def by_arm(self) -> dict[str, list[Row]]:
        """The rows of each arm."""
        found: dict[str, list[Row]] = {name: [] for name in self.arms}
        for row in self.rows:
            found[str(row["arm"])].append(row)
        return found

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds, ascending."""
        return sorted({int(row["seed"]) for row in self.rows})

    @cached_property
    def factors(self) -> dict[str, list[Any]]:
        """The values of each factor, in order of appearance; factors with one value are left out."""
        known = {*OWN, *(m.key for m in MEASURES), *(m.key + AT_LEAST for m in MEASURES)}
        columns = [name for name in (self.rows[0] if self.rows else {}) if name not in known]
        found = {name: list(dict.fromkeys(factor_value(row, name) for row in self.rows)) for name in columns}
        return {name: values for name, values in found.items() if len(values) > 1}

    @cached_property
    def measures(self) -> list[Measure]:
        """The measures of which a run has a number or a bound."""
        return [m for m in MEASURES if any(value_of(row, m)[0] is not None for row in self.rows)]

    @cached_property
    def measure(self) -> Measure | None:
        """The measure that answers the study's question; by default one of a target, else the first."""
        found = {m.key: m for m in self.measures}
        wanted = found.get(str(self.facts.get("measure") or ""))
        better = [m for m in self.measures if m.better is not None]
        return wanted or found.get("rounds_to_target") or next(iter(better or self.measures), None)

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """The compared arms, the first being what the second is compared with; by default each with the first arm."""
        listed = self.facts.get("pairs")
        found = [
            (str(pair[0]), str(pair[1]))
            for pair in (listed if isinstance(listed, list) else ())
            if isinstance(pair, list) and len(pair) == 2 and {str(pair[0]), str(pair[1])} <= set(self.arms)
        ]
        return found or [(self.arms[0], name) for name in self.arms[1:]]

    @cached_property
    def groups(self) -> dict[str, int]:
        """The group of each arm: arms of different groups may have other data, and have no order."""
        listed = self.facts.get("groups")
        found = {
            str(name): number
            for number, group in enumerate(listed if isinstance(listed, list) else ())
            for name in (group if isinstance(group, list) else ())
        }
        return found if found.keys() >= set(self.arms) else dict.fromkeys(self.arms, 0)

    @property
    def is_grouped(self) -> bool:
        """Whether there are several groups."""
        return len(set(self.groups.values())) > 1

    @cached_property
    def states(self) -> Counter[str]:
        """The number of runs in each state."""
        return Counter(str(row["state"]) for row in self.rows)

    def folder_of(self, row: Row) -> Path | None:
        """Return the folder of a row's run; None where the row names none inside the study's folder."""
        name = str(row.get("run") or "")
        path = Path(name)
        return self.path / path if name and not path.is_absolute() and ".." not in path.parts else None


def is_study(path: Path) -> bool:
    """Return whether a folder is a study's."""
    return (path / TABLE).is_file() or (path / FILE).is_file()


def read_study_data(path: Path) -> StudyData:
    """Read a study's folder.

    Raises:
        RunFolderError: it has no table, or the table or the facts cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = path / TABLE
    if not file.is_file():
        what = "has no table yet" if is_study(path) else f"is not a study's folder: it has no {TABLE}"
        raise RunFolderError(str(path), what, fix="`fedscape study` writes the table as runs end.")
    try:
        with open_regular(file, most=LARGEST_TABLE, inside=path) as handle:
            rows = pq.read_table(pa.BufferReader(handle.read())).to_pylist()
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise RunFolderError(str(file), "is damaged: it is no Parquet file", fix="Run the study again.") from error
    lacking = [name for name in NEEDED if not rows or name not in rows[0]]
    if lacking:
        problem = f"has no column {lacking[0]!r}" if rows else "has no rows"
        raise RunFolderError(str(file), problem, fix="Run the study again.")
    if not all(is_number(row["seed"]) for row in rows):
        raise RunFolderError(str(file), "has a seed that is no number", fix="Run the study again.")
    facts, tuning = (_table_in(path / name, path) for name in (FACTS, TUNING))
    return StudyData(path, rows, {**facts, **({"tuning": tuning} if tuning else {})})


def _table_in(file: Path, path: Path) -> Mapping[str, Any]:
    """Return the object in a file of JSON inside a study's folder; an empty one without the file."""
    if not file.is_file():
        return {}
    try:
        with open_regular(file, most=LARGEST_FACTS, inside=path) as handle:
            found = json.loads(handle.read())
    except (ValueError, RecursionError) as error:
        raise RunFolderError(str(file), "is damaged: it is not JSON", fix="Run the study again.") from error
    if not isinstance(found, dict):
        raise RunFolderError(str(file), "is damaged: it is not a table", fix="Run the study again.")
    return found


def value_of(row: Row, measure: Measure) -> tuple[float | None, bool]:
    """Return a run's number, and True; or what the number is at least, and False; or None and False.

    Example:
        >>> by_key = {m.key: m for m in MEASURES}
        >>> value_of({"rounds_to_target": math.nan, "rounds_to_target_at_least": 90.0}, by_key["rounds_to_target"])
        (90.0, False)
    """
    value, bound = row.get(measure.key), row.get(measure.key + AT_LEAST)
    if is_number(value):
        return float(value), True
    return (float(bound), False) if is_number(bound) else (None, False)


def factor_value(row: Row, name: str) -> Any:
    """Return a run's value of a factor: text, a number or None; lists and tables are JSON."""
    value = row.get(name)
    if isinstance(value, float) and math.isnan(value):
        return None
    if value is None or isinstance(value, str | int | bool) or is_number(value):
        return value
    return json.dumps(value, default=str) if isinstance(value, list | dict) else str(value)


def _names(arms: Any) -> list[str]:
    """Return the arms' names, of a list of names or of tables with a name."""
    listed = arms if isinstance(arms, list) else ()
    return [str(one.get("name")) if isinstance(one, Mapping) else str(one) for one in listed]
