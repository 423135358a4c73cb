"""Samples and times from lines of the record: sums over rounds, histograms, clocks, the end of a run."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.core.errors import UserError
from server.dispersion.histograms import EDGES, Histogram, counted
from server.metrics.run_stream import Moment, RunStream, recorded_moments
from server.metrics.samples import RunFold, Sample, round_samples
from server.metrics.table import METRICS
from server.metrics.timeline import EPOCH_MS, Timeline
from server.sinks.openmetrics import openmetrics

FACTS = {"run_id": "a", "rounds": 3}


def line(r: int, **more: Any) -> dict[str, Any]:
    return {"round": r, "simulated_seconds_total": 1.5 * r, "bytes_total": 8 * r, "finished_at": 1e9 + r, **more}


LINES = [
    line(0, validation_loss=2.0),
    line(1, validation_loss=1.0, train_loss=1.5, respondents=3, failures=1, cohort=4),
    line(2, validation_loss=0.5, train_loss=1.25, respondents=4, failures=0, cohort=4),
]
OUTCOME = {"outcome": "converged", "round": 2, "test_loss": 0.75}


def value(samples: list[Sample], name: str, **labels: str) -> float:
    (found,) = [s.value for s in samples if s.name == name and dict(s.labels) == labels]
    return found


def test_counters_add_up_and_gauges_do_not() -> None:
    fold = RunFold()
    found = [round_samples(fold.observe(one)) for one in LINES]
    assert [value(s, "fedscape_client_responses_total") for s in found] == [0, 3, 7]
    assert [value(s, "fedscape_client_failures_total") for s in found] == [0, 1, 1]
    assert [value(s, "fedscape_sent_bytes_total") for s in found] == [0, 8, 16]
    assert [value(s, "fedscape_failures") for s in found[1:]] == [1, 0]
    assert "fedscape_failures" not in {s.name for s in found[0]}


@given(st.lists(st.floats(allow_nan=True, width=32), min_size=1, max_size=60), st.sampled_from(sorted(EDGES)))
def test_buckets_are_the_numbers_at_or_below_their_edge(values: list[float], name: str) -> None:
    array = np.array(values)
    found = dict(Histogram(EDGES[name]).plus(counted({name: array})[name], mean=0.0).cumulative())
    assert [found[repr(edge)] for edge in EDGES[name]] == [int((array <= edge).sum()) for edge in EDGES[name]]
    assert found["+Inf"] == len(values)


def test_histograms_add_up_over_rounds_and_begin_at_zero() -> None:
    fold, values = RunFold(), [np.array([0.02, 0.2]), np.array([0.02, 500.0, 0.0])]
    observed = [fold.observe(line(0))]
    for r, drift in enumerate(values, start=1):
        one = line(r, client_drift={"mean": float(drift.mean())}, histograms=counted({"client_drift": drift}))
        observed.append(fold.observe(one))
    name = "fedscape_client_drift_distribution"
    found = [round_samples(one) for one in observed]
    assert [value(s, f"{name}_bucket", le="0.03") for s in found] == [0, 1, 3]
    assert [value(s, f"{name}_bucket", le="100.0") for s in found] == [0, 2, 4]
    assert [value(s, f"{name}_bucket", le="+Inf") for s in found] == [0, 2, 5]
    assert [value(s, f"{name}_count") for s in found] == [0, 2, 5]
    assert [value(s, f"{name}_sum") for s in found] == pytest.approx([0, 0.22, 500.24])
    assert value(found[0], "fedscape_update_cosine_distribution_bucket", le="1.0") == 0
    assert "fedscape_update_cosine_distribution_bucket" not in {s.name for s in found[2]}, "never counted in this run"


def test_edges_of_an_older_record_fall_into_the_next_higher_bucket() -> None:
    assert Histogram((1.0, 2.0)).plus({"0.5": 1, "1.5": 2, "7.0": 4}, mean=0.0).counts == [1, 2, 4]


def test_rounds_lie_a_second_apart_on_the_round_clock() -> None:
    stream = RunStream(FACTS, "round")
    assert [stream.take(one).at - EPOCH_MS for one in LINES] == [0, 1000, 2000]
    assert stream.labels == (("run_id", "a"), ("clock", "round"))


def test_other_clocks_follow_the_record() -> None:
    simulated, wall = RunStream(FACTS, "simulated"), RunStream(FACTS, "wall")
    assert [simulated.take(one).at - EPOCH_MS for one in LINES] == [0, 1500, 3000]
    assert [wall.take(one).at for one in LINES] == [1_000_000_000_000, 1_000_000_001_000, 1_000_000_002_000]


@given(st.lists(st.floats(0, 1e6) | st.just(math.nan), min_size=1, max_size=30))
def test_times_always_grow(seconds: list[float]) -> None:
    timeline = Timeline("simulated")
    found = [timeline.stamp({"simulated_seconds_total": s}) for s in seconds]
    assert all(a < b for a, b in pairwise(found))


def test_record_without_times_of_day_has_no_wall_clock() -> None:
    with pytest.raises(UserError, match="has no end times of rounds"):
        Timeline("wall").stamp({"round": 1})
    with pytest.raises(UserError, match="'rounds' is not a clock"):
        Timeline("rounds")  # type: ignore[arg-type]


def test_is_future_excludes_now() -> None:
    timeline = Timeline("wall", now=lambda: 1000.0)
    assert not timeline.is_future(1_000_000)
    assert timeline.is_future(1_002_000)


def moments(clock: Any, outcome: dict[str, Any] | None) -> list[Moment]:
    return list(recorded_moments(FACTS, LINES, outcome, clock)[1])


def test_series_end_between_the_last_round_and_a_next_one() -> None:
    *rounds, final, ended, over = moments("round", OUTCOME)
    assert len(rounds) == 3
    assert [m.at - EPOCH_MS for m in (final, ended, over)] == [2250, 2500, 3500]
    assert value(list(final.samples), "fedscape_test_loss") == 0.75
    assert value(list(final.samples), "fedscape_run_state", state="converged") == 1
    assert value(list(final.samples), "fedscape_run_state", state="running") == 0
    seen = {(s.name, s.labels) for m in rounds for s in m.samples}
    assert {*ended.ends, *over.ends} == seen | {(s.name, s.labels) for s in final.samples}
    assert ("fedscape_loss", (("split", "train"),)) in ended.ends
    assert not set(ended.ends) & set(over.ends)


def test_interrupted_run_continues_where_it_ended() -> None:
    *_, final, ended = moments("round", {"outcome": "interrupted", "round": 2})
    assert ended.at < EPOCH_MS + 3000
    assert {(s.name, s.labels) for s in final.samples} <= set(ended.ends)


def test_run_without_an_outcome_has_no_end() -> None:
    assert len(moments("round", None)) == 3


def test_outcome_on_the_wall_clock_stays_for_alerts() -> None:
    *_, final, ended = moments("wall", OUTCOME)
    assert not {(s.name, s.labels) for s in final.samples} & set(ended.ends)


def test_openmetrics_text_has_every_sample_with_its_time() -> None:
    stream, found = recorded_moments(FACTS, LINES, OUTCOME, "round")
    text = list(openmetrics(found, stream.labels))
    assert text[-1] == "# EOF"
    assert 'fedscape_loss{clock="round",run_id="a",split="train"} 1.25 946684802.000' in text
    assert 'fedscape_test_loss{clock="round",run_id="a"} 0.75 946684802.250' in text
    assert text.count("# TYPE fedscape_sent_bytes counter") == 1
    assert text.count("# UNIT fedscape_sent_bytes bytes") == 1
    assert 'fedscape_sent_bytes_total{clock="round",run_id="a"} 16.0 946684802.000' in text
    samples = [one for one in text if not one.startswith("#")]
    assert len(samples) == sum(len(m.samples) for m in moments("round", OUTCOME))


def test_openmetrics_escapes_text_and_spells_non_finite_numbers() -> None:
    words = 'back\\slash "quoted"\nline'
    made = [
        Moment(0, [Sample("fedscape_layer_update_dispersion", (("layer", words),), x)]) for x in (math.inf, math.nan)
    ]
    text = list(openmetrics(made, ()))
    assert r'{layer="back\\slash \"quoted\"\nline"} +Inf 0.000' in text[-3]
    assert text[-2].endswith("NaN 0.000")


def test_help_is_one_line() -> None:
    assert not any("\n" in metric.help for metric in METRICS.values())
