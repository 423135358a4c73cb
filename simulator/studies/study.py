"""A study from Python: `fs.study(...)` plays one, `fs.open_study(path)` reads one; tables, comparisons and records."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clients.core.errors import RunFolderError, UserError, unknown_name
from dashboards.report.compared_measures import MEASURES, Measure
from dashboards.statistics.comparing import Comparison, compare_arms, corrected
from dashboards.study.latex import latex
from server.record.files import place_for, whole_file
from simulator.studies.conducting import Conductor, Quiet, StudyObserver, checked_shard
from simulator.studies.early import standing
from simulator.studies.folder import STUDY_FILE, StudyFolder
from simulator.studies.plan import StudyPlan
from simulator.studies.reading import Changes, StudySource, read_study
from simulator.studies.rows import FAILED, FINISHED, frame, read_rows
from simulator.studies.study_data import StudyData

if TYPE_CHECKING:
    import pandas as pd

    from simulator.runs.record import Record

_log = logging.getLogger("fedscape.notices")


class StudyRuns(Mapping[tuple[str, int], "Record"]):
    """The runs of a study that have begun: `study.runs["scaffold", 3]` is the record of an arm and a seed."""

    def __init__(self, folder: StudyFolder, plan: StudyPlan) -> None:
        self._folder = folder
        self._keys = {(run.arm.name, run.seed): run.key for run in plan.runs}

    def __getitem__(self, which: tuple[str, int]) -> Record:
        """Return the record of a run.

        Raises:
            KeyError: the study has no such run, or it has not begun.
            RunFolderError: the record cannot be read.
        """
        from server.record.hints import is_run
        from simulator.runs.record import open_run

        path = self._folder.run(self._keys[which])
        if not is_run(path):
            raise KeyError(f"{which}: the run has not begun")
        return open_run(path)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Yield (arm, seed) of the runs that have begun."""
        return (which for which, key in self._keys.items() if (self._folder.run(key) / "rounds.jsonl").is_file())

    def __len__(self) -> int:
        """Return how many have begun."""
        return sum(1 for _ in self)


@dataclass(frozen=True)
class Study:
    """A study and what its runs have given so far.

    Attributes:
        path: its folder.
        plan: its arms, runs and question.
        complete: whether every run of the study has ended, or was dropped early.
    """

    path: Path
    plan: StudyPlan
    complete: bool

    def __repr__(self) -> str:
        """Return the folder, the arms, the seeds and how many runs have ended."""
        table = self.table()
        ended = int(table["state"].isin(FINISHED).sum())
        arms, seeds = len(self.plan.arms), len(self.plan.seeds)
        return f"<Study in {self.path}: {arms} arms, {seeds} seeds, {ended} of {len(table)} runs>"

    @property
    def folder(self) -> StudyFolder:
        """Its files."""
        return StudyFolder(self.path)

    @property
    def page(self) -> Path:
        """The page, study.html."""
        return self.folder.page

    @property
    def arms(self) -> list[str]:
        """The names of the arms, in order."""
        return [arm.name for arm in self.plan.arms]

    @cached_property
    def runs(self) -> StudyRuns:
        """The records of the runs: `study.runs["scaffold", 3]`."""
        return StudyRuns(self.folder, self.plan)

    @property
    def measure(self) -> Measure:
        """What the study compares.

        Raises:
            UserError: no run has a number that could be compared.
        """
        found = self.plan.measure(read_rows(self.folder, self.plan.runs))
        if found is None:
            raise UserError("measure", "cannot be chosen: no run has a score yet", fix="Name one, or play the study.")
        return found

    @property
    def failures(self) -> dict[str, str]:
        """The errors of the runs that failed, by key."""
        rows = read_rows(self.folder, self.plan.runs)
        return {key: row.get("error", "") for key, row in rows.items() if row["state"] == FAILED}

    def table(self) -> pd.DataFrame:
        """Return one row for each arm and seed: see docs/studies.md for the columns."""
        rows = read_rows(self.folder, self.plan.runs)
        return frame(self.plan.runs, rows, stopped=_stopped(self.plan, rows), running=[])

    def compare(
        self, first: str, second: str, measure: str | None = None, *, difference: float | None = None,
        confidence: float = 0.95,
    ) -> Comparison:  # fmt: skip
        """Compare two arms, pair by pair: `print(study.compare("fedavg", "scaffold").sentence)`.

        Args:
            first: an arm's name.
            second: the arm that is compared with it.
            measure: a measure's key; by default what the study compares.
            difference: the difference for which the needed seeds are computed: a share of the first arm where ratios
                are compared (0.1 is 10%), else in the measure's unit.
            confidence: of the interval.

        Raises:
            UserError: there is no such arm or measure.
        """
        chosen, table = self._measure(measure), self.table()
        for field, name in (("first", first), ("second", second)):
            if name not in self.arms:
                raise UserError(field, unknown_name(name, self.arms, "an arm of the study"))
        one, two = (table[table["arm"] == name] for name in (first, second))
        return compare_arms(one, two, chosen, names=(first, second), difference=difference, confidence=confidence)

    def comparisons(self, measure: str | None = None) -> list[Comparison]:
        """Return the comparisons of the study's question, with p corrected for their number."""
        return corrected(self.compare(one, two, measure) for one, two in self.plan.pairs)

    def all_comparisons(self, measure: str | None = None) -> list[Comparison]:
        """Return the comparisons of every two arms, with p corrected for their number."""
        return corrected(self.compare(one, two, measure) for one, two in combinations(self.arms, 2))

    def ranking(self, measure: str | None = None) -> pd.DataFrame:
        """Return the arms, the best first; those of a group together, where arms say what they are compared with.

        Args:
            measure: a measure's key; by default what the study compares.

        Returns:
            One row an arm: `arm`, `median`, `mean` and `std` of the runs that have a number, `runs`, and `missed`:
            those without one. An arm is ranked by the median, where a run without a number is the worst.
        """
        import pandas as pd

        chosen, table = self._measure(measure), self.table()
        lines = []
        for name in self.arms:
            own = table[(table["arm"] == name) & table["state"].isin(FINISHED)]
            worst = float("-inf") if chosen.better == "higher" else float("inf")
            values = own[chosen.key]
            missed = int(values.isna().sum())
            lines.append({"arm": name, "median": values.fillna(worst).median() if len(own) else float("nan"),
                          "mean": values.mean(), "std": values.std(), "runs": len(own), "missed": missed})  # fmt: skip
        found = pd.DataFrame(lines)
        order = found.sort_values("median", ascending=chosen.better != "higher", kind="stable", na_position="last")
        place = {name: number for number, group in enumerate(self.plan.groups) for name in group}
        return order.sort_values("arm", key=lambda arms: arms.map(place), kind="stable").reset_index(drop=True)

    def to_parquet(self, path: Path | str) -> Path:
        """Write the table as Parquet, and return the file.

        Raises:
            RunFolderError: it cannot be written.
        """
        file = Path(path)
        place_for(file, "study.parquet")
        with whole_file(file) as handle:
            self.table().to_parquet(handle, index=False)
        return file

    def to_latex(self, path: Path | str | None = None, measure: str | None = None) -> str:
        r"""Return a LaTeX table of the arms, for `\usepackage{booktabs}`: the ranking, and the comparisons below it.

        Args:
            path: a file that gets it too.
            measure: a measure's key; by default what the study compares.

        Raises:
            RunFolderError: the file cannot be written.
        """
        text = latex(self.ranking(measure), self.comparisons(measure), self._measure(measure))
        if path is not None:
            file = Path(path)
            place_for(file, "study.tex")
            with whole_file(file) as handle:
                handle.write(text.encode())
        return text

    def _measure(self, key: str | None) -> Measure:
        if key is None:
            return self.measure
        known = {measure.key: measure for measure in MEASURES}
        if key not in known:
            raise UserError("measure", unknown_name(key, list(known), "a measure"))
        return known[key]


@dataclass(frozen=True)
class PreparedStudy:
    """A study that was read and checked, and has its folder.

    Attributes:
        plan: the study.
        folder: its folder.
        processes: how many runs are played at once; None for one a processor.
        part: (k, n): the k-th of n parts of the runs is played.
    """

    plan: StudyPlan
    folder: StudyFolder
    processes: int | None
    part: tuple[int, int]


def prepare(
    source: StudySource, changes: Changes, *, out: Path | str | None, processes: int | None, shard: str | None
) -> PreparedStudy:
    """Read and check a study, and make its folder. The arguments are those of `fedscape.study`.

    Raises:
        UserError: the study or an argument has a mistake.
    """
    part = checked_shard(shard)
    if processes is not None and (isinstance(processes, bool) or not isinstance(processes, int) or processes < 1):
        raise UserError("processes", f"must be a whole number of at least 1, got {processes!r}")
    options = read_study(source, changes)
    if out is None and isinstance(source, str | Path) and (Path(source) / STUDY_FILE).is_file():
        out = source
    data = StudyData.of(None if out is None else Path(out), looks=True)
    plan = StudyPlan.of(options, data)
    folder = StudyFolder.make(None if out is None else Path(out), options, now=datetime.now())
    if shard is not None:
        data.require_same(folder)
    unseen = any(arm.data and folder.read_row(replace(arm, data="").key(plan.seeds[0])) for arm in plan.arms)
    for sentence in data.sentences(unseen=unseen):
        _log.warning("fedscape: %s", sentence)
    data.write(folder)
    return PreparedStudy(plan, folder, processes, part)


def play_study(
    prepared: PreparedStudy, *, observer: StudyObserver | None = None, stop_asked: Callable[[], bool] = lambda: False
) -> Study:
    """Play the runs of a study that are not finished, write its page, and return its results.

    Args:
        prepared: the study.
        observer: sees the progress.
        stop_asked: called about once a second; if it returns True, the study stops and keeps all checkpoints.
    """
    conductor = Conductor(prepared.plan, prepared.folder, observer or Quiet(), stop_asked)
    complete = conductor.conduct(prepared.processes, prepared.part)
    from dashboards.study.page import write_study_page  # it imports torch, for which no run waits

    with prepared.folder.locked("page"):
        write_study_page(prepared.folder.path)
    return Study(prepared.folder.path, prepared.plan, complete)


def open_study(path: Path | str) -> Study:
    """Read a study's folder, finished or not.

    Raises:
        RunFolderError: the folder is no study's.
        ScenarioError: its study file has a mistake.
    """
    given: object = path
    if not isinstance(given, str | Path):
        raise RunFolderError("path", f"must be a study's folder, got {type(given).__name__}")
    folder = StudyFolder.open(Path(path))
    plan = StudyPlan.of(read_study(folder.path), StudyData.of(folder.path, looks=False))
    rows = read_rows(folder, plan.runs)
    stopped = _stopped(plan, rows)
    ended = (*FINISHED, FAILED)
    complete = all(run.arm.name in stopped or rows.get(run.key, {}).get("state") in ended for run in plan.runs)
    return Study(folder.path, plan, complete)


def _stopped(plan: StudyPlan, rows: Mapping[str, Any]) -> dict[str, str]:
    """Return why arms were dropped early, by name."""
    measure = plan.measure(rows)
    if plan.options.early.kind == "off" or measure is None or measure.better is None:
        return {}
    return standing(plan.options.early, plan.arms, plan.seeds, rows, measure).dropped
