"""Every fault and drift can name its clients, and says where a setting of it has no effect."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fedscape as fs
from clients.concept_drift.table import DRIFTS
from clients.core.errors import UserError
from clients.core.population import Population
from clients.faults.table import FAULTS
from clients.federation.build import Federation, build_federation, ground_truth_of
from clients.federation.effects import rounds_notices
from clients.sources.custom import custom_population
from clients.world.options import WorldOptions
from simulator.scenario.sections import Scenario, parse_scenario

NAMES = ("Aotizhongxin", "Huairou", "Shunyi", "Wanliu")
NEEDED: dict[str, dict[str, Any]] = {"label_class_dependent": {"rates": [0.9, 0.9, 0.9]}}
every_fault = pytest.mark.parametrize("kind", list(FAULTS))
every_drift = pytest.mark.parametrize("kind", list(DRIFTS))


def stations(*, named: bool = True) -> Population:
    """Four clients of 40 classified examples with five features."""

    def client(k: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(k)
        return random.normal(size=(40, 5)), random.integers(0, 3, 40)

    return custom_population(client, [40] * 4, outputs=3, names=NAMES if named else None)


def scenario(**sections: Any) -> Scenario:
    return parse_scenario(sections, source="the test")


def federation(section: str, options: dict[str, Any], *, named: bool = True, **more: Any) -> Federation:
    parsed = scenario(**{section: {"it": NEEDED.get(options["kind"], {}) | options}})
    return Federation(data=stations(named=named), faults=parsed.faults, drifts=parsed.drifts, seed=4, **more)


def changed(p: Population) -> list[str]:
    """Return the names of the clients whose examples in round 1 are not those without faults and drifts."""
    ours, theirs = (q.cohort(np.arange(4)) for q in (p.during(1), stations()))
    return [
        NAMES[k]
        for k in range(4)
        if not all(np.array_equal(a, b) for a, b in zip(
            (ours.client(k).features, ours.client(k).targets),
            (theirs.client(k).features, theirs.client(k).targets), strict=True))
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind, row in FAULTS.items() if not getattr(row, "needs_other_unit", False)])
def test_fault_changes_the_clients_that_it_names(kind: str) -> None:
    given = federation("faults", {"kind": kind, "severity": 1.0, "clients": ["Shunyi", "Huairou"]})
    p = build_federation(given)
    assert changed(p) == ["Huairou", "Shunyi"]
    assert p.history.events is not None
    assert "clients Huairou, Shunyi) starts" in p.history.events(1)[0]["message"]
    truth = ground_truth_of(given, p)
    assert truth is not None
    found = truth["faults"]["it"]
    assert (found["affected"], found["clients"], found["names"]) == (2, [1, 2], ["Huairou", "Shunyi"])
    assert found["options"]["clients"] == ("Shunyi", "Huairou")


@every_drift
def test_drift_changes_the_clients_that_it_names(kind: str) -> None:
    given = federation("drifts", {"kind": kind, "clients": ["Wanliu"], "duration": 1.0, "start": 0.0})
    p = build_federation(given)
    assert changed(p) == ["Wanliu"]
    assert p.history.events is not None
    assert "client Wanliu) starts" in p.history.events(1)[0]["message"]
    truth = ground_truth_of(given, p)
    assert truth is not None
    assert truth["drifts"]["it"]["names"] == ["Wanliu"]


@pytest.mark.parametrize("section", ["faults", "drifts"])
@pytest.mark.parametrize("given", [["0", "3"], [0, 3], [3, "0"]])
def test_clients_without_names_have_numbers(section: str, given: list[Any]) -> None:
    kind = {"faults": "noise", "drifts": "abrupt"}[section]
    assert changed(build_federation(federation(section, {"kind": kind, "clients": given}, named=False))) == [
        "Aotizhongxin",
        "Wanliu",
    ]


@pytest.mark.parametrize("section", ["faults", "drifts"])
@pytest.mark.parametrize(
    ("given", "named", "says"),
    [
        (["Huairu"], True, r"it.clients: 'Huairu' is not one of the 4 clients of these data. Nearest: 'Huairou'"),
        ("Huairu", True, r"Nearest: 'Huairou'"),
        (["4"], False, r"it.clients: '4' is not one of the 4 clients of these data, '0' to '3'"),
        (["01"], False, r"'01' is not one of the 4 clients"),
        ([], True, r"must name at least one client"),
        (["Wanliu", "Wanliu"], True, r"names 'Wanliu' twice"),
        ([0.5], True, r"must be a share from 0 to 1, or names of clients, got \[0.5\]"),
        (1.5, True, r"must be from 0 to 1, got 1.5"),
    ],
)
def test_wrong_names_are_refused(section: str, given: Any, named: bool, says: str) -> None:
    kind = {"faults": "noise", "drifts": "abrupt"}[section]
    with pytest.raises(UserError, match=says):
        build_federation(federation(section, {"kind": kind, "clients": given}, named=named))


@every_fault
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"districts": ["Harbour"]}, "faults.it.districts: names 'Harbour', and these data have no districts"),
        ({"schedule": {"unit": "hours"}}, "faults.it.schedule.unit: is 'hours', and these data have no clock"),
    ],
)
def test_fault_refuses_districts_and_hours_that_data_lack(kind: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        build_federation(federation("faults", {"kind": kind, **options}))


@every_drift
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"districts": ["Harbour"]}, "drifts.it.districts: names 'Harbour', and these data have no districts"),
        ({"unit": "hours"}, "drifts.it.unit: is 'hours', and these data have no clock"),
    ],
)
def test_drift_refuses_districts_and_hours_that_data_lack(kind: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        build_federation(federation("drifts", {"kind": kind, **options}))


@every_fault
def test_fault_that_never_starts_is_stated(kind: str) -> None:
    faults = federation("faults", {"kind": kind, "schedule": {"start": 21}}).faults
    assert rounds_notices(faults, {}, 20) == ["faults.it does nothing: it starts in round 21, and the last round is 20"]
    assert rounds_notices(faults, {}, 21) == []


@every_drift
def test_drift_that_never_starts_is_stated(kind: str) -> None:
    drifts = federation("drifts", {"kind": kind, "start": 21}).drifts
    assert rounds_notices({}, drifts, 20) == ["drifts.it does nothing: it starts in round 21, and the last round is 20"]
    assert rounds_notices({}, drifts, 21) == []


def test_facts_of_a_run_have_the_notices() -> None:
    started: list[dict[str, Any]] = []

    class Header:
        def run_started(self, facts: dict[str, Any]) -> None:
            started.append(facts)

    sets = ["partition.clients=4", "algorithm.cohort=2", "run.rounds=1",
            "faults.late={kind='noise', schedule={start=5}}", "faults.out={kind='gateway_outage'}"]  # fmt: skip
    fs.simulate(fs.load_scenario("digits-iid", sets=sets), record=False, observers=[Header()])
    assert started[0]["notices"] == [
        "faults.out: these data have no clock, so a gateway outage counts each example as an hour, and without "
        "districts it hits all of its clients at once",
        "faults.late does nothing: it starts in round 5, and the last round is 1",
    ]


def test_fault_that_affects_nobody_is_stated() -> None:
    p = build_federation(federation("faults", {"kind": "noise", "clients": 0.001}))
    assert p.federation.notices == ("faults.it affects no client: a share of 0.001 chose none of those with examples",)


@pytest.mark.parametrize("key", ["days", "rain_share", "storms_per_month", "mean_temperature", "power_cuts_per_month"])
def test_keys_of_a_world_that_nothing_reads_are_refused(key: str) -> None:
    given = Federation(data=stations(), world=WorldOptions(**{key: 0.5 if key == "rain_share" else 7}))
    with pytest.raises(UserError, match=f"world.{key}: is .*, and nothing reads it: 'custom' data do not come from"):
        build_federation(given)
    placed = build_federation(Federation(data=stations(), world=WorldOptions(districts=3, radius_km=2.0)))
    assert len(placed.federation.districts) == 3


def test_population_of_the_city_keeps_its_world() -> None:
    sets = ["data.clients=3", "world.days=20", "world.storms_per_month=9.0"]
    given = fs.load_scenario("city-traffic", sets=sets)
    build_federation(Federation(data=fs.population(given), world=given.world))


@pytest.mark.parametrize(("faults", "kinds"), [({}, set()), ({"out": {"kind": "gateway_outage"}}, {"storm"})])
def test_recorded_data_announce_no_power_cuts(faults: dict[str, Any], kinds: set[str]) -> None:
    """A [world] places the clients of recorded data; its power cuts never happened to them."""
    data = stations()
    hours = lambda clients: np.tile(np.arange(40.0), len(clients))  # noqa: E731
    data = replace(data, clients=replace(data.clients, hours=hours))
    world = WorldOptions(storms_per_month=30.0) if faults else WorldOptions()
    p = build_federation(Federation(data=data, world=world, faults=scenario(faults=faults).faults))
    events = [] if p.history.events is None else p.history.events(1)
    assert {e["kind"] for e in events} & {"storm", "power_cut"} == kinds


def test_outages_are_listed_where_clients_are() -> None:
    sets = ["data.clients=3", "faults.out={kind='gateway_outage', severity=1.0}"]
    given = fs.load_scenario("city-traffic", sets=sets)
    p = fs.population(given)
    truth = ground_truth_of(Federation(data=given.data, world=given.world, faults=given.faults, seed=given.run.seed), p)
    assert truth is not None
    homes = set(p.places(np.arange(3)).district.tolist())
    assert {outage["district"] for outage in truth["outages"]} == homes
    assert len(homes) < len(p.federation.districts)
