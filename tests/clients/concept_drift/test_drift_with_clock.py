"""Drifts where examples have times, clients have districts, and the server's examples have owners; and their events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from clients.concept_drift.application import with_drifts
from clients.concept_drift.drift_rule import TILT, DriftRule
from clients.concept_drift.options import DriftOptions
from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.errors import UserError
from clients.core.examples import Examples
from clients.core.population import Population
from clients.core.population_parts import CentralData, CentralExamples, Places
from clients.sources.custom import custom_population

SIZES, HELD, CLASSES, SEED, NAME = [5, 0, 3, 1], 2, 3, 5, "turn"
DISTRICTS = ("North", "South", "West")
DISTRICT = np.array([0, 1, 2, 1])
OWNERS = np.random.default_rng(1).choice([0, 2, 3], 40)
"""Owners of the server's test examples, in no order."""
WHEN = np.random.default_rng(2).integers(5, 15, 40).astype(np.float64)
"""Hours of the server's examples."""


def rows_of(k: int, size: int) -> tuple[F64, I64]:
    random = np.random.default_rng(40 + k)
    return random.normal(size=(size, 4)), random.integers(0, CLASSES, size)


def hours(clients: I64) -> F64:
    """Hours of training examples: 8, 9, 10, ... plus the client's index."""
    return np.concatenate([8.0 + k + np.arange(SIZES[k]) for k in clients] or [np.zeros(0)])


def held_hours(clients: I64) -> F64:
    """Hours of held-out examples: 9 and 11."""
    return np.tile([9.0, 11.0], len(clients))


def central(owners: I64 | None) -> CentralExamples:
    x, y = rows_of(90, len(OWNERS))
    examples = Examples(torch.from_numpy(x), torch.from_numpy(y))
    return CentralExamples(examples, owners, WHEN, torch.arange(len(OWNERS)))


def city() -> Population:
    """Return four clients, one without data, whose examples have times and places."""
    p = custom_population(
        lambda k: rows_of(k, SIZES[k]), SIZES, outputs=CLASSES, feature_shape=(4,), dtype=torch.float64,
        client_test=lambda k: rows_of(60 + k, HELD), client_test_sizes=[HELD] * 4,
    )  # fmt: skip

    def places(clients: I64) -> Places:
        return Places(np.zeros(len(clients)), np.zeros(len(clients)), DISTRICT[clients])

    federation = replace(p.federation, places=places, districts=DISTRICTS, client_name=lambda k: f"sensor {k}")
    clients = replace(
        p.clients, hours=hours, held_out_hours=held_hours, held_out_steps=lambda k: np.zeros(2 * len(k), np.int64),
        held_out_latest=lambda k: np.zeros(2 * len(k)),
    )  # fmt: skip
    history = replace(p.history, events=lambda r: [{"kind": "fault", "round": r}])
    server = CentralData(validation=central(None), test=central(OWNERS))
    return replace(p, federation=federation, clients=clients, central=server, history=history)


def drifted(population: Population | None = None, **options: Any) -> Population:
    return with_drifts(population or city(), {NAME: DriftOptions(**options)}, seed=SEED)


def targets(cohort: Any, clients: I64) -> list[int]:
    data = cohort(clients)
    return [int(y) for y in data.targets[torch.from_numpy(data.rows)]]


def turned(labels: list[int], when: F64, start: float) -> list[int]:
    return [(y + 1) % CLASSES if hour >= start else y for y, hour in zip(labels, when, strict=True)]


EVERY = np.arange(4)


def test_labels_turn_from_the_hour_on_wherever_the_examples_are() -> None:
    p, moved = city(), drifted(unit="hours", start=10.0)
    assert p.clients.held_out is not None
    assert moved.clients.held_out is not None
    before = targets(p.clients.cohort, EVERY)
    assert targets(moved.clients.cohort, EVERY) == turned(before, hours(EVERY), 10.0) != before
    held = targets(p.clients.held_out, EVERY)
    assert targets(moved.clients.held_out, EVERY) == turned(held, held_hours(EVERY), 10.0)
    _, labels = rows_of(90, len(OWNERS))
    for part in (moved.central.validation, moved.central.test):
        assert part is not None
        assert part.examples.targets.tolist() == turned(labels.tolist(), WHEN, 10.0)
        assert part.latest is None, "another window may be the example now"
    assert moved.clients.held_out_steps is None
    assert moved.clients.held_out_latest is None
    counts, now = moved.clients.label_counts, turned(before, hours(EVERY), 10.0)
    assert counts is not None
    owners = np.repeat(EVERY, SIZES)
    assert counts(EVERY).tolist() == [
        [sum(o == k and y == c for o, y in zip(owners, now, strict=True)) for c in range(CLASSES)] for k in EVERY
    ]


def test_level_of_a_client_is_that_of_its_latest_example() -> None:
    """The last hours are 12, none, 12 and 11; a client without data stays at hour 0."""
    moved = drifted(unit="hours", kind="incremental", start=10.0, duration=8.0)
    levels = moved.history.drift_levels
    assert levels is not None
    np.testing.assert_allclose(levels(EVERY)[NAME], [0.25, 0.0, 0.25, 0.125], rtol=1e-15)
    np.testing.assert_allclose(levels(np.array([1, 3]))[NAME], [0.0, 0.125], rtol=1e-15)
    assert levels(np.array([1]))[NAME].tolist() == [0.0], "a cohort without examples has no latest hour"
    slow = drifted(unit="hours", kind="incremental", start=0.0, duration=8.0).history.drift_levels
    assert slow is not None
    assert slow(EVERY)[NAME].tolist() == [1.0, 0.0, 1.0, 1.0]
    assert drifted(unit="hours", start=0.0).history.drift_levels(EVERY)[NAME].tolist() == [1.0] * 4  # type: ignore[misc]


def test_central_examples_are_drawn_from_those_of_the_same_owner() -> None:
    x, y = rows_of(90, len(OWNERS))
    made = DriftRule(NAME, DriftOptions(changes="p(x)", strength=0.5), city(), SEED)
    weights = np.exp(TILT * 0.5 * made.projection(torch.from_numpy(x)))
    expected = []
    for i, k in enumerate(OWNERS):
        (u,) = streams.uniforms(streams.keys(SEED, f"concept drift/{NAME}/draw", int(k), i), 1)
        mine = np.flatnonzero(k == OWNERS)
        expected.append(int(mine[np.argmax(np.cumsum(weights[mine]) / weights[mine].sum() >= u)]))
    part = drifted(changes="p(x)", strength=0.5).during(1).central.test
    assert part is not None
    np.testing.assert_array_equal(part.examples.features.numpy(), x[expected])
    assert part.examples.targets.tolist() == y[expected].tolist()
    assert OWNERS[expected].tolist() == OWNERS.tolist()
    assert expected != list(range(len(OWNERS)))


def test_only_the_named_districts_drift() -> None:
    p = drifted(districts=("South", "West"))
    assert p.during(1).history.drift_levels(EVERY)[NAME].tolist() == [0.0, 1.0, 1.0, 1.0]  # type: ignore[misc]
    p = drifted(districts=("West",))
    assert p.during(1).history.drift_levels(np.array([3, 2]))[NAME].tolist() == [0.0, 1.0]  # type: ignore[misc]
    without_places = replace(city(), federation=replace(city().federation, places=None))
    p = drifted(without_places, districts=("North",))
    assert p.during(1).history.drift_levels(EVERY)[NAME].tolist() == [1.0] * 4  # type: ignore[misc]


def test_events_of_the_clock_stand_in_the_first_round_after_those_of_faults() -> None:
    events = drifted(unit="hours", start=10.5, clients=0.5, districts=("West", "North")).history.events
    assert events is not None
    assert events(2) == [{"kind": "fault", "round": 2}]
    facts = {"name": NAME, "drift": "abrupt", "changes": "p(y|x)", "strength": 1.0}
    about = f"concept drift {NAME} (abrupt, p(y|x), 50% of clients in West, North)"
    message = f"{about}: from hour 10.5 of the clock"
    assert events(1) == [
        {"kind": "fault", "round": 1},
        {"kind": "drift_started", **facts, "from_hour": 10.5, "message": message},
    ]


def test_events_in_rounds_are_the_turns_of_the_drift() -> None:
    plain = replace(city(), history=replace(city().history, events=None))
    events = drifted(plain, kind="gradual", start=2.0, duration=3.0, clients=(1, 3), strength=0.5).history.events
    assert events is not None
    facts = {"name": NAME, "drift": "gradual", "changes": "p(y|x)", "strength": 0.5}
    about = f"concept drift {NAME} (gradual, p(y|x), clients sensor 1, sensor 3)"
    assert [events(r) for r in (1, 3, 4)] == [[], [], []]
    assert events(2) == [{"kind": "drift_started", **facts, "message": f"{about} starts"}]
    assert events(5) == [{"kind": "drift_level", **facts, "message": f"{about} is complete"}]
    for off in ({"strength": 0.0}, {"clients": 0.0}):
        assert drifted(plain, start=2.0, **off).history.events(2) == []  # type: ignore[misc]


def test_round_is_made_once_and_anew_where_the_data_below_change() -> None:
    base = city()
    by_clock = drifted(unit="hours", start=10.0)
    assert by_clock.history.schedule is None
    assert by_clock.during(3) is by_clock
    by_rounds = drifted(start=2.0)
    assert by_rounds.during(2) is by_rounds.during(2) is not by_rounds.during(3)
    assert by_rounds.during(2).history.schedule is None
    before = targets(base.clients.cohort, EVERY)
    assert targets(by_rounds.clients.cohort, EVERY) == targets(by_rounds.during(1).clients.cohort, EVERY) == before
    assert targets(by_rounds.during(2).clients.cohort, EVERY) == [(y + 1) % CLASSES for y in before]
    seen: list[int] = []

    def schedule(round_index: int) -> Population:
        seen.append(round_index)
        return early if round_index < 2 else late

    early = replace(base, history=replace(base.history, schedule=schedule))
    late = drifted(city(), start=0.0)
    changing = replace(base, history=replace(base.history, schedule=schedule))
    moved = drifted(changing, unit="hours", start=10.0)
    once = turned(before, hours(EVERY), 10.0)
    assert targets(moved.during(1).clients.cohort, EVERY) == once
    assert targets(moved.during(2).clients.cohort, EVERY) == turned(
        [(y + 1) % CLASSES for y in before], hours(EVERY), 10.0
    )
    assert seen == [0, 1, 2]
    assert moved.during(1).history.schedule is None, "a round's population does not change"


def test_drift_in_hours_needs_the_time_of_every_example() -> None:
    p = city()
    untimed = CentralExamples(central(OWNERS).examples, OWNERS)
    for what, without in (
        ("data have", replace(p, clients=replace(p.clients, hours=None))),
        ("held-out examples have", replace(p, clients=replace(p.clients, held_out_hours=None))),
        ("validation examples have", replace(p, central=replace(p.central, validation=untimed))),
        ("test examples have", replace(p, central=replace(p.central, test=untimed))),
    ):
        with pytest.raises(UserError, match=f"drifts.{NAME}.unit: is 'hours', and these {what} no clock"):
            drifted(without, unit="hours")
        drifted(without)
    bare = replace(p, clients=replace(p.clients, held_out=None, held_out_hours=None), central=CentralData())
    moved = drifted(bare, unit="hours", start=10.0)
    assert moved.clients.held_out is None
    assert moved.central == CentralData()
    assert drifted(replace(p, clients=replace(p.clients, label_counts=None))).clients.label_counts is None


def test_district_and_relation_that_the_data_lack_are_refused() -> None:
    with pytest.raises(UserError, match=f"drifts.{NAME}.districts: 'East' is not a district"):
        drifted(districts=("East",))
    bare = replace(city(), federation=replace(city().federation, districts=(), places=None))
    with pytest.raises(UserError, match=f"drifts.{NAME}.districts: names 'North', and these data have no districts"):
        drifted(bare, districts=("North",))
    copies = replace(city(), spec=replace(city().spec, reconstructs=True))
    with pytest.raises(UserError, match=rf"drifts.{NAME}.changes: is 'p\(y\|x\)', and the targets of these data are"):
        drifted(copies)
    drifted(copies, changes="p(x)")
