"""Has the run converged, or diverged? The monitor folds each round's facts into an assessment.

    monitor = ConvergenceMonitor(options)
    assessment = monitor.observe(round_index, facts)    # every round; round 0 is the initial model
    if assessment.verdict is not None: stop

The monitor is a pure fold: `ConvergenceMonitor.replay` over a record's facts gives the state of the run that wrote it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from clients.core.errors import require
from clients.core.numbers.bounds import Rounds
from server.convergence.criteria import CRITERIA
from server.convergence.criteria_options import TargetOptions
from server.convergence.criterion import CriterionState, subject, update_criterion
from server.convergence.divergence import Diverged, DivergenceOptions, DivergenceWatch
from server.convergence.facts import FACTS, METRICS, check_possible
from server.convergence.verdict import Verdict

Facts = Mapping[str, float | None]
C = TypeVar("C")


def _with_criteria(section: type[C]) -> type[C]:
    """Give the section a field for each row of `CRITERIA`, before its last one: the row's options, by default None."""
    last, annotation = section.__annotations__.popitem()
    for name, row in CRITERIA.items():
        section.__annotations__[name] = row.options | None
        setattr(section, name, None)
    section.__annotations__[last] = annotation
    return section


@dataclass(frozen=True, kw_only=True)
@_with_criteria
class ConvergenceOptions:
    """Section `[convergence]` of a scenario: which criteria are watched, and how they end a run.

    It has one more field for each row of `CRITERIA`, by that name: the options of the criterion, or None.

    Attributes:
        stop: `any`: a run ends once one criterion holds; `all`: once all hold in the same round; `never`: criteria and
            growth are only reported, and nothing but a number that is not finite ends the run before its budget.
        min_rounds: no criterion ends the run before this round.
        divergence: when the run counts as diverged.
    """

    stop: Literal["any", "all", "never"] = "any"
    min_rounds: Rounds = 1
    divergence: DivergenceOptions = field(default_factory=DivergenceOptions)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return a criterion's options: the fields that `_with_criteria` adds."""

    def __post_init__(self) -> None:
        allowed = ("any", "all", "never")
        require(self.stop in allowed, "stop", f"must be one of {', '.join(allowed)}, got {self.stop!r}")
        require(self.min_rounds >= 1, "min_rounds", f"must be at least 1, got {self.min_rounds}")

    def criteria(self) -> dict[str, Any]:
        """Return the options of the criteria that are configured, by name."""
        return {name: options for name in CRITERIA if (options := getattr(self, name)) is not None}


def required_facts(options: ConvergenceOptions) -> frozenset[str]:
    """Return the names of the facts that the configured criteria need.

    Example:
        >>> from server.convergence.criteria_options import GapOptions
        >>> sorted(required_facts(ConvergenceOptions(gap=GapOptions(below=0.1))))
        ['train_loss', 'validation_loss']
    """
    return frozenset(fact for name, chosen in options.criteria().items() for fact in CRITERIA[name].facts(chosen))


def require_measured(options: ConvergenceOptions, measured: Collection[str], task: str | None = None) -> None:
    """Raise `UserError` where a criterion needs a fact that this run never measures, or a value that it never has.

    Args:
        options: the criteria.
        measured: the facts that the run measures.
        task: what is learnt, on which the range of a fact may depend.
    """
    for name, chosen in options.criteria().items():
        for fact in CRITERIA[name].facts(chosen):
            has = ", ".join(metric for metric in METRICS if metric in measured) or "none"
            fix = f"Metrics this run measures: {has}." if fact in METRICS else f"Leave out {name}."
            require(
                fact in measured,
                name,
                f"needs {fact} ({FACTS[fact].meaning}), which this run does not measure",
                fix=fix,
            )
    if options.target is not None:
        target: TargetOptions = options.target
        use = "at_most" if target.at_least is None else "at_least"
        check_possible(target.metric, f"target.{use}", target.threshold, task)


@dataclass(frozen=True)
class CriterionStatus:
    """How near a criterion is.

    Attributes:
        name: its key in `[convergence]`.
        value: the value it compares, as last measured; nan before that.
        threshold: the value it compares with; nan before the first measurement.
        held_rounds: measured rounds in a row in which its condition was met.
        needed_rounds: the number of them it needs.
        holds: whether it holds.
        distance: 0 where the condition was met when last measured, else how far it is (see `CriterionState`).
        words: its state as a clause for people.
        measured: whether this round measured its facts; if not, all else is unchanged.
        first_held: the first round in which it held, or None.
        rests: whether a run that it ends has converged (see `CriterionState`).
    """

    name: str
    value: float
    threshold: float
    held_rounds: int
    needed_rounds: int
    holds: bool
    distance: float
    words: str
    measured: bool
    first_held: int | None
    rests: bool = True


@dataclass(frozen=True)
class Assessment:
    """Convergence after one round.

    Attributes:
        round_index: the round.
        criteria: every configured criterion.
        verdict: how the run ends here; None where it goes on.
        overfitting: a clause on what a criterion finds wrong, such as overfitting; else empty.
    """

    round_index: int
    criteria: tuple[CriterionStatus, ...]
    verdict: Verdict | None
    overfitting: str = ""


@dataclass
class ConvergenceMonitor:
    """Folds rounds into assessments. Two monitors that observed the same are equal.

    Example:
        >>> from server.convergence.criteria_options import PlateauOptions
        >>> monitor = ConvergenceMonitor(ConvergenceOptions(plateau=PlateauOptions(min_delta=0.01, patience=2)))
        >>> for r, loss in enumerate([1.0, 0.5, 0.499, 0.498]):
        ...     assessment = monitor.observe(r, {"validation_loss": loss})
        >>> print(assessment.verdict)
        Converged at round 3: validation loss did not beat its best by 0.01 in 2 rounds (best 0.498)
    """

    options: ConvergenceOptions
    states: dict[str, CriterionState] = field(default_factory=dict)
    first_held: dict[str, int] = field(default_factory=dict)
    watch: DivergenceWatch = field(init=False)
    grown: Diverged | None = None
    grown_since: int = 0
    last: Assessment | None = None

    def __post_init__(self) -> None:
        self.watch = DivergenceWatch(self.options.divergence)

    @classmethod
    def replay(cls, options: ConvergenceOptions, record: Iterable[tuple[int, Facts]]) -> ConvergenceMonitor:
        """Return the monitor that observed these (round, facts), in this order."""
        monitor = cls(options)
        for round_index, facts in record:
            monitor.observe(round_index, facts)
        return monitor

    def observe(self, round_index: int, facts: Facts) -> Assessment:
        """Take in one round.

        Args:
            round_index: increasing; 0 is the initial model, whose facts count but which ends no run as converged.
            facts: names of `FACTS` -> values; None or missing: not measured this round; other names are ignored.

        Returns:
            The assessment, which `last` keeps.
        """
        assert self.last is None or round_index > self.last.round_index, "rounds are observed once, in order"
        diverged = self._ends(self.watch.observe(facts), round_index)
        statuses = tuple(
            self._status(name, chosen, round_index, facts) for name, chosen in self.options.criteria().items()
        )
        verdict = self._converged(round_index, statuses)
        if diverged is not None:
            verdict = Verdict(
                "diverged", round_index, diverged.reasons, (), diverged.quantity, diverged.value, diverged.threshold,
                diverged.hint,
            )  # fmt: skip
        warnings = (state.warning for state in self.states.values() if state.warning)
        self.last = Assessment(round_index, statuses, verdict, "; ".join(warnings))
        return self.last

    def _ends(self, diverged: Diverged | None, round_index: int) -> Diverged | None:
        """Return what ends the run; with `stop = "never"` growth is remembered instead."""
        if self.options.stop != "never" or (diverged is not None and diverged.threshold is None):
            return diverged
        if diverged is not None and self.grown is None:
            self.grown_since = round_index
        self.grown = diverged
        return None

    def stopped(self, round_index: int, budget: int) -> Verdict:
        """Return the verdict of a run whose budget of rounds is spent, with the criteria that do not hold."""
        reasons = [f"the budget of {budget} round{'' if budget == 1 else 's'} is spent"]
        if self.grown is not None:
            reasons += [f"it would count as diverged from round {self.grown_since} on: {'; '.join(self.grown.reasons)}"]
        if self.last is not None and self.options.stop != "never":
            for status in self.last.criteria:
                count = f" ({status.held_rounds} of {status.needed_rounds} rounds)" if status.held_rounds else ""
                reasons += [status.words + count] if not status.holds else []
        return Verdict("stopped", round_index, tuple(reasons))

    def _status(self, name: str, chosen: Any, round_index: int, facts: Facts) -> CriterionStatus:
        """Update one criterion, and return how near it is."""
        row, before = CRITERIA[name], self.states.get(name)
        new = update_criterion(row, chosen, before, round_index, facts)
        state, needed = new or before, row.needed(chosen)
        if state is None:
            words = f"{subject(row.facts(chosen))} not measured yet"
            return CriterionStatus(name, math.nan, math.nan, 0, needed, False, math.inf, words, False, None)
        self.states[name] = state
        holds = state.held >= needed
        if holds:
            self.first_held.setdefault(name, round_index)
        words = state.words if new is not None else f"{state.words}, not measured this round"
        return CriterionStatus(
            name, state.value, state.threshold, state.held, needed, holds, state.distance, words, new is not None,
            self.first_held.get(name), state.rests,
        )  # fmt: skip

    def _converged(self, round_index: int, statuses: tuple[CriterionStatus, ...]) -> Verdict | None:
        """Return the verdict where the criteria that hold end the run, as `stop` says.

        It is `stopped` where a metric stopped improving away from its best.
        """
        holding = [status for status in statuses if status.holds]
        every = self.options.stop == "all"
        enough = len(holding) == len(statuses) if every else bool(holding)
        if not holding or not enough or self.options.stop == "never" or round_index < self.options.min_rounds:
            return None
        if not any(status.measured for status in statuses):
            return None  # a round without evidence ends no run
        resting = [status for status in holding if status.rests]
        converged = len(resting) == len(holding) if every else bool(resting)
        reasons = tuple(status.words for status in holding)
        names = tuple(status.name for status in holding)
        return Verdict("converged" if converged else "stopped", round_index, reasons, names)
