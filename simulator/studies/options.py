"""What a study file says: the scenario, the seeds, what differs between arms, the question, and what it may cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class ArmOptions:
    """One [[arms]] of a study file.

    Attributes:
        name: the arm's name; by default what differs, in words.
        scenario: another scenario than the study's, as its author wrote it.
        against: the arm that it is compared with. Where no arm names one, all are compared with the first.
        values: the keys that it sets, with their values; an empty text removes a key.
    """

    name: str = ""
    scenario: Mapping[str, Any] | None = None
    against: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """Section [answer]: the question.

    Attributes:
        compare: the factor whose values are compared, with all others equal; by default the first. Listed arms and
            zipped factors are compared with the first arm.
        measure: what is compared, by its key; by default rounds to the target where every arm has one, else the first
            score that the runs have.
        target: the target of every arm, as `convergence.target`.
    """

    compare: str = ""
    measure: str = ""
    target: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """Section [budget]: what the study may cost.

    Attributes:
        rounds: most rounds of each run, instead of the scenario's.
        seconds: wall seconds after which no further run is started.
        runs: most runs; whole seeds are left out, so that all arms have the same.
    """

    rounds: int | None = None
    seconds: float | None = None
    runs: int | None = None


@dataclass(frozen=True, kw_only=True)
class EarlyOptions:
    """Section [early]: whether arms that cannot win are dropped before all seeds are played. The page says so.

    Attributes:
        kind: "off"; "successive_halving" keeps a share of the arms after `seeds` seeds, and again each time their
            number has grown by the inverse of that share; "racing" drops arms that are worse than the best beyond
            chance, after `seeds` seeds and after each further one.
        seeds: seeds of every arm before the first decision.
        keep: share of the arms that successive halving keeps.
        alpha: the error rate of racing: that of all its tests after one seed together (Holm).
    """

    kind: Literal["off", "successive_halving", "racing"] = "off"
    seeds: int = 3
    keep: float = 0.5
    alpha: float = 0.05


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """A study file.

    Attributes:
        title: one line of description.
        name: the study's name; the file's by default.
        scenario: the base scenario as its author wrote it.
        seeds: of every arm.
        set: changes of every arm.
        factors: the values of each factor, by key.
        zip: whether the factors go together, the first value of each, then the second; otherwise they are crossed.
        arms: the arms, where they are listed instead of factors.
        answer: the question.
        budget: what the study may cost.
        early: whether hopeless arms are dropped.
        tuning: section [tuning]: how every arm is tuned first (`simulator.tuning`).
    """

    title: str = ""
    name: str = "study"
    scenario: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = tuple(range(10))
    set: Mapping[str, Any] = field(default_factory=dict)
    factors: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    zip: bool = False
    arms: tuple[ArmOptions, ...] = ()
    answer: AnswerOptions = AnswerOptions()
    budget: BudgetOptions = BudgetOptions()
    early: EarlyOptions = EarlyOptions()
    tuning: Mapping[str, Any] = field(default_factory=dict)
