"""Each criterion holds from exactly the right round, and divergence is detected."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clients.core.errors import UserError
from server.convergence.criteria_options import (
    AgreementOptions,
    ErrorFreeOptions,
    GapOptions,
    GradientOptions,
    PlateauOptions,
    PseudoGradientOptions,
    SettledOptions,
    TargetOptions,
)
from server.convergence.divergence import DivergenceOptions
from server.convergence.facts import label_of
from server.convergence.monitor import (
    Assessment,
    ConvergenceMonitor,
    ConvergenceOptions,
    require_measured,
    required_facts,
)
from server.convergence.targets import Reached, TargetTracker
from server.convergence.verdict import Verdict

NEVER = DivergenceOptions(loss_factor=None, spike=None)


def run(options, **series):
    """Observe series of facts from round 0 on; return (round of the verdict or None, the last assessment)."""
    monitor = ConvergenceMonitor(options)
    assessment: Assessment | None = None
    for r, values in enumerate(zip(*series.values(), strict=True)):
        assessment = monitor.observe(r, dict(zip(series, values, strict=True)))
        if assessment.verdict is not None:
            return r, assessment
    return None, assessment


@pytest.mark.parametrize(
    ("options", "series", "fires"),
    [
        ({"target": TargetOptions(metric="validation_accuracy", at_least=0.9)},
         {"validation_accuracy": [0.1, 0.89, 0.9, 0.95]}, 2),
        ({"target": TargetOptions(metric="validation_loss", at_most=0.5)},
         {"validation_loss": [0.9, 0.51, 0.6, 0.5, 0.4]}, 3),
        ({"target": TargetOptions(metric="validation_accuracy", at_least=0.9, hold=3)},
         {"validation_accuracy": [0.91, 0.92, 0.8, 0.91, 0.92, 0.93, 0.94]}, 5),
        ({"plateau": PlateauOptions(min_delta=0.01, patience=3)},
         {"validation_loss": [1.0, 0.5, 0.499, 0.498, 0.497, 0.496]}, 4),
        ({"plateau": PlateauOptions(min_delta=0.01, patience=3)},  # small gains add up to one
         {"validation_loss": [1.0, 0.5, 0.495, 0.489, 0.485, 0.48, 0.478]}, None),
        ({"plateau": PlateauOptions(metric="validation_accuracy", min_delta=0.0, patience=2)},
         {"validation_accuracy": [0.1, 0.2, 0.3, 0.3, 0.2, 0.1]}, 4),
        ({"plateau": PlateauOptions(metric="train_loss", min_delta=0.1, patience=2)},  # never better
         {"train_loss": [1.0, 2.0, 3.0, 4.0]}, None),
        ({"plateau": PlateauOptions(metric="train_loss", min_delta=0.1, patience=2)},  # ends where it began
         {"train_loss": [1.0, 1.05, 0.95, 1.0]}, 2),
        ({"settled": SettledOptions(below=1e-3, hold=2)},
         {"relative_change": [None, 1e-4, 1e-3, 9e-4, 8e-4, 1e-2]}, 4),
        ({"pseudo_gradient": PseudoGradientOptions(below=0.1, hold=2)},
         {"pseudo_gradient_norm": [None, 0.05, 0.2, 0.09, 0.08]}, 4),
        ({"settled": SettledOptions(below=1e-3, hold=3)},  # short steps that grow leave a neighbourhood
         {"relative_change": [None, 1e-6, 2e-6, 4e-6, 8e-6, 16e-6]}, None),
        ({"settled": SettledOptions(below=1e-3, hold=3)},
         {"relative_change": [None, 1e-6, 2e-6, 4e-6, 3e-6, 1e-6]}, 4),
        ({"gradient": GradientOptions(below=0.1)},
         {"gradient_norm": [1.0, 0.1, 0.099]}, 2),
        ({"gap": GapOptions(below=0.1, min_delta=0.01, patience=2)},  # they rise together
         {"train_loss": [0.5, 0.6, 0.8, 1.0, 2.0], "validation_loss": [0.5, 0.61, 0.82, 1.0, 2.0]}, None),
        ({"gap": GapOptions(below=0.1, min_delta=0.01, patience=2)},
         {"train_loss": [1.0, 0.5, 0.5, 0.5, 0.5], "validation_loss": [1.0, 0.6, 0.55, 0.55, 0.55]}, 4),
        ({"gap": GapOptions(below=0.1, min_delta=0.01, patience=2)},  # neither improves, but they are apart
         {"train_loss": [1.0, 0.5, 0.5, 0.5, 0.5], "validation_loss": [1.0, 0.7, 0.7, 0.7, 0.7]}, None),
        ({"agreement": AgreementOptions(at_least=0.99, hold=2)},
         {"agreement": [None, 0.995, 0.98, 0.99, 1.0]}, 4),
        ({"error_free": ErrorFreeOptions(hold=2)},
         {"train_errors": [5, 0, 1, 0, 0, 0]}, 4),
    ],
)  # fmt: skip
def test_criterion_fires_at_its_round(options, series, fires):
    fired, assessment = run(ConvergenceOptions(**options, divergence=NEVER), **series)
    assert fired == fires
    (status,) = assessment.criteria
    assert status.name == next(iter(options))
    assert status.holds == (fires is not None)
    assert status.first_held == fires
    if fires is not None:
        assert status.held_rounds >= status.needed_rounds
        assert assessment.verdict.outcome == "converged"
        assert assessment.verdict.round_index == fires
        assert assessment.verdict.criteria == (status.name,)
        assert assessment.verdict.reasons == (status.words,)


@pytest.mark.parametrize(
    ("options", "series", "fires", "words"),
    [
        (PlateauOptions(metric="validation_accuracy", min_delta=0.0, patience=2), [0.1, 0.2, 0.3, 0.25, 0.2, 0.1], 4,
         "validation accuracy stopped improving: its best was 0.3 in round 2, and it is 0.2 now"),
        (PlateauOptions(metric="train_loss", min_delta=0.1, patience=2), [1.0, 0.5, 0.7, 0.9, 1.0], 3,
         "training loss stopped improving: its best was 0.5 in round 1, and it is 0.9 now"),
        (PlateauOptions(metric="train_loss", min_delta=0.01, patience=4), [1.0, 0.5, 0.8, 0.81, 0.79, 0.82, 0.8], 5,
         "training loss stopped improving: its best was 0.5 in round 1, and it is 0.82 now"),
    ],
)  # fmt: skip
def test_metric_that_stopped_improving_away_from_its_best_has_not_converged(options, series, fires, words):
    fired, assessment = run(ConvergenceOptions(plateau=options, divergence=NEVER), **{options.metric: series})
    assert fired == fires
    assert (assessment.verdict.outcome, assessment.verdict.criteria) == ("stopped", ("plateau",))
    assert assessment.verdict.reasons == (words,)


def test_plateau_names_the_best_value_although_it_gained_less_than_min_delta():
    series = [1.0, 0.5, 0.4999, 0.4997, 0.4998]
    options = PlateauOptions(metric="train_loss", min_delta=1e-3, patience=3)
    _, assessment = run(ConvergenceOptions(plateau=options), train_loss=series)
    assert assessment.verdict.reasons == ("training loss did not beat its best by 0.001 in 3 rounds (best 0.4997)",)


def test_metric_within_its_noise_of_its_best_has_converged():
    random = np.random.default_rng(1)
    series = [1.0, *(0.5 + 0.05 * random.standard_normal(40))]
    options = PlateauOptions(metric="train_loss", min_delta=1e-3, patience=8)
    fired, assessment = run(ConvergenceOptions(plateau=options, divergence=NEVER), train_loss=series)
    assert fired is not None
    assert assessment.verdict.outcome == "converged"
    assert series[fired] > min(series) + 1e-3


@pytest.mark.parametrize("patience", [2, 3, 5, 10])
def test_plateau_counts_anew_after_a_recovery(patience):
    """Half way a fault lifts the loss to 5; it falls back by 0.8 a round, passes its best and rests at 0.4."""
    before = 0.5 + 0.5 * 0.5 ** np.arange(10)
    after = 0.4 + 4.6 * 0.8 ** np.arange(80)
    series = [*before, *after]
    options = PlateauOptions(metric="train_loss", min_delta=1e-3, patience=patience)
    fired, assessment = run(ConvergenceOptions(plateau=options), train_loss=series)
    assert assessment.verdict.outcome == "converged"
    assert series[fired] == pytest.approx(0.4, abs=1e-2)
    best = int(np.argmax(np.array(series) < 0.5))
    assert fired >= best + patience


def test_plateau_above_the_best_after_a_recovery_has_stopped_improving():
    series = [1.0, 0.5, 0.3, 5.0, *(1.0 + 4.0 * 0.5 ** np.arange(1, 30))]
    options = PlateauOptions(metric="train_loss", min_delta=0.01, patience=5)
    fired, assessment = run(ConvergenceOptions(plateau=options), train_loss=series)
    assert series[fired] == pytest.approx(1.0, abs=0.05)
    assert fired > 3 + 5
    assert assessment.verdict.outcome == "stopped"
    assert "its best was 0.3 in round 2" in assessment.verdict.reason


def test_criterion_at_rest_makes_a_run_converged_with_stop_any_alone():
    series = {"train_loss": [1.0, 0.5, 0.7, 0.9], "validation_accuracy": [0.1, 0.2, 0.3, 0.9]}
    both = {
        "plateau": PlateauOptions(metric="train_loss", min_delta=0.1, patience=2),
        "target": TargetOptions(metric="validation_accuracy", at_least=0.9),
    }
    for stop, outcome in (("any", "converged"), ("all", "stopped")):
        fired, assessment = run(ConvergenceOptions(**both, stop=stop), **series)
        assert (fired, assessment.verdict.outcome) == (3, outcome)


def test_round_that_did_not_measure_keeps_the_state():
    monitor = ConvergenceMonitor(ConvergenceOptions(plateau=PlateauOptions(patience=2, min_delta=0.1)))
    first = monitor.observe(0, {}).criteria[0]
    assert (first.measured, first.words, first.needed_rounds) == (False, "validation loss is not measured yet", 2)
    assert math.isinf(first.distance)
    for r, loss in enumerate([1.0, None, 1.0, None, None, 1.0], start=1):
        assessment = monitor.observe(r, {"validation_loss": loss})
        status = assessment.criteria[0]
        assert status.measured == (loss is not None)
        assert ("not measured this round" in status.words) == (loss is None)
    assert assessment.verdict.reasons == ("validation loss did not beat its best by 0.1 in 2 measured rounds (best 1)",)
    assert assessment.verdict.round_index == 6


def test_any_ends_at_the_first_criterion_and_all_at_the_last():
    series = {
        "validation_loss": [1.0, 0.4, 0.3, 0.6, 0.2, 0.1],
        "agreement": [None, 0.5, 0.5, 0.999, 0.999, 0.999],
    }
    both = {
        "target": TargetOptions(metric="validation_loss", at_most=0.5),
        "agreement": AgreementOptions(at_least=0.99, hold=1),
    }
    assert run(ConvergenceOptions(**both), **series)[0] == 1
    fired, assessment = run(ConvergenceOptions(**both, stop="all"), **series)
    assert fired == 4
    assert assessment.verdict.criteria == ("target", "agreement")
    assert assessment.verdict.reasons == (
        "validation loss 0.2, at most 0.5",
        "share of unchanged predictions 0.999, at least 0.99 for 2 rounds",
    )
    assert [status.first_held for status in assessment.criteria] == [1, 3]
    fired, assessment = run(ConvergenceOptions(**both, stop="never"), **series)
    assert fired is None
    assert [status.holds for status in assessment.criteria] == [True, True]


def test_run_without_criteria_never_converges():
    for stop in ("any", "all"):
        assert run(ConvergenceOptions(stop=stop), train_loss=[1.0, 0.0, 0.0])[0] is None


def test_spent_budget_names_the_criteria_that_do_not_hold():
    options = {
        "target": TargetOptions(metric="validation_accuracy", at_least=0.9, hold=2),
        "settled": SettledOptions(below=0.1, hold=1),
        "gap": GapOptions(below=0.1),
    }
    facts = {"validation_accuracy": 0.5, "relative_change": 0.01, "train_loss": 1.0}
    monitor = ConvergenceMonitor(ConvergenceOptions(**options, stop="all"))
    monitor.observe(1, facts)
    verdict = monitor.stopped(1, 1)
    assert (verdict.outcome, verdict.headline) == ("stopped", "Stopped at round 1")
    assert verdict.reasons == (
        "the budget of 1 round is spent",
        "validation accuracy 0.5, needs at least 0.9",
        "training loss and validation loss are not measured yet",
    )
    monitor.observe(2, facts | {"validation_accuracy": 0.9})
    assert monitor.stopped(2, 2).reasons[1] == "validation accuracy 0.9, at least 0.9 (1 of 2 rounds)"
    never = ConvergenceMonitor(ConvergenceOptions(**options, stop="never"))
    never.observe(2, facts)
    assert never.stopped(2, 2).reasons == ("the budget of 2 rounds is spent",)
    assert ConvergenceMonitor(ConvergenceOptions()).stopped(0, 0).reasons == ("the budget of 0 rounds is spent",)


def test_streak_counts_measured_rounds_where_others_lie_between():
    monitor = ConvergenceMonitor(ConvergenceOptions(gradient=GradientOptions(below=1.0, hold=9)))
    words = [
        monitor.observe(r, {"gradient_norm": g}).criteria[0].words for r, g in enumerate([0.5, 0.5, None, 0.5, 2.0])
    ]
    assert words == [
        "norm of the true gradient 0.5, below 1",
        "norm of the true gradient 0.5, below 1 for 2 rounds",
        "norm of the true gradient 0.5, below 1 for 2 rounds, not measured this round",
        "norm of the true gradient 0.5, below 1 for 3 measured rounds",
        "norm of the true gradient 2, needs below 1",
    ]


def test_verdict_survives_its_outcome_file():
    for verdict in (
        Verdict("converged", 9, ("it held", "so did this"), ("target", "gap")),
        Verdict("diverged", 1, ("training loss is nan",), (), "train_loss", math.nan, None, "Lower local_lr."),
    ):
        outcome = verdict.to_outcome()
        assert Verdict.from_outcome(outcome) == verdict
        assert outcome["headline"] == verdict.headline
        assert outcome["words"] == str(verdict)
    assert str(Verdict("converged", 9, ("it held", "so did this"))) == "Converged at round 9: it held; so did this"


def test_outcome_file_with_one_reason_is_still_a_verdict():
    old = {"outcome": "diverged", "round": 3, "words": "diverged at round 3: train_loss is nan",
           "reason": "train_loss is nan", "criteria": [], "quantity": "train_loss", "hint": "less"}  # fmt: skip
    assert Verdict.from_outcome(old) == Verdict("diverged", 3, ("train_loss is nan",), (), "train_loss", hint="less")
    with pytest.raises(KeyError):
        Verdict.from_outcome({"outcome": "diverged", "round": 3})


def test_no_criterion_ends_a_run_before_min_rounds():
    target = TargetOptions(metric="validation_loss", at_most=0.5)
    series = {"validation_loss": [0.1, 0.1, 0.1, 0.1, 0.1]}
    fired, assessment = run(ConvergenceOptions(target=target, min_rounds=3), **series)
    assert fired == 3
    assert assessment.criteria[0].first_held == 0
    assert run(ConvergenceOptions(target=target), **series)[0] == 1  # the initial model ends no run


def test_distance_falls_to_zero_as_a_criterion_comes_near():
    monitor = ConvergenceMonitor(
        ConvergenceOptions(
            stop="never",
            target=TargetOptions(metric="validation_accuracy", at_least=0.8),
            settled=SettledOptions(below=1e-3, hold=1),
            plateau=PlateauOptions(patience=4, min_delta=0.1),
        )
    )
    seen = [
        {status.name: status.distance for status in monitor.observe(r, facts).criteria}
        for r, facts in enumerate(
            {"validation_accuracy": a, "relative_change": c, "validation_loss": 1.0}
            for a, c in [(0.4, 1e-2), (0.6, 2e-3), (0.8, 1e-4)]
        )
    ]
    assert [row["target"] for row in seen] == pytest.approx([0.5, 0.25, 0.0])
    assert [row["settled"] for row in seen] == pytest.approx([9.0, 1.0, 0.0])
    assert [row["plateau"] for row in seen] == pytest.approx([1.0, 0.75, 0.5])


def test_overfitting_is_reported_while_training_loss_falls_and_validation_loss_rises():
    monitor = ConvergenceMonitor(ConvergenceOptions(gap=GapOptions(below=0.05, min_delta=0.01, patience=2)))
    warnings = []
    for r, (train, validation) in enumerate([(1.0, 1.0), (0.8, 0.9), (0.6, 0.95), (0.5, 1.0), (0.5, 1.1), (0.5, 1.2)]):
        warnings.append(monitor.observe(r, {"train_loss": train, "validation_loss": validation}).overfitting)
    assert warnings[:3] == ["", "", ""]
    assert warnings[3] == "validation loss is 0.1 above its best (round 1) while training loss still falls"
    assert warnings[5] == ""  # training no longer falls


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("fact", ["train_loss", "pseudo_gradient_norm", "relative_change", "validation_accuracy"])
def test_number_that_is_not_finite_ends_the_run_at_once(fact, bad):
    options = ConvergenceOptions(
        target=TargetOptions(metric="validation_loss", at_most=1.0), divergence=NEVER, min_rounds=10
    )
    fired, assessment = run(options, validation_loss=[0.5, 0.5, 0.5], **{fact: [0.5, 0.5, bad]})
    assert fired == 2
    assert assessment.verdict.outcome == "diverged"
    assert assessment.verdict.quantity == fact
    assert assessment.verdict.reasons == (f"{label_of(fact)} is {bad}, not a finite number",)
    assert assessment.verdict.value is bad
    assert assessment.verdict.threshold is None
    assert "local_lr" in assessment.verdict.hint


@pytest.mark.parametrize(
    ("losses", "fires"),
    [
        ([1.0, 0.1, 22.0, 23.0], 3),  # a new highest value in two rounds above 1 + 20 x 1
        ([1.0, 0.1, 2.1, 2.2, 5.0, 20.9, 20.9], None),  # far above its best, but not above its start
        ([1.0, 0.0, -1e-9, 10.0, 20.0], None),  # a loss may pass 0
        ([1.0, -0.1, 23.0, 24.0, 25.0], 4),  # the descent to -0.1 adds to the scale: the limit is 1 + 20 x 1.1
        ([-5.0, 60.0, 94.0, 95.0, 96.0, 97.0], 5),  # a loss below 0 has the scale of its size
        ([1.0, 400.0, 260.0, 100.0, 30.0, 10.0, 1.0], None),  # one large transient
        ([1.0, 50.0, *(49.0 - r for r in range(20)), 1.0], None),  # one that falls slowly
        ([1.0, 50.0, 3.0, 200.0, 5.0], 3),  # an oscillation that grows
        ([1.0, 30.0, 2.0, 25.0, 2.0, 20.0, 1.0], None),  # and one that shrinks
        ([1.0, 50.0, *([40.0] * 11)], 12),  # stays above its limit without falling, ten rounds
        ([1.0, 22.0, *([1.0] * 10), 22.0, *([1.0] * 10), 22.0], None),  # it recovers every time
        ([0.0, 0.0, 1.0, 20.0, 21.0, 22.0], 5),  # a loss that starts at 0 has the scale of its first change
    ],
)
def test_loss_that_grows_far_above_its_start_ends_the_run(losses, fires):
    fired, assessment = run(ConvergenceOptions(), train_loss=losses)
    assert fired == fires
    if fires is not None:
        verdict = assessment.verdict
        assert verdict.quantity == "train_loss"
        assert f"training loss {losses[fires]:.4g} is above its limit {verdict.threshold:.4g}, " in verdict.reasons[0]
        assert "the limit is 20 times the scale of its start (" in verdict.reasons[1]
        assert verdict.value == losses[fires] > verdict.threshold
    assert run(ConvergenceOptions(divergence=NEVER), train_loss=losses)[0] is None


def test_loss_that_rises_to_a_floor_by_ever_shorter_steps_has_not_diverged():
    """From the optimum to a biased fixed point the gap grows without bound in units of its start, and converges."""
    path = 1.0 - 0.9 ** np.arange(60)
    steps = [None, *np.abs(np.diff(path))]
    assert run(ConvergenceOptions(), optimality_gap=list(path**2), step_norm=steps)[0] is None
    grows = 1.1 ** np.arange(60)
    assert run(ConvergenceOptions(), optimality_gap=list(grows**2), step_norm=[None, *np.diff(grows)])[0] is not None


def test_known_gap_is_judged_instead_of_the_losses():
    series = {"optimality_gap": [1.0, 0.5, 0.2, 0.1], "train_loss": [0.1, 5.0, 50.0, 500.0]}
    assert run(ConvergenceOptions(), **series)[0] is None
    assert run(ConvergenceOptions(), train_loss=series["train_loss"])[0] == 2


def test_run_that_never_stops_ends_at_numbers_that_are_not_finite_alone():
    never = ConvergenceOptions(stop="never", divergence=DivergenceOptions(spike=2.0, patience=1))
    losses = [1.0, 25.0, 1e6, 1e9, 1e300]
    fired, _ = run(never, train_loss=losses, largest_gradient_norm=losses)
    assert fired is None
    assert run(never, train_loss=[*losses, math.inf])[0] == 5
    monitor = ConvergenceMonitor(never)
    for r, loss in enumerate([1.0, 5.0, 30.0, 40.0]):
        monitor.observe(r, {"train_loss": loss})
    budget, grown = monitor.stopped(3, 3).reasons
    assert budget == "the budget of 3 rounds is spent"
    assert grown.startswith("it would count as diverged from round 2 on: training loss 40 is above its limit 21, ")
    monitor.observe(4, {"train_loss": 2.0})
    assert monitor.stopped(4, 4).reasons == ("the budget of 4 rounds is spent",)


def test_rounds_that_did_not_measure_the_loss_do_not_reset_its_patience():
    assert run(ConvergenceOptions(), validation_loss=[1.0, 25.0, None, None, 26.0])[0] == 4


def test_gradient_spike_ends_the_run():
    calm = [3.0, 1.0, 2.0, 4.0, 2.0]  # median 2
    options = ConvergenceOptions(divergence=DivergenceOptions(spike=100.0, patience=1))
    assert run(options, largest_gradient_norm=[*calm, 200.0])[0] is None
    fired, assessment = run(options, largest_gradient_norm=[*calm, 201.0])
    assert fired == 5
    assert assessment.verdict.quantity == "largest_gradient_norm"
    assert "Clip" in assessment.verdict.hint
    assert run(options, largest_gradient_norm=[*calm[:4], 1e9])[0] is None  # four rounds are too few
    assert run(options, largest_gradient_norm=[0.0] * 6 + [1.0])[0] is None  # no scale to compare with
    low = [*calm, *([1e-6] * 20)]  # the median of a run that converges falls: an ordinary norm is no spike
    assert run(options, largest_gradient_norm=[*low, 199.0])[0] is None
    assert run(options, largest_gradient_norm=[*low, 201.0])[0] == 25
    patient = ConvergenceOptions(divergence=DivergenceOptions(spike=100.0))
    assert run(patient, largest_gradient_norm=[*calm, 1e4, 2.0, 1e4, 1e4])[0] == 8


def test_divergence_wins_over_convergence():
    options = ConvergenceOptions(target=TargetOptions(metric="validation_loss", at_most=1.0))
    fired, assessment = run(options, validation_loss=[2.0, 0.5], train_loss=[1.0, math.nan])
    assert (fired, assessment.verdict.outcome, assessment.verdict.criteria) == (1, "diverged", ())
    assert assessment.criteria[0].holds


def test_required_facts_are_those_of_the_criteria():
    options = ConvergenceOptions(
        target=TargetOptions(metric="federated_accuracy", at_least=0.5),
        gradient=GradientOptions(below=1.0),
        gap=GapOptions(below=1.0),
    )
    assert required_facts(options) == {"federated_accuracy", "gradient_norm", "train_loss", "validation_loss"}
    assert required_facts(ConvergenceOptions()) == frozenset()
    require_measured(options, required_facts(options))
    with pytest.raises(UserError, match=r"gradient: needs gradient_norm .* this run does not measure") as caught:
        require_measured(options, {"federated_accuracy", "train_loss", "validation_loss"})
    assert caught.value.field == "gradient"
    with pytest.raises(UserError, match="Metrics this run measures: train_loss, validation_loss"):
        require_measured(options, {"train_loss", "validation_loss"})


@pytest.mark.parametrize(
    ("make", "field", "words"),
    [
        (lambda: PlateauOptions(metric="validation_los"), "metric", "Nearest: 'validation_loss'"),
        (lambda: PlateauOptions(metric="test_loss"), "metric", "test examples decide nothing"),
        (lambda: PlateauOptions(metric="gradient_norm"), "metric", "is not a metric that may stop a run"),
        (lambda: PlateauOptions(patience=0), "patience", "at least 1, got 0"),
        (lambda: PlateauOptions(min_delta=-0.1), "min_delta", ">= 0 and finite, got -0.1"),
        (lambda: TargetOptions(metric="validation_loss"), "at_most", "must be given"),
        (lambda: TargetOptions(metric="validation_loss", at_least=0.1), "at_least", "use at_most"),
        (lambda: TargetOptions(metric="validation_accuracy", at_most=0.1), "at_most", "use at_least"),
        (lambda: TargetOptions(metric="train_loss", at_most=math.nan), "at_most", "finite"),
        (lambda: TargetOptions(metric="train_loss", at_most=1.0, hold=0), "hold", "at least 1"),
        (lambda: SettledOptions(below=0.0), "below", "> 0 and finite, got 0.0"),
        (lambda: AgreementOptions(at_least=99.0), "at_least", "in \\(0, 1\\], got 99.0"),
        (lambda: GapOptions(below=-1.0), "below", "> 0"),
        (lambda: DivergenceOptions(loss_factor=1.0), "loss_factor", "above 1"),
        (lambda: DivergenceOptions(spike=math.inf), "spike", "finite"),
        (lambda: DivergenceOptions(patience=0), "patience", "at least 1"),
        (lambda: ConvergenceOptions(stop="some"), "stop", "any, all, never, got 'some'"),
        (lambda: ConvergenceOptions(min_rounds=0), "min_rounds", "at least 1"),
    ],
)
def test_mistake_names_its_field(make, field, words):
    with pytest.raises(UserError, match=words) as caught:
        make()
    assert caught.value.field == field


def test_target_counts_from_the_first_round_of_the_streak_that_held():
    tracker = TargetTracker(TargetOptions(metric="validation_error", at_most=0.1, hold=3))
    errors = [0.5, 0.1, 0.09, 0.2, 0.1, None, 0.08, math.nan, 0.1, 0.1, None, 0.1, 0.9]
    reached = [tracker.observe(r, error, seconds=2.0 * r, sent=1000.0 * r) for r, error in enumerate(errors)]
    assert reached[:11] == [None] * 11
    assert reached[11] == reached[12] == tracker.reached == Reached(rounds=8, seconds=16.0, bytes=8000.0)
