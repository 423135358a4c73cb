"""Has the run converged, or diverged? Each round's facts are folded into an assessment.

    monitor = ConvergenceMonitor(options)
    assessment = monitor.observe(round_index, facts)    # every round; round 0 is the initial model
    if assessment.verdict is not None: stop

The monitor is a pure fold: `ConvergenceMonitor.replay` over a record's facts gives the state that observing gave.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from clients.core.errors import require
from clients.core.options import STRICT
from server.convergence.criteria import CRITERIA, Look, look_again
from server.convergence.criteria_options import (
    FACTS,
    METRICS,
    AgreementOptions,
    ErrorFreeOptions,
    GapOptions,
    GradientOptions,
    PlateauOptions,
    PseudoGradientOptions,
    SettledOptions,
    TargetOptions,
)
from server.convergence.divergence import DivergenceOptions, Watch

Outcome = Literal["converged", "diverged", "stopped", "interrupted"]
Facts = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class ConvergenceOptions:
    """Section `[convergence]` of a scenario: which criteria are watched, and how they end a run.

    Attributes:
        stop: `any`: the first criterion that holds ends the run; `all`: the round in which all hold; `never`: they
            are only reported.
        min_rounds: rounds before which no criterion ends the run.
        divergence: when the run is given up, whatever `stop` says.
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    stop: Literal["any", "all", "never"] = "any"
    min_rounds: int = 1
    target: TargetOptions | None = None
    plateau: PlateauOptions | None = None
    settled: SettledOptions | None = None
    pseudo_gradient: PseudoGradientOptions | None = None
    gradient: GradientOptions | None = None
    gap: GapOptions | None = None
    agreement: AgreementOptions | None = None
    error_free: ErrorFreeOptions | None = None
    divergence: DivergenceOptions = field(default_factory=DivergenceOptions)

    def __post_init__(self) -> None:
        allowed = ("any", "all", "never")
        require(self.stop in allowed, "stop", f"must be one of {', '.join(allowed)}, got {self.stop!r}")
        require(self.min_rounds >= 1, "min_rounds", f"must be at least 1, got {self.min_rounds}")

    def criteria(self) -> dict[str, Any]:
        """Return the options of the criteria that are configured, by name."""
        return {name: options for name in CRITERIA if (options := getattr(self, name)) is not None}


def required_facts(options: ConvergenceOptions) -> frozenset[str]:
    """Return the names of the facts that the configured criteria look at.

    Example:
        >>> sorted(required_facts(ConvergenceOptions(settled=SettledOptions(), gap=GapOptions(below=0.1))))
        ['relative_change', 'train_loss', 'validation_loss']
    """
    return frozenset(fact for name, chosen in options.criteria().items() for fact in CRITERIA[name].facts(chosen))


def require_measured(options: ConvergenceOptions, measured: Collection[str]) -> None:
    """Raise `UserError` where a criterion looks at a fact that this run never measures."""
    for name, chosen in options.criteria().items():
        for fact in CRITERIA[name].facts(chosen):
            has = ", ".join(metric for metric in METRICS if metric in measured) or "none"
            fix = f"Metrics this run measures: {has}." if fact in METRICS else f"Leave out {name}."
            require(fact in measured, name, f"needs {fact} ({FACTS[fact]}), which this run does not measure", fix=fix)


@dataclass(frozen=True)
class CriterionStatus:
    """How near a criterion is.

    Attributes:
        name: its name in `[convergence]`.
        value: what it looks at, as last measured; nan before that.
        threshold: what it compares with; nan before it was first measured.
        held_rounds: measured rounds in a row in which its condition was met.
        needed_rounds: how many it takes.
        holds: whether it holds.
        distance: 0 where the condition was met when last measured, else how far off (see `criteria.Look`).
        words: its state, as the end of a sentence.
        measured: whether this round measured what it looks at; if not, all else is as it was.
        first_held: the first round in which it held, or None.
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


@dataclass(frozen=True)
class Verdict:
    """How a run ended.

    Attributes:
        outcome: converged, diverged, stopped (budget) or interrupted.
        round_index: the round after which it ended.
        reason: why, as the end of a sentence.
        criteria: the criteria that held, for converged.
        quantity: the fact that diverged, for diverged.
        hint: the usual cause, where there is one.
    """

    outcome: Outcome
    round_index: int
    reason: str
    criteria: tuple[str, ...] = ()
    quantity: str | None = None
    hint: str = ""

    def __str__(self) -> str:
        """Return the verdict as one sentence.

        Example:
            >>> print(Verdict("stopped", 20, "the budget of 20 rounds is spent"))
            stopped at round 20: the budget of 20 rounds is spent
        """
        return f"{self.outcome} at round {self.round_index}: {self.reason}"

    @classmethod
    def from_outcome(cls, outcome: Mapping[str, Any]) -> Verdict:
        """Return the verdict that a run's outcome.json tells.

        Example:
            >>> said = {"outcome": "converged", "round": 9, "reason": "it held", "criteria": ["plateau"]}
            >>> Verdict.from_outcome(said).criteria
            ('plateau',)
        """
        return cls(
            outcome["outcome"],
            outcome["round"],
            outcome["reason"],
            tuple(outcome.get("criteria") or ()),
            outcome.get("quantity"),
            outcome.get("hint") or "",
        )


@dataclass(frozen=True)
class Assessment:
    """What one round says about convergence.

    Attributes:
        round_index: the round.
        criteria: every configured criterion.
        verdict: how the run ends here, or None: it goes on.
        overfitting: words, where `gap` is configured and sees some.
    """

    round_index: int
    criteria: tuple[CriterionStatus, ...]
    verdict: Verdict | None
    overfitting: str = ""


@dataclass
class ConvergenceMonitor:
    """Folds rounds into assessments. Two monitors that observed the same are equal.

    Example:
        >>> monitor = ConvergenceMonitor(ConvergenceOptions(plateau=PlateauOptions(min_delta=0.01, patience=2)))
        >>> for r, loss in enumerate([1.0, 0.5, 0.499, 0.498]):
        ...     assessment = monitor.observe(r, {"validation_loss": loss})
        >>> assessment.verdict.round_index, assessment.verdict.reason
        (3, 'validation_loss did not improve by 0.01 in 2 rounds (best 0.5)')
    """

    options: ConvergenceOptions
    looks: dict[str, Look] = field(default_factory=dict)
    first_held: dict[str, int] = field(default_factory=dict)
    watch: Watch = field(init=False)
    last: Assessment | None = None

    def __post_init__(self) -> None:
        self.watch = Watch(self.options.divergence)

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
        diverged = self.watch.observe(facts)
        statuses = tuple(
            self._status(name, chosen, round_index, facts) for name, chosen in self.options.criteria().items()
        )
        verdict = self._converged(round_index, statuses)
        if diverged is not None:
            verdict = Verdict("diverged", round_index, diverged.reason, (), diverged.quantity, diverged.hint)
        gap = self.looks.get("gap")
        self.last = Assessment(round_index, statuses, verdict, gap.overfitting if gap else "")
        return self.last

    def _status(self, name: str, chosen: Any, round_index: int, facts: Facts) -> CriterionStatus:
        """Let one criterion look, and say where it stands."""
        before = self.looks.get(name)
        new = look_again(CRITERIA[name], chosen, before, round_index, facts)
        if new is not None:
            self.looks[name] = new
        look = new or before
        if look is None:
            needed = getattr(chosen, "hold", 0) or chosen.patience
            return CriterionStatus(
                name, math.nan, math.nan, 0, needed, False, math.inf, "not measured yet", False, None
            )
        holds = look.held >= look.needed
        if holds:
            self.first_held.setdefault(name, round_index)
        words = look.words if new is not None else f"{look.words}, not measured this round"
        return CriterionStatus(
            name, look.value, look.threshold, look.held, look.needed, holds, look.distance, words, new is not None,
            self.first_held.get(name),
        )  # fmt: skip

    def _converged(self, round_index: int, statuses: tuple[CriterionStatus, ...]) -> Verdict | None:
        """Join the criteria as `stop` says."""
        holding = [status for status in statuses if status.holds]
        enough = len(holding) == len(statuses) if self.options.stop == "all" else bool(holding)
        if not holding or not enough or self.options.stop == "never" or round_index < self.options.min_rounds:
            return None
        reason = ", and ".join(status.words for status in holding)
        return Verdict("converged", round_index, reason, tuple(status.name for status in holding))
