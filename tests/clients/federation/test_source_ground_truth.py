"""The ground truth of a generated source, which no model sees, agrees with the data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedscape as fs
from clients.city.bridge import bridge_source
from clients.city.intrusion import intrusion_source
from clients.city.roads.network import make_incidents
from clients.city.series_options import TrafficOptions
from clients.city.source_types import MOST_LISTED
from clients.city.traffic import traffic_source
from clients.city.window_options import BridgeOptions, IntrusionOptions
from clients.concept_drift.options import DriftOptions
from clients.faults.table import FAULTS
from clients.federation.build import Federation, build_federation, ground_truth_of
from clients.federation.options import FeatureOptions
from clients.world.options import WorldOptions
from clients.world.world import make_world
from server.record.jsonlines import from_json, to_json
from server.record.records import RunFolder

WORLD = make_world(WorldOptions(days=14), 3)


def recorded_truth(source: Any) -> dict[str, Any]:
    """Return a source's ground truth in the form of a record."""
    assert source.ground_truth is not None
    found: dict[str, Any] = from_json(to_json(source.ground_truth()))
    return found


def test_ground_truth_lists_damaged_bridges_and_onsets() -> None:
    options = BridgeOptions(clients=30, windows=60, damage=2.0, growth_hours=0.0)
    source = bridge_source(options, WORLD, 5)
    truth = recorded_truth(source)
    onset = np.full(30, np.inf)
    onset[truth["clients"]] = truth["onset_hour"]
    assert truth["damaged"] == len(truth["clients"]) == source.facts["damaged_bridges"]
    assert 0 < truth["damaged"] < 30
    everyone = np.arange(30)
    assert source.hours is not None
    for part in ("train", "validation", "test"):
        sizes = {"train": source.sizes, "validation": source.validation_sizes, "test": source.test_sizes}[part]
        labels, hours = source.make(everyone, part)[1], source.hours(everyone, part)  # type: ignore[arg-type]
        owner = np.repeat(everyone, sizes)
        clear = np.abs(hours - onset[owner]) > 0.001  # hours are rounded to a thousandth
        np.testing.assert_array_equal(labels[clear], (hours >= onset[owner])[clear])
    assert truth["level_at_the_end"] == [2.0] * truth["damaged"]


def test_ground_truth_has_the_level_of_growing_damage() -> None:
    options = BridgeOptions(clients=40, windows=20, damaged=1.0, damage=2.0, growth_hours=200.0, onset=(0.1, 0.9))
    truth = recorded_truth(bridge_source(options, WORLD, 5))
    assert truth["damaged"] == 40
    since = (WORLD.hours - np.array(truth["onset_hour"])) / 200.0
    np.testing.assert_allclose(truth["level_at_the_end"], 2.0 * np.minimum(since, 1.0), atol=1e-4)
    assert min(truth["level_at_the_end"]) < 1.0 < max(truth["level_at_the_end"])


def test_ground_truth_lists_a_thousand_and_counts_all() -> None:
    truth = recorded_truth(bridge_source(BridgeOptions(clients=1500, windows=2, damaged=1.0), WORLD, 0))
    assert truth["damaged"] == 1500
    assert [len(truth[name]) for name in ("clients", "onset_hour", "level_at_the_end")] == [MOST_LISTED] * 3
    options = IntrusionOptions(clients=1200, windows=2, susceptibility=3.0, campaigns_per_month=30.0)
    infections = recorded_truth(intrusion_source(options, WORLD, 0))["infections"]
    assert infections["of_devices_below"] == 1000
    assert infections["count"] > MOST_LISTED
    assert len(infections["client"]) == MOST_LISTED
    assert infections["onset_hour"] == sorted(infections["onset_hour"])
    truth = recorded_truth(traffic_source(TrafficOptions(clients=3, incidents_per_day=200.0), WORLD, 0))
    assert truth["incidents"] > len(truth["first_incidents"]) == MOST_LISTED


def test_ground_truth_lists_campaigns_and_infected_clients() -> None:
    options = IntrusionOptions(clients=60, windows=80, active=1.0, campaigns_per_month=12.0)
    source = intrusion_source(options, WORLD, 2)
    truth = recorded_truth(source)
    assert len(truth["campaigns"]) == source.facts["campaigns"] > 2
    assert source.places is not None
    district = source.places(np.arange(60)).district
    rows = truth["infections"]
    held = list(zip(rows["client"], rows["campaign"], rows["onset_hour"], rows["end_hour"], strict=True))
    assert rows["count"] == len(held) > 10
    for client, campaign, onset, end in held:
        reached = truth["campaigns"][campaign]["reached_hour"]
        assert reached[WORLD.names[district[client]]] <= onset <= end
    assert source.hours is not None
    attacks = 0
    for part, sizes in (("train", source.sizes), ("test", source.test_sizes)):
        labels, hours = source.make(np.arange(60), part)[1], source.hours(np.arange(60), part)  # type: ignore[arg-type]
        for client, hour, label in zip(np.repeat(np.arange(60), sizes), hours, labels, strict=True):
            infected = any(k == client and onset - 0.001 <= hour < end + 0.001 for k, _, onset, end in held)
            assert infected or not label, "only what a campaign holds attacks"
            attacks += bool(label)
    assert attacks > 50


def test_ground_truth_lists_the_incidents_behind_the_queues() -> None:
    options = TrafficOptions(clients=200, incidents_per_day=20.0)
    source = traffic_source(options, WORLD, 3)
    truth = recorded_truth(source)
    made = make_incidents(WORLD, options.roads, options.incidents_per_day)
    assert truth["incidents"] == len(truth["first_incidents"]) == len(made.start)
    np.testing.assert_allclose([one["start_hour"] for one in truth["first_incidents"]], made.start, atol=1e-3)
    calm = traffic_source(TrafficOptions(clients=200, incidents_per_day=0.0), WORLD, 3)
    assert recorded_truth(calm) == {"incidents": 0, "first_incidents": []}
    names = [source.client_name(k) for k in range(200)]
    assert {one["road"] for one in truth["first_incidents"]} <= {
        f"road {r}{d}" for r in range(options.roads) for d in "+-"
    }
    slowed = 0
    for one in truth["first_incidents"]:
        near = [k for k, name in enumerate(names) if name.startswith(f"{one['road']} km ")]
        near = [k for k in near if abs(float(re.split(" km ", names[k])[1]) - one["km"]) < 1.0]
        step = int((one["start_hour"] + one["clear_hour"]) / 2.0 / source.step_hours)
        if near and step < source.ends[2]:
            there, free = (s.read(np.array(near), step, step + 1)[:, 0, 0] for s in (source, calm))
            slowed += bool((there < 0.9 * free).any())
    assert slowed > 5


def test_ground_truth_survives_faults_features_and_drifts(tmp_path: Path) -> None:
    federation = Federation(
        data=BridgeOptions(clients=8, windows=20),
        world=WorldOptions(days=14),
        faults={"noisy": FAULTS["noise"].options()},
        drifts={"turn": DriftOptions(kind="abrupt", start=2)},
        features=FeatureOptions(normalise="federated"),
    )
    population = build_federation(federation)
    truth = ground_truth_of(federation, population)
    assert truth is not None
    clean = build_federation(Federation(data=federation.data, world=federation.world))
    assert clean.history.ground_truth is not None
    assert truth["source"] == {"name": "bridge", **clean.history.ground_truth()}
    fs.simulate(
        fs.load_scenario("city-bridge", sets=["data.clients=6", "data.windows=12", "algorithm.cohort=3", "run.rounds=1",
                                              "evaluation.baselines=false", "engine.threads=1", "engine.workers=1"]),
        out=tmp_path / "run",
    )  # fmt: skip
    written = RunFolder(tmp_path / "run").read_truth()
    assert written is not None
    assert written["source"]["name"] == "bridge"
    assert written["source"]["damaged"] == len(written["source"]["clients"])


def test_source_without_ground_truth_adds_none() -> None:
    federation = Federation(data=fs.load_scenario("city-meters").data, world=WorldOptions(days=28))
    truth = ground_truth_of(federation, build_federation(federation))
    assert truth is not None
    assert "source" not in truth


@pytest.mark.parametrize("task", ["damage", "reconstruct"])
def test_ground_truth_does_not_depend_on_the_order_of_calls(task: Any) -> None:
    options = BridgeOptions(clients=9, windows=12, task=task)
    before = recorded_truth(source := bridge_source(options, WORLD, 1))
    source.make(np.arange(9), "test")
    assert recorded_truth(source) == before
