"""A study before it is played: its arms, its runs, its question; and the facts that its page states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from dashboards.report.compared_measures import MEASURES, Measure
from simulator.studies.arms import Arm, PlannedRun, compared_pairs, make_arms, planned_runs
from simulator.studies.folder import StudyFolder
from simulator.studies.options import StudyOptions
from simulator.studies.rows import FAILED, Rows
from simulator.studies.study_data import StudyData

SCORES = (
    "test_accuracy", "test_error", "optimality_gap", "test_frechet_distance", "validation_loss", "train_loss",
)  # fmt: skip
"""What is compared where the study does not say and no arm has a target: the first of these that runs have."""

PARTS = ("data", "partition", "faults", "drifts", "cohorts", "model", "batches")
"""The central examples; which client holds what; what faults changed; the levels of drifts; who is drawn; the initial
model; the batches of the first epoch of round 1."""


@dataclass(frozen=True)
class StudyPlan:
    """A study before it is played.

    Attributes:
        options: what the study file says.
        arms: the arms.
        runs: the runs, all arms of the first seed first.
    """

    options: StudyOptions
    arms: tuple[Arm, ...]
    runs: tuple[PlannedRun, ...]

    @classmethod
    def of(cls, options: StudyOptions, data: StudyData | None = None) -> StudyPlan:
        """Return the plan of a study, all of its scenarios checked.

        Args:
            options: what the study file says.
            data: gives the digests of data files; None reads the files.

        Raises:
            ScenarioError: the study has a mistake.
        """
        arms = make_arms(options, (data or StudyData()).digest)
        return cls(options, tuple(arms), tuple(planned_runs(arms, options.seeds, options.budget.runs)))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that are played."""
        return tuple(dict.fromkeys(run.seed for run in self.runs))

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """The arms that the question compares, by name."""
        return compared_pairs(self.options, self.arms)

    @cached_property
    def groups(self) -> list[list[str]]:
        """The arms that are compared with each other, by name; one group, unless arms say what they are compared with.

        Arms of different groups may have other data, so no order of theirs means anything.
        """
        if not any(arm.against for arm in self.arms):
            return [[arm.name for arm in self.arms]]
        groups = {arm.name: [arm.name] for arm in self.arms}
        for first, second in self.pairs:
            if groups[first] is not groups[second]:
                groups[first] += groups[second]
                groups |= dict.fromkeys(groups[first], groups[first])
        order = [arm.name for arm in self.arms]
        return [sorted(group, key=order.index) for name, group in groups.items() if min(group, key=order.index) == name]

    def measure(self, rows: Rows) -> Measure | None:
        """Return what is compared: as the study says, rounds to the target, or the first score that runs have."""
        known = {measure.key: measure for measure in MEASURES}
        if self.options.answer.measure:
            return known[self.options.answer.measure]
        if all(arm.scenario.convergence.target is not None for arm in self.arms):
            return known["rounds_to_target"]
        found = [row.get("measures", {}) for row in rows.values()]
        return next((known[key] for key in SCORES if any(one.get(key) is not None for one in found)), None)

    def write_facts(self, folder: StudyFolder, rows: Rows, stopped: Mapping[str, str]) -> None:
        """Write study.json: what the page states beside the table.

        Args:
            folder: the study's folder.
            rows: of the runs, by key.
            stopped: why arms were dropped early, by name.

        Raises:
            RunFolderError: it cannot be written.
        """
        measure = self.measure(rows)
        folder.write(".", "study", {
            "title": self.options.title,
            "name": self.options.name,
            "seeds": list(self.seeds),
            "left_out_seeds": len(self.options.seeds) - len(self.seeds),
            "factors": list(self.arms[0].values),
            "arms": [
                {"name": arm.name, "values": dict(arm.values), "title": arm.scenario.title,
                 "notices": list(arm.scenario.notices), "engine": folder.read("plans", arm.engine_group)}
                for arm in self.arms
            ],
            "answer": asdict(self.options.answer),
            "measure": measure.key if measure is not None else None,
            "pairs": [list(pair) for pair in self.pairs],
            "groups": self.groups,
            "shared": self._shared(folder),
            "parts": list(PARTS),
            "budget": asdict(self.options.budget),
            "early": asdict(self.options.early),
            "stopped": dict(stopped),
            "failures": {key: row.get("error", "") for key, row in rows.items() if row["state"] == FAILED},
            **_tuning(folder),
        })  # fmt: skip

    def _shared(self, folder: StudyFolder) -> list[dict[str, Any]]:
        """Return for each compared pair which parts it shares, for the first seed; none before both have begun."""
        digests = {arm.name: folder.read("parts", arm.key(self.seeds[0])) for arm in self.arms}
        found = []
        for one, two in self.pairs:
            a, b = digests[one], digests[two]
            if a is not None and b is not None:
                found.append({"arms": [one, two], "parts": shared_parts(a, b)})
        return found


def _tuning(folder: StudyFolder) -> dict[str, Any]:
    """Return what a tuning of the arms found, and its budget in sentences; nothing where there was none."""
    found = folder.read("tuning", "tuning")
    return {} if found is None else {"tuning": found.get("arms", {}), "notes": found.get("sentences", [])}


def shared_parts(first: Mapping[str, str | None], second: Mapping[str, str | None]) -> dict[str, bool]:
    """Return by part whether two arms share it; two that both lack a part share it.

    Example:
        >>> shared_parts({"data": "a", "faults": None}, {"data": "a", "faults": "b"})
        {'data': True, 'faults': False}
    """
    return {part: first[part] == second.get(part) for part in first}
