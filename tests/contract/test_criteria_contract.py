"""Every convergence criterion of `CRITERIA` obeys one list of properties."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.convergence import criteria_options as kinds
from server.convergence.criteria import CRITERIA
from server.convergence.facts import FACTS, NO_AGGREGATE, facts_of
from server.convergence.monitor import ConvergenceMonitor, ConvergenceOptions, required_facts
from server.convergence.outcome import Trend, to_target

HOLD = 3
EVERY = {
    "target": kinds.TargetOptions(metric="validation_accuracy", at_least=0.5, hold=HOLD),
    "plateau": kinds.PlateauOptions(metric="validation_loss", min_delta=0.1, patience=HOLD),
    "settled": kinds.SettledOptions(below=0.5, hold=HOLD),
    "pseudo_gradient": kinds.PseudoGradientOptions(below=0.5, hold=HOLD),
    "gradient": kinds.GradientOptions(below=0.5, hold=HOLD),
    "gap": kinds.GapOptions(below=0.5, min_delta=0.1, patience=HOLD),
    "agreement": kinds.AgreementOptions(at_least=0.5, hold=HOLD),
    "error_free": kinds.ErrorFreeOptions(hold=HOLD),
}
"""One example of every criterion; each needs three measured rounds."""
MET = {
    "train_loss": 1.0, "validation_loss": 1.0, "validation_accuracy": 0.9, "relative_change": 0.1,
    "pseudo_gradient_norm": 0.1, "gradient_norm": 0.1, "agreement": 0.9, "train_errors": 0.0,
}  # fmt: skip
"""Facts that meet every criterion, round after round."""
UNMET = {**MET, "validation_accuracy": 0.1, "relative_change": 1.0, "pseudo_gradient_norm": 1.0, "gradient_norm": 1.0,
         "agreement": 0.1, "train_errors": 2.0, "validation_loss": 0.25, "train_loss": 0.25}  # fmt: skip

values = st.one_of(st.none(), st.sampled_from([0.0, 0.2, 0.5, 0.6, 1.0]), st.floats(0.0, 3.0))
wild = st.one_of(values, st.sampled_from([math.nan, math.inf, -1e300, 1e300]))


def records(fact_values):
    """Rounds 0, 1, ... of facts, some of them missing."""
    return st.lists(
        st.dictionaries(st.sampled_from([*MET, "largest_gradient_norm", "other"]), fact_values), max_size=25
    )


def options_of(name, **more):
    return ConvergenceOptions(**{name: EVERY[name]}, **more)


def test_every_criterion_has_an_example_and_a_field_of_its_options():
    fields = {field.name: field for field in dataclasses.fields(ConvergenceOptions)}
    assert (
        list(EVERY) == list(CRITERIA) == [name for name in fields if name not in ("stop", "min_rounds", "divergence")]
    )
    for name, row in CRITERIA.items():
        assert type(EVERY[name]) is row.options
        assert fields[name].type == row.options | None
        assert row.label
        assert "_" not in row.label
    assert list(ConvergenceOptions(**EVERY).criteria()) == list(CRITERIA)


@pytest.mark.parametrize("name", EVERY)
def test_options_are_frozen_strict_and_optional(name):
    with pytest.raises(TypeError, match="unknown_key"):
        type(EVERY[name])(unknown_key=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        EVERY[name].hold = 1
    assert getattr(ConvergenceOptions(), name) is None
    assert required_facts(options_of(name)) <= set(FACTS)


@pytest.mark.parametrize("name", EVERY)
def test_criterion_holds_from_its_third_measured_round_until_it_is_unmet(name):
    waits = name in ("plateau", "gap")  # the first round sets the best
    monitor = ConvergenceMonitor(options_of(name, stop="never"))
    holds = [monitor.observe(r, MET).criteria[0].holds for r in range(5)]
    assert holds == ([False, False, False, True, True] if waits else [False, False, True, True, True])
    assert monitor.observe(5, {}).criteria[0].holds  # not measured: unchanged
    status = monitor.observe(6, UNMET).criteria[0]
    assert not status.holds
    assert status.distance > 0.0
    assert status.first_held == (3 if waits else 2)


@pytest.mark.parametrize("name", EVERY)
def test_fact_that_is_not_finite_resets_the_held_rounds(name):
    monitor = ConvergenceMonitor(options_of(name, stop="never"))
    for r in range(5):
        monitor.observe(r, MET)
    for fact in required_facts(options_of(name)):
        status = monitor.observe(monitor.last.round_index + 1, {**MET, fact: math.nan}).criteria[0]
        assert (status.holds, status.held_rounds, status.distance) == (False, 0, math.inf)
        assert math.isnan(status.value)


@pytest.mark.parametrize("name", EVERY)
@given(record=records(wild))
@settings(max_examples=30)
def test_any_facts_give_a_status_and_no_error(name, record):
    options = options_of(name)
    monitor = ConvergenceMonitor(options)
    measured = 0
    for r, facts in enumerate(record):
        assessment = monitor.observe(r, facts)
        (status,) = assessment.criteria
        has_all = all(facts.get(fact) is not None for fact in required_facts(options))
        measured += has_all
        assert status.measured == has_all
        assert status.words
        assert "_" not in status.words
        assert status.needed_rounds == HOLD
        assert status.distance >= 0.0
        assert status.held_rounds <= measured
        assert status.holds == (status.held_rounds >= HOLD)
        assert not (status.holds and measured < HOLD)
        assert (status.first_held is not None) >= status.holds
        finite = all(math.isfinite(value) for fact, value in facts.items() if fact in FACTS and value is not None)
        if not finite:
            assert assessment.verdict.outcome == "diverged"
        elif assessment.verdict is not None and assessment.verdict.outcome == "converged":
            assert status.holds
            assert r >= 1


@given(record=records(wild), stop=st.sampled_from(["any", "all", "never"]), cut=st.integers(0, 25))
@settings(max_examples=60)
def test_replay_equals_observing_and_can_continue_from_any_round(record, stop, cut):
    options = ConvergenceOptions(**EVERY, stop=stop)
    rounds = list(enumerate(record))
    whole = ConvergenceMonitor(options)
    assessments = [whole.observe(r, facts) for r, facts in rounds]
    resumed = ConvergenceMonitor.replay(options, rounds[:cut])
    assert [resumed.observe(r, facts) for r, facts in rounds[cut:]] == assessments[cut:]
    assert resumed == whole == ConvergenceMonitor.replay(options, rounds)


@given(record=records(values))
@settings(max_examples=40)
def test_criteria_do_not_influence_each_other(record):
    together = ConvergenceMonitor(ConvergenceOptions(**EVERY, stop="never"))
    alone = {name: ConvergenceMonitor(options_of(name, stop="never")) for name in EVERY}
    for r, facts in enumerate(record):
        for status in together.observe(r, facts).criteria:
            assert status == alone[status.name].observe(r, facts).criteria[0]


@given(record=records(values))
@settings(max_examples=40)
def test_any_is_no_later_than_all(record):
    def first(stop):
        monitor = ConvergenceMonitor(ConvergenceOptions(**EVERY, stop=stop))
        for r, facts in enumerate(record):
            if monitor.observe(r, facts).verdict is not None:
                return r
        return math.inf

    assert first("any") <= first("all")


padding = st.lists(st.integers(1, 25), max_size=12)
"""Positions at which rounds without an aggregate are added; round 0 is the initial model."""


def ending(name, lines, **more):
    """Return how many rounds with an aggregate came before the verdict, that one included, and its outcome."""
    monitor, evidence = ConvergenceMonitor(options_of(name, **more)), 0
    for r, line in enumerate(lines):
        evidence += not line.get(NO_AGGREGATE)
        verdict = monitor.observe(r, facts_of(line)).verdict
        if verdict is not None:
            assert not line.get(NO_AGGREGATE), "a round without an aggregate ends no run"
            return evidence, verdict.outcome
    return math.inf, None


def padded(record, where):
    """Return the lines of a record with rounds without an aggregate added; those measure the model as it was."""
    lines = list(record)
    for position in where:
        at = min(position, len(lines))
        lines.insert(
            at, {**MET, "relative_change": 0.0, "agreement": 1.0, "largest_gradient_norm": 1.0, NO_AGGREGATE: True}
        )
    return lines


@pytest.mark.parametrize("name", EVERY)
@given(record=records(values), where=padding, at_least=st.integers(1, 9))
@settings(max_examples=40)
def test_rounds_without_an_aggregate_never_make_a_verdict_earlier(name, record, where, at_least):
    plain = ending(name, record)
    assert ending(name, padded(record, where)) == plain
    assert ending(name, padded(record, where), min_rounds=at_least)[0] >= plain[0]


@pytest.mark.parametrize("name", EVERY)
def test_rounds_without_an_aggregate_leave_a_criterion_as_it_is(name):
    monitor = ConvergenceMonitor(options_of(name))
    monitor.observe(0, {})
    before = monitor.observe(1, MET).criteria[0]
    for r in range(2, 40):
        assessment = monitor.observe(r, facts_of({**MET, NO_AGGREGATE: True}))
        assert assessment.verdict is None
        assert assessment.criteria[0].held_rounds == before.held_rounds
        assert not assessment.criteria[0].measured


@given(factor=st.floats(0.3, 0.9), where=padding)
@settings(max_examples=30)
def test_rounds_without_an_aggregate_change_neither_rate_nor_rounds_to_a_target(factor, where):
    target = kinds.TargetOptions(metric="validation_loss", at_most=1.1, hold=HOLD)
    totals = {"simulated_seconds_total": 0.0, "bytes_total": 0}
    record = [{"validation_loss": 1.0 + factor**r} for r in range(24)]
    found = []
    for lines in (record, padded(record, where)):
        lines = [{**line, **totals, "round": r} for r, line in enumerate(lines)]
        trend = Trend(ConvergenceOptions(target=target))
        for line in lines:
            trend.observe(line)
        reached = to_target(lines, target).get("rounds")
        spent = sum(not line.get(NO_AGGREGATE) for line in lines[1 : reached + 1]) if reached is not None else None
        found.append((trend.fit(whole=True), spent))
    assert found[0] == found[1]


def test_rounds_are_observed_once_and_in_order():
    monitor = ConvergenceMonitor(ConvergenceOptions())
    monitor.observe(3, {})
    with pytest.raises(AssertionError):
        monitor.observe(3, {})
