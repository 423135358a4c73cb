"""Every generated source, its populations and their faults have the properties listed here."""

from __future__ import annotations

from dataclasses import replace

import city_populations as city
import numpy as np
import pytest
import torch

from clients.city.source_types import SeriesSource, WindowSource
from clients.core.errors import UserError
from clients.faults.apply import affected
from clients.faults.label_options import LabelSymmetricOptions
from clients.faults.options import Schedule
from clients.faults.packet_options import GatewayOutageOptions, MissingOptions
from clients.faults.sensor_options import BiasOptions, NoiseOptions, StuckAtOptions
from clients.federation.data_kinds import GENERATED
from clients.federation.series_readings import SeriesSpan, faulty_readings
from clients.federation.series_windows import series_population
from clients.partition.options import IidOptions
from clients.world.world import make_world

every = pytest.mark.parametrize("name", city.OPTIONS)
with_digits = pytest.mark.parametrize("name", [*city.OPTIONS, "digits"])

NOISE = {"noisy": NoiseOptions(severity=0.6, clients=0.5)}
SEVERAL = {
    "stuck": StuckAtOptions(severity=0.7),
    "noisy": NoiseOptions(severity=0.6, clients=0.5),
    "out": GatewayOutageOptions(severity=0.8),
}


def source_of(name: str, seed: int = 3) -> SeriesSource | WindowSource:
    options = city.options(name)
    return GENERATED[options.kind].build(options, make_world(city.WORLD, seed), seed)


def test_list_has_every_source() -> None:
    assert {given["kind"] for given in city.OPTIONS.values()} == set(GENERATED)


@with_digits
def test_seed_decides_every_byte(name: str) -> None:
    ours = city.examples(city.population(name), [0, 4, 8])
    again = city.examples(city.population(name), [0, 4, 8])
    other = city.examples(city.population(name, seed=4), [0, 4, 8])
    assert all(np.array_equal(a, b) for a, b in zip(ours[:2], again[:2], strict=True))
    assert ours[0].shape != other[0].shape or not np.array_equal(ours[0], other[0])


@with_digits
@pytest.mark.parametrize("faults", [{}, SEVERAL], ids=["clean", "faulty"])
def test_client_does_not_depend_on_other_clients(name: str, faults: dict[str, object]) -> None:
    together = city.examples(city.population(name, faults=faults), list(range(city.CLIENTS)))
    ends = np.cumsum([0, *together[2]])
    for k in (5, 0):
        alone = city.examples(city.population(name, faults=faults), [k])
        own = slice(ends[k], ends[k + 1])
        assert np.array_equal(alone[0], together[0][own])
        assert np.array_equal(alone[1], together[1][own])
    some = city.examples(city.population(name, faults=faults), [7, 2])
    assert np.array_equal(some[0][: some[2][0]], together[0][ends[7] : ends[8]])


@with_digits
def test_examples_are_finite_and_have_their_shape(name: str) -> None:
    p = city.clean(name)
    features, targets, sizes = city.examples(p, list(range(city.CLIENTS)))
    assert sizes == p.sizes.tolist()
    assert features.shape == (sum(sizes), *p.feature_shape)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    if p.task == "classification":
        assert targets.dtype == np.int64
        assert targets.min() >= 0
        assert targets.max() < p.outputs
        counts = p.clients.label_counts(np.arange(city.CLIENTS))  # type: ignore[misc]
        assert counts.sum() == sum(sizes)
        assert np.array_equal(counts.sum(axis=0), np.bincount(targets, minlength=p.outputs))
    else:
        assert targets.shape == (sum(sizes), p.outputs)
        assert np.isfinite(targets).all()
    for central in (p.central.validation, p.central.test):
        assert central is not None
        assert torch.isfinite(central.examples.features).all()
        assert tuple(central.examples.features.shape[1:]) == p.feature_shape
        if central.owners is not None:
            assert len(central.owners) == len(central.examples)
            assert central.owners.min() >= 0
            assert central.owners.max() < city.CLIENTS


@every
def test_readings_stay_within_the_sensors_range(name: str) -> None:
    source = source_of(name)
    clients = np.arange(city.CLIENTS)
    if isinstance(source, SeriesSource):
        values = source.read(clients, 0, source.ends[2])
    else:
        values = source.make(clients, "train")[0].reshape(-1, len(source.channels))
    for j, channel in enumerate(source.channels):
        assert values[..., j].min() >= np.float32(channel.low), channel
        assert values[..., j].max() <= np.float32(channel.high), channel
        spread = abs(values[..., j] - channel.mean).max() / channel.deviation
        assert spread < 200, f"{channel.name}: nominal mean and deviation are far from what is read"


@every
def test_parts_follow_each_other_in_time(name: str) -> None:
    p = city.clean(name)
    assert p.clients.hours is not None
    assert p.clients.held_out_hours is not None
    everyone = np.arange(city.CLIENTS)
    train, owner = p.clients.hours(everyone), np.repeat(everyone, p.sizes)
    last = np.array([train[owner == k].max() for k in everyone])
    for central in (p.central.validation, p.central.test):
        assert central is not None
        assert central.hours is not None
        assert (central.hours > last[central.owners]).all()
    for k in everyone:
        held = p.clients.held_out_hours(np.array([k]))
        assert not len(held) or held.min() > last[k]
        mine = train[owner == k]
        assert (np.diff(mine) >= 0).all(), "examples are in order of time"


@pytest.mark.parametrize("name", [n for n in city.OPTIONS if isinstance(source_of(n), SeriesSource)])
def test_training_windows_read_nothing_of_later_parts(name: str) -> None:
    source = source_of(name)
    assert isinstance(source, SeriesSource)
    inner = source.read

    def read(clients: np.ndarray, start: int, stop: int) -> np.ndarray:
        assert stop <= source.ends[0] or start >= source.ends[0], "a span lies in one part"
        values = inner(clients, start, stop).copy()
        if start >= source.ends[0]:
            values[:] = np.nan
        return values

    p = series_population(replace(source, read=read), {}, seed=3)
    features, targets, _ = city.examples(p, [0, 1])
    assert np.isfinite(features).all()
    assert np.isfinite(targets).all()


@with_digits
def test_fault_of_severity_0_changes_no_bit(name: str) -> None:
    faults = {n: replace(f, severity=0.0) for n, f in SEVERAL.items()}
    ours, plain = city.population(name, faults=faults), city.clean(name)
    for a, b in zip(city.examples(ours, [1, 3]), city.examples(plain, [1, 3]), strict=True):
        assert np.array_equal(a, b)
    assert all((share == 0).all() for share in ours.cohort(np.arange(4)).fault_counts.changed.values())  # type: ignore[misc]


@with_digits
def test_fault_counts_equal_the_mask_and_grow_with_severity(name: str) -> None:
    before = None
    everyone = np.arange(city.CLIENTS)
    for severity in (0.2, 0.5, 1.0):
        p = city.population(name, faults={"bias": BiasOptions(severity=severity, clients=0.6)})
        masks, found = p.masks(everyone)["bias"], p.cohort(everyone).fault_counts
        assert found is not None
        channels = p.spec.channels
        measured = np.array([c.measured for c in channels]) if channels else np.ones(p.feature_shape[-1], bool)
        shares = [m.reshape(-1, len(measured))[:, measured].mean() if m.size else 0.0 for m in masks]
        np.testing.assert_allclose(found.changed["bias"], shares, rtol=1e-5)
        if before is not None:
            assert (found.effect["bias"] >= before).all()
            assert found.effect["bias"].sum() > before.sum()
        before = found.effect["bias"]
        district = p.places(everyone).district if p.federation.places is not None else 0 * everyone
        touched = affected("bias", BiasOptions(severity=severity, clients=0.6), everyone, district, 3)
        assert ((found.changed["bias"] > 0) == (touched & (p.sizes > 0))).all()


@every
def test_masks_are_exact(name: str) -> None:
    source = source_of(name)
    clients = np.arange(4)
    if isinstance(source, SeriesSource):
        span = SeriesSpan(source, 0, source.ends[0], starts=np.arange(0))
        faulty, masks = faulty_readings(span, clients, NOISE, seed=3)
        truth = source.read(clients, 0, source.ends[0])
        assert np.array_equal(faulty != truth, masks["noisy"])
        assert masks["noisy"].any()
        return
    p, plain = city.population(name, faults=NOISE), city.clean(name)
    mask = np.concatenate(p.masks(clients)["noisy"])  # type: ignore[misc]
    ours, truth = city.examples(p, clients.tolist())[0], city.examples(plain, clients.tolist())[0]
    assert np.array_equal(ours[~mask], truth[~mask])
    assert (
        ours[mask] != truth[mask]
    ).mean() > 0.999  # a change below the last bit of the standardised value may vanish


@with_digits
def test_held_out_examples_have_no_faults(name: str) -> None:
    faulty, plain = city.population(name, faults=SEVERAL), city.clean(name)
    for ours, theirs in ((faulty.validation, plain.validation), (faulty.test, plain.test)):
        assert torch.equal(ours.features, theirs.features)  # type: ignore[union-attr]
        assert torch.equal(ours.targets, theirs.targets)  # type: ignore[union-attr]
    if plain.clients.held_out is not None:
        everyone = np.arange(city.CLIENTS)
        ours, theirs = faulty.clients.held_out(everyone), plain.clients.held_out(everyone)  # type: ignore[misc]
        assert torch.equal(ours.features[ours.rows], theirs.features[theirs.rows])


@with_digits
def test_faults_start_and_end_in_their_rounds(name: str) -> None:
    schedule = Schedule(start=3, stop=5)
    p = city.population(name, faults={"gone": MissingOptions(severity=1.0, schedule=schedule)})
    plain = city.examples(city.clean(name), [0, 1])
    for round_index in (0, 1, 2, 5, 6):
        assert np.array_equal(city.examples(p.during(round_index), [0, 1])[0], plain[0])
    for round_index in (3, 4):
        assert not np.array_equal(city.examples(p.during(round_index), [0, 1])[0], plain[0])
    announced = {r: [(e["kind"], e["name"]) for e in p.history.events(r) if "fault" in e["kind"]] for r in range(1, 7)}  # type: ignore[misc]
    assert {r: t for r, t in announced.items() if t} == {3: [("fault_started", "gone")], 5: [("fault_ended", "gone")]}


@pytest.mark.parametrize("name", ["traffic", "air", "intrusion", "digits"])
def test_fault_in_hours_changes_its_hours_alone(name: str) -> None:
    fault = {"late": BiasOptions(severity=1.0, schedule=Schedule(unit="hours", start=48, stop=96))}
    if name == "digits":
        with pytest.raises(UserError, match=r"faults\.late\.schedule\.unit: is 'hours', and these data have no clock"):
            city.population(name, faults=fault)
        return
    p, plain = city.population(name, faults=fault), city.clean(name)
    assert p.clients.hours is not None
    hours = p.clients.hours(np.arange(3))
    changed = (city.examples(p, [0, 1, 2])[0] != city.examples(plain, [0, 1, 2])[0]).reshape(len(hours), -1).any(axis=1)
    reach = 0.0 if name == "intrusion" else p.feature_shape[0] * 1.0  # a window holds readings of the hours before it
    assert changed.any()
    assert (hours[changed] >= 48).all()
    assert (hours[changed] < 96 + reach).all()


def test_outage_affects_all_sites_of_a_district() -> None:
    out = {"out": GatewayOutageOptions(severity=1.0, share=0.4)}
    p = city.population("air", faults=out)
    masks = np.stack(p.masks(np.arange(city.CLIENTS))["out"]).any(axis=2)  # type: ignore[misc]
    district = p.places(np.arange(city.CLIENTS)).district  # type: ignore[misc]
    assert len(np.unique(district)) > 1
    plain = source_of("air")
    assert isinstance(plain, SeriesSource)
    for a in range(city.CLIENTS):
        for b in range(a):
            agree = (masks[a] == masks[b]).mean()
            assert (agree > 0.97) == (district[a] == district[b]), "the filled value may equal what was there"


@pytest.mark.parametrize("name", ["traffic, congestion", "intrusion", "activity", "digits"])
def test_labels_are_wrong_where_the_mask_says(name: str) -> None:
    p, plain = city.population(name, faults={"wrong": LabelSymmetricOptions(severity=0.6)}), city.clean(name)
    masks = np.concatenate(p.masks(np.arange(5))["wrong"])  # type: ignore[misc]
    ours, truth = city.examples(p, list(range(5))), city.examples(plain, list(range(5)))
    assert np.array_equal(ours[0], truth[0])
    assert np.array_equal(ours[1] != truth[1], masks)
    assert masks.any()
    assert p.clients.label_counts is not None
    assert p.clients.label_counts(np.arange(5)).sum() == len(masks)


def test_unsuitable_faults_and_partitions_are_refused() -> None:
    with pytest.raises(UserError, match=r"faults\.wrong.*"):
        city.population("air", faults={"wrong": LabelSymmetricOptions(severity=0.6)})
    with pytest.raises(UserError, match=r"partition\.kind: 'iid' deals out pooled examples"):
        city.population("air", partition=IidOptions(clients=3))


@pytest.mark.parametrize("name", ["traffic, congestion", "intrusion"])
def test_label_fault_keeps_to_its_district_and_hours(name: str) -> None:
    plain = city.clean(name)
    places, hours = plain.places(np.arange(city.CLIENTS)).district, plain.clients.hours  # type: ignore[misc]
    here = plain.federation.districts[int(places[0])]
    fault = LabelSymmetricOptions(severity=1.0, districts=(here,), schedule=Schedule(unit="hours", start=100, stop=200))
    masks = city.population(name, faults={"wrong": fault}).masks(np.arange(city.CLIENTS))["wrong"]  # type: ignore[misc]
    assert hours is not None
    for k, mask in enumerate(masks):
        when = hours(np.array([k]))
        inside = (when >= 100) & (when < 200)
        assert not mask[~inside].any()
        assert mask[inside].any() == (places[k] == places[0])


def test_outages_are_announced_when_their_fault_starts_and_weather_at_first() -> None:
    out = GatewayOutageOptions(severity=1.0, schedule=Schedule(start=3))
    announced = [city.population("air", faults={"out": out}).history.events(r) for r in (1, 2, 3, 4)]  # type: ignore[misc]
    kinds = [{e["kind"] for e in events} for events in announced]
    assert kinds == [{"storm", "power_cut"}, set(), {"fault_started", "outage"}, set()]
    hours = [e["from_hour"] for e in announced[2] if e["kind"] == "outage"]
    assert hours == sorted(hours)
    assert {e["district"] for e in announced[2] if e["kind"] == "outage"} <= set(city.clean("air").federation.districts)
