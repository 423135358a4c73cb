"""The result of a probe: shown as text, written to probes.json and read back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from dashboards.report.theory.words import NAMES
from server.record.checked.layouts import PROBE_VERSION
from simulator.probes.curvature import Curvature
from simulator.probes.formulas.dissimilarity import Dissimilarity, Estimate
from simulator.probes.formulas.error_by_cause import CAUSES, ErrorByCause
from simulator.probes.formulas.predicted import Range
from simulator.probes.theory import Gradients, Theory
from simulator.probes.trials import Trial

T = TypeVar("T")


@dataclass(frozen=True)
class DriftByCause:
    """The expected squared error of a round's aggregate against the ideal, by cause.

    Attributes:
        causes: the parts of `local_steps`, `heterogeneity`, `gradient_noise` and `client_sampling`, in squared units of
            the parameters.
        residual: what the causes add to, or take from, each other: their sum and this are the total.
        total: the expected squared error.
        errors: standard errors over draws of batches, by cause, of the `residual` and of the `total`.
        ideal_square: squared norm of the ideal.
        observed: mean squared error of rounds that were played; nan without trials.
        observed_error: its standard error.
        clients: how many clients were trained for it.
        cohorts_drawn: cohorts that were drawn for the law of cohorts; 0 where it is exact.
    """

    causes: Mapping[str, float]
    residual: float
    total: float
    errors: Mapping[str, float]
    ideal_square: float
    observed: float
    observed_error: float
    clients: int
    cohorts_drawn: int

    @classmethod
    def of(cls, split: ErrorByCause, observed: tuple[float, float], clients: int, drawn: int) -> DriftByCause:
        """Return the result of a split and of what played rounds showed."""
        return cls(
            split.causes, split.residual, split.total, split.errors, split.ideal_square, *observed, clients, drawn
        )

    @property
    def shares(self) -> dict[str, float]:
        """Each cause as a share of the sum of the causes; all 0 where that is 0."""
        above = {name: max(0.0, value) for name, value in self.causes.items()}
        whole = sum(above.values())
        return {name: value / whole if whole else 0.0 for name, value in above.items()}

    @property
    def main(self) -> str | None:
        """The cause with the largest part; None where all are 0."""
        shares = self.shares
        best = max(shares, key=lambda name: shares[name])
        return best if shares[best] > 0 else None


@dataclass(frozen=True)
class Probes:
    """What probes of a run's state found.

    Attributes:
        path: the run's folder.
        round_index: the round after which the state was probed.
        source: where the state comes from: a checkpoint, rounds played again, the initial model.
        reasons: why bits may differ from the run's here, as clauses.
        measure: what trials measure: `objective` or `validation_loss`.
        before: the measure at the state.
        own: the measure after the run's own next round.
        trials: rounds with one change, by name.
        drift_by_cause: None where it was not measured.
        curvature: likewise.
        gradients: noise within clients and dissimilarity between them; likewise.
        theory: likewise.
        not_measured: part -> why it was not measured.
        seconds: wall seconds of each part.
    """

    path: Path
    round_index: int
    source: str
    reasons: tuple[str, ...] = ()
    measure: str = ""
    before: float = math.nan
    own: float = math.nan
    trials: Mapping[str, Trial] = field(default_factory=dict)
    drift_by_cause: DriftByCause | None = None
    curvature: Curvature | None = None
    gradients: Gradients | None = None
    theory: Theory | None = None
    not_measured: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: the attributes without `path`, and the layout's version."""
        found = asdict(self)
        del found["path"]
        trials = [asdict(t) | {"mean": t.mean, "error": t.error, "spread": t.spread} for t in self.trials.values()]
        return {"version": PROBE_VERSION, **found, "trials": trials}

    @classmethod
    def from_dict(cls, path: Path, found: Mapping[str, Any]) -> Probes:
        """Return the result of what `to_dict` gave."""
        trials = [_trial(one) for one in found["trials"]]
        made: dict[str, Callable[[Mapping[str, Any]], Any]] = {
            "drift_by_cause": lambda drift: _picked(DriftByCause, drift),
            "curvature": _curvature,
            "gradients": _gradients,
            "theory": _theory,
        }
        parts = {name: make(found[name]) if found[name] else None for name, make in made.items()}
        by_name = {trial.name: trial for trial in trials}
        return _picked(cls, found, path=path, reasons=tuple(found["reasons"]), trials=by_name, **parts)

    def __str__(self) -> str:
        """Return the result as lines of text."""
        lines = [f"state after round {self.round_index}, from {self.source}"]
        lines += [f"bits may differ from the run's: {'; '.join(self.reasons)}"] * bool(self.reasons)
        if self.trials:
            words = self.measure.replace("_", " ")
            lines += ["", f"next round: {words} {self.before:.6g} -> {self.own:.6g}; with one change, against that:"]
            lines += [f"  {_trial_words(trial)}" for trial in self.trials.values()]
        if self.drift_by_cause is not None:
            lines += ["", *_drift_lines(self.drift_by_cause)]
        if self.curvature is not None:
            lines += ["", *_curvature_lines(self.curvature)]
        if self.gradients is not None:
            lines += _gradient_lines(self.gradients)
        if self.theory is not None:
            lines += _theory_lines(self.theory)
        lines += [f"{part.replace('_', ' ')} was not measured: {why}" for part, why in self.not_measured.items()]
        took = ", ".join(f"{part} {value:.2g}" for part, value in self.seconds.items() if part != "total")
        return "\n".join([*lines, "", f"seconds: {self.seconds.get('total', math.nan):.2g} ({took})"])


def _trial_words(trial: Trial) -> str:
    if trial.skipped:
        return f"{trial.name:<22} not played: {trial.skipped}"
    spread = f" ± {trial.error:.2g}" if len(trial.differences) > 1 else ""
    return f"{trial.name:<22} {trial.mean:+.3g}{spread}"


def _drift_lines(drift: DriftByCause) -> list[str]:
    scale = drift.ideal_square or 1.0
    unit = "of the ideal's squared norm" if drift.ideal_square else "squared"

    def shown(value: float, error: float) -> str:
        return f"{value / scale:.3g}" + (f" ± {error / scale:.1g}" if error else "")

    lines = [f"drift by cause: expected squared error of the next aggregate, {unit}"]
    for name in CAUSES:
        lines.append(f"  {NAMES[name]:<22} {shown(drift.causes[name], drift.errors[name])}")
    lines.append(f"  {'residual':<22} {shown(drift.residual, drift.errors['residual'])}")
    lines.append(f"  {'total':<22} {shown(drift.total, drift.errors['total'])}")
    if math.isfinite(drift.observed):
        error = drift.observed_error if math.isfinite(drift.observed_error) else 0.0
        lines.append(f"  {'seen in played rounds':<22} {shown(drift.observed, error)}")
    return lines


def _number(estimate: Estimate) -> str:
    return f"{estimate.value:.4g}" + (f" ± {estimate.error:.1g}" if estimate.error else "")


def _curvature_lines(found: Curvature) -> list[str]:
    share = f", {found.examples:.2g} of the examples" if found.examples < 1 else ""
    numbers = f"L {_number(found.largest)}, mu {_number(found.smallest)}"
    lines = [f"curvature: {numbers} ({found.products} products{share})"]
    return lines + ["  negative curvature: the objective is not convex here"] * found.is_negative


def _gradient_lines(found: Gradients) -> list[str]:
    between = found.between
    return [
        f"gradients: squared norm {between.gradient_square:.4g}, noise of a step within clients "
        f"{_number(found.noise)}, between clients G² {_number(between.between)}, B² {_number(between.ratio)}"
    ]


def _theory_lines(theory: Theory) -> list[str]:
    lines = []
    if theory.limit is not None:
        lines.append(f"theory: local rate {theory.local_lr:.4g}, limit 2 / L = {theory.limit:.4g}")
    if theory.contraction is not None:
        lines.append(f"  predicted factor {theory.contraction:.4g} a round for the distance to the limit")
    if theory.gap is not None:
        lines.append(
            f"  a quadratic with this gradient is {theory.gap.low:.3g} to {theory.gap.high:.3g} above its minimum"
        )
    if theory.floor is not None:
        lines.append(f"  predicted floor {theory.floor.low:.3g} to {theory.floor.high:.3g} above the limit's loss")
    lines += ["  no prediction:"] * bool(theory.failures)
    return lines + [f"  {sentence}" for sentence in (*theory.failures, *theory.remarks)]


def _picked(cls: type[T], found: Mapping[str, Any], **other: Any) -> T:
    """Return a dataclass of the keys of a table that are its fields, some of them made otherwise."""
    known = {f.name: found[f.name] for f in fields(cls) if f.name not in other}  # type: ignore[arg-type]
    return cls(**known, **other)


def _trial(found: Mapping[str, Any]) -> Trial:
    return _picked(Trial, found, sets=tuple(found["sets"]), differences=tuple(found["differences"]))


def _curvature(found: Mapping[str, Any]) -> Curvature:
    ends = {name: _picked(Estimate, found[name]) for name in ("largest", "smallest")}
    return _picked(Curvature, found, **ends, values=tuple(found["values"]), residuals=tuple(found["residuals"]))


def _gradients(found: Mapping[str, Any]) -> Gradients:
    between = found["between"]
    apart = {name: _picked(Estimate, between[name]) for name in ("between", "ratio")}
    return _picked(
        Gradients, found, noise=_picked(Estimate, found["noise"]), between=_picked(Dissimilarity, between, **apart)
    )


def _theory(found: Mapping[str, Any]) -> Theory:
    names = ("floor", "factors", "gap")
    ranges = {name: _picked(Range, found[name]) if found.get(name) else None for name in names}
    sentences = {name: tuple(found[name]) for name in ("failures", "remarks")}
    return _picked(Theory, found, **sentences, **ranges)
