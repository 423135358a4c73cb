"""data_truth.json and the events of the clock agree with masks and levels of the data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import city_populations as city
import numpy as np
import pytest

from clients.concept_drift.options import DriftOptions
from clients.core.population import Population
from clients.faults.label_options import LabelSymmetricOptions
from clients.faults.options import Schedule
from clients.faults.packet_options import GatewayOutageOptions
from clients.faults.sensor_options import NoiseOptions
from clients.federation.build import build_federation, ground_truth_of
from clients.federation.ground_truth import MOST_EVENTS

EVERYONE = np.arange(city.CLIENTS)
OUT = GatewayOutageOptions(severity=1.0, share=0.3, fill="zero")
CLOCKED = Schedule(unit="hours", start=100.5, stop=300)


def made(name: str, **more: Any) -> tuple[Population, dict[str, Any]]:
    federation = city.federation(name, **more)
    population = build_federation(federation)
    truth = ground_truth_of(federation, population)
    assert truth is not None
    return population, truth


def when(p: Population, k: int, steps: int) -> np.ndarray:
    """Return the hour of each reading of a series, or of each example."""
    assert p.clients.hours is not None
    if p.federation.training_ends is None:
        return p.clients.hours(np.array([k]))
    return np.arange(steps) * p.federation.training_ends / steps


@pytest.mark.parametrize("schedule", [Schedule(), CLOCKED, Schedule(start=3)], ids=["always", "clock", "rounds"])
@pytest.mark.parametrize("name", ["traffic, 15 minutes", "air", "intrusion", "activity"])
def test_outages_match_the_masks(name: str, schedule: Schedule) -> None:
    p, truth = made(name, faults={"out": replace(OUT, schedule=schedule)})
    now = p.during(3)
    for k, district in zip(EVERYONE, now.places(EVERYONE).district, strict=True):
        mask = now.masks(np.array([k]))["out"][0]
        hours = when(now, int(k), len(mask))
        listed = np.zeros(len(hours), bool)
        for outage in truth["outages"]:
            if outage["district"] == district:
                listed |= (hours >= outage["start"]) & (hours < outage["start"] + outage["hours"])
        assert np.array_equal(listed, mask.reshape(len(mask), -1).any(axis=1))
    assert all(o["fault"] == "out" for o in truth["outages"])
    starts = [o["start"] for o in truth["outages"]]
    assert starts == sorted(starts)


def test_fault_counts_match_the_masks() -> None:
    faults = {
        "noisy": NoiseOptions(severity=0.7, clients=0.6),
        "late": NoiseOptions(severity=0.7, clients=0.5, schedule=CLOCKED),
        "wrong": LabelSymmetricOptions(severity=0.6, clients=0.7, schedule=Schedule(start=4)),
    }
    p, truth = made("traffic, congestion", faults=faults)
    found = p.during(4).masks(EVERYONE)
    measured = np.array([c.measured for c in p.spec.channels])
    for name, recorded in truth["faults"].items():
        shares = np.array([(m[:, measured] if m.ndim > 1 else m).mean() for m in found[name]])
        touched = np.flatnonzero(shares)
        assert 0 < len(touched) < city.CLIENTS
        assert recorded["clients"] == touched.tolist()
        assert recorded["affected"] == recorded["measured_on"] == len(touched)
        assert recorded["changed"] == pytest.approx(shares[touched].mean(), rel=1e-5)


@pytest.mark.parametrize("unit", ["rounds", "hours"])
def test_drifts_start_when_the_ground_truth_says(unit: str) -> None:
    start, stagger = (2.0, 6.0) if unit == "rounds" else (200.0, 200.0)
    drift = DriftOptions(unit=unit, start=start, stagger=stagger, clients=0.7)  # type: ignore[arg-type]
    p, truth = made("intrusion", drifts={"turn": drift})
    recorded = truth["drifts"]["turn"]
    starts = dict(zip(recorded["clients"], recorded["starts"], strict=True))
    assert 0 < len(starts) < city.CLIENTS
    plain = city.clean("intrusion")
    assert plain.clients.hours is not None
    for k in EVERYONE.tolist():
        before = city.examples(plain, [k])[1]
        for round_index in range(10):
            now = p.during(round_index)
            differs = city.examples(now, [k])[1] != before
            assert now.history.drift_levels is not None
            level = now.history.drift_levels(np.array([k]))["turn"][0]
            if unit == "rounds":
                assert differs.any() == (level > 0) == (round_index >= starts.get(k, np.inf))
            else:
                drifted = plain.clients.hours(np.array([k])) >= starts.get(k, np.inf)
                assert (level > 0) == drifted.any()
                assert not differs[~drifted].any()
                assert differs.sum() > 0.3 * drifted.sum() - 1


def test_clock_events_are_announced_once_when_their_fault_begins() -> None:
    faults = {"out": replace(OUT, schedule=Schedule(start=3, stop=5)), "never": replace(OUT, clients=0.0)}
    p, truth = made("air", faults=faults)
    assert p.history.events is not None
    announced = {r: [e for e in p.history.events(r) if e["kind"] == "outage"] for r in range(1, 8)}
    assert {r for r, events in announced.items() if events} == {3}
    assert len(truth["outages"]) > MOST_EVENTS
    assert [(e["from_hour"], e["hours"], e["district"]) for e in announced[3]] == [
        (round(o["start"], 3), round(o["hours"], 3), p.federation.districts[o["district"]])
        for o in truth["outages"][:MOST_EVENTS]
    ]
    city_events = [e["kind"] for r in range(1, 8) for e in p.history.events(r) if e["kind"] in ("storm", "power_cut")]
    assert len(city_events) == len(truth["world"]["storms"]) + len(truth["world"]["power_cuts"])
    assert all(e["kind"] not in ("storm", "power_cut") for e in p.history.events(2))


def test_data_without_a_clock_announce_no_outages() -> None:
    p, truth = made("digits", faults={"out": OUT})
    assert truth["faults"]["out"]["changed"] > 0
    assert truth["outages"] == []
    assert p.history.events is not None
    assert [e["kind"] for e in p.history.events(1)] == ["fault_started"]
