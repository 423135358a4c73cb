"""The world follows from its seed, each option changes only its own quantity, and one cause has many effects."""

import dataclasses

import numpy as np
import pytest

from clients.core.errors import UserError
from clients.core.population_parts import Places
from clients.world import world as world_module
from clients.world.options import WorldOptions
from clients.world.world import World, make_world

SERIES = ("temperature", "rain", "wind", "wind_direction", "sunshine", "storm", "inversion", "crowd", "power_cut")
YEAR = WorldOptions(days=365)


def _points(x: list[float]) -> Places:
    return Places(np.array(x), np.zeros(len(x)), np.zeros(len(x), np.int64))


def test_same_seed_makes_the_same_bytes_and_another_seed_another_world() -> None:
    first = world_module.make_world.__wrapped__(YEAR, 5)
    again = world_module.make_world.__wrapped__(YEAR, 5)
    other = make_world(YEAR, 6)
    for name in (*SERIES, "centres", "uses"):
        assert getattr(first, name).tobytes() == getattr(again, name).tobytes(), name
        assert getattr(first, name).tobytes() != getattr(other, name).tobytes(), name
    assert (first.storms, first.events, first.cuts) == (again.storms, again.events, again.cuts)
    assert make_world(YEAR, 5) is make_world(YEAR, 5)


def test_longer_world_starts_with_the_same_hours() -> None:
    short, long = make_world(WorldOptions(days=10), 2), make_world(WorldOptions(days=40), 2)
    for name in SERIES:
        np.testing.assert_array_equal(getattr(short, name), getattr(long, name)[..., : short.hours], err_msg=name)


@pytest.mark.parametrize(
    ("option", "gone", "stay"),
    [
        ("storms_per_month", ("storm",), ("crowd",)),
        ("events_per_week", ("crowd",), tuple(set(SERIES) - {"crowd"})),
        ("power_cuts_per_month", ("power_cut",), tuple(set(SERIES) - {"power_cut"})),
    ],
)
def test_option_at_zero_turns_off_only_its_effect(option: str, gone: tuple, stay: tuple) -> None:
    base, without = make_world(YEAR, 1), make_world(dataclasses.replace(YEAR, **{option: 0.0}), 1)
    for name in gone:
        assert getattr(base, name).any()
        assert not getattr(without, name).any()
    for name in (*stay, "centres", "uses"):
        np.testing.assert_array_equal(getattr(base, name), getattr(without, name), err_msg=name)


def test_fair_hours_keep_their_weather_without_storms() -> None:
    base, without = make_world(YEAR, 1), make_world(dataclasses.replace(YEAR, storms_per_month=0.0), 1)
    fair = base.storm == 0.0
    for name in ("temperature", "rain", "wind", "wind_direction", "sunshine"):
        np.testing.assert_array_equal(getattr(base, name)[fair], getattr(without, name)[fair], err_msg=name)


def test_world_without_rain_and_storms_is_dry_and_more_events_keep_the_earlier_ones() -> None:
    assert not make_world(WorldOptions(rain_share=0.0, storms_per_month=0.0), 3).rain.any()
    few, many = (set(make_world(WorldOptions(events_per_week=n), 3).events) for n in (4.0, 12.0))
    assert few < many


def test_storm_raises_wind_and_rain_and_hides_the_sun() -> None:
    base, without = make_world(YEAR, 1), make_world(dataclasses.replace(YEAR, storms_per_month=0.0), 1)
    stormy = base.storm > 0.3
    assert stormy.sum() > 50
    assert (base.wind[stormy] > without.wind[stormy] + 3.0).all()
    assert (base.rain[stormy] > without.rain[stormy] + 2.0).all()
    afternoon = stormy & (np.arange(base.hours) % 24 >= 11) & (np.arange(base.hours) % 24 <= 19)
    assert (base.temperature[afternoon] < without.temperature[afternoon]).all()
    day = stormy & (without.sunshine > 0.1)
    assert base.sunshine[day].mean() < 0.6 * without.sunshine[day].mean()


def test_storms_make_power_cuts_likelier() -> None:
    options = WorldOptions(days=365, power_cuts_per_month=20.0, storms_per_month=6.0)
    in_storm = fair = 0.0
    for seed in range(3):
        world = make_world(options, seed)
        starts = np.array([cut.start for cut in world.cuts])
        in_storm += float((world.storm[starts] > 0.3).sum() / (world.storm > 0.3).sum())
        fair += float((world.storm[starts] == 0.0).sum() / (world.storm == 0.0).sum())
    assert in_storm > 10.0 * fair


def test_rates_equal_the_configured_ones() -> None:
    worlds = [make_world(YEAR, seed) for seed in range(8)]
    assert np.mean([len(w.storms) for w in worlds]) == pytest.approx(36.0, abs=4 * np.sqrt(36.0 / 8))
    assert np.mean([len(w.events) for w in worlds]) == pytest.approx(209.0, abs=4 * np.sqrt(209.0 / 8))
    dry = make_world(dataclasses.replace(YEAR, storms_per_month=0.0, rain_share=0.2), 4)
    assert (dry.rain > 0.0).mean() == pytest.approx(0.2, abs=0.03)
    calm = [make_world(dataclasses.replace(YEAR, storms_per_month=0.0), seed) for seed in range(8)]
    assert np.mean([len(w.cuts) for w in calm]) == pytest.approx(24.0, abs=4 * np.sqrt(24.0 / 8))


def test_temperature_has_its_season_afternoon_maximum_and_mean() -> None:
    assert make_world(YEAR, 0).temperature.mean() == pytest.approx(YEAR.mean_temperature, abs=1.5)
    worlds = [make_world(YEAR, seed) for seed in range(4)]
    days = np.mean([world.temperature.reshape(365, 24) for world in worlds], axis=0)
    assert days[180:240].mean() - days[:60].mean() == pytest.approx(YEAR.seasonal_swing, rel=0.3)
    assert 13 <= days.mean(axis=0).argmax() <= 16
    flat = make_world(dataclasses.replace(YEAR, seasonal_swing=0.0), 0).temperature.reshape(365, 24)
    assert abs(flat[180:240].mean() - flat[:60].mean()) < 3.0


def test_inversion_occurs_on_calm_winter_nights() -> None:
    world = make_world(YEAR, 0)
    hour, month = np.arange(world.hours) % 24, np.arange(world.hours) // 730
    night = (hour < 5) | (hour > 21)
    assert world.inversion[night].mean() > 3.0 * world.inversion[(hour > 10) & (hour < 16)].mean()
    assert world.inversion[night & (month == 0)].mean() > 2.0 * world.inversion[night & (month == 6)].mean()
    winter = night & ((month < 2) | (month > 10))
    assert np.corrcoef(world.inversion[winter], world.wind[winter])[0, 1] < -0.3
    assert world.inversion.min() >= 0.0
    assert world.inversion.max() <= 1.0


def test_sun_is_down_at_night_and_days_are_longer_in_summer() -> None:
    sun = make_world(YEAR, 0).sunshine.reshape(365, 24)
    assert not sun[:, [0, 1, 2, 23]].any()
    assert (sun[172] > 0).sum() > (sun[5] > 0).sum() + 3
    assert 0.0 <= sun.min() <= sun.max() <= 1.0


def test_clock_has_hours_weekdays_and_weekends() -> None:
    world = make_world(WorldOptions(start="2026-07-04"), 0)  # a Saturday
    assert world.weekday(np.array([0.0, 30.0, 48.0])).tolist() == [5, 6, 0]
    assert world.is_weekend(np.array([47.9, 48.0])).tolist() == [True, False]
    assert world.hour_of_day(np.array([25.5])).tolist() == [1.5]
    assert np.cos(world.season(np.array([0.0]))[0]) < -0.9


def test_series_is_interpolated_and_clamped_in_time() -> None:
    world = make_world(WorldOptions(days=2), 0)
    values = world.at(world.temperature, np.array([-3.0, 0.0, 1.25, 47.0, 90.0]))
    t = world.temperature
    np.testing.assert_allclose(values, [t[0], t[0], 0.75 * t[1] + 0.25 * t[2], t[47], t[47]])
    assert world.at(world.crowd, np.arange(5.0)).shape == (12, 5)


def test_sites_do_not_depend_on_other_sites() -> None:
    world = make_world(WorldOptions(), 7)
    all_sites, some = world.sites(np.arange(40_000)), world.sites(np.array([39_999, 3, 17]))
    for name in ("x", "y", "district"):
        np.testing.assert_array_equal(getattr(some, name), getattr(all_sites, name)[[39_999, 3, 17]])
    assert np.hypot(all_sites.x, all_sites.y).max() <= world.options.radius_km
    assert set(all_sites.district) == set(range(12))
    np.testing.assert_array_equal(world.district_of(world.centres[:, 0], world.centres[:, 1]), np.arange(12))
    np.testing.assert_allclose(world.uses.sum(axis=1), 1.0)
    offices = np.mean([make_world(WorldOptions(), s).uses[:, 1] for s in range(20)], axis=0)
    assert offices[0] > 2.0 * offices[6:].mean()


def test_field_is_alike_near_and_different_far() -> None:
    world = make_world(WorldOptions(days=365), 0)
    times = np.arange(0.0, world.hours, 3.0)
    values = world.field("test", _points([0.0, 0.5, 3.0, 14.0]), times, length_km=3.0, hours=6.0)
    assert values.shape == (4, len(times))
    np.testing.assert_allclose(values.std(axis=1), 1.0, atol=0.08)
    with_first = np.corrcoef(values)[0]
    assert with_first[1] == pytest.approx(np.exp(-0.5 * (0.5 / 3.0) ** 2), abs=0.03)
    assert with_first[2] == pytest.approx(np.exp(-0.5), abs=0.12)
    assert abs(with_first[3]) < 0.25
    lagged = np.corrcoef(values[0, :-2], values[0, 2:])[0, 1]
    assert lagged == pytest.approx(np.exp(-1.0), abs=0.08)
    other = world.field("another", _points([0.0]), times, length_km=3.0, hours=6.0)
    assert abs(np.corrcoef(values[0], other[0])[0, 1]) < 0.15


def test_field_of_a_site_depends_on_no_other_site_or_time() -> None:
    world = make_world(WorldOptions(), 0)
    sites, times = world.sites(np.arange(150)), np.linspace(0.0, 100.0, 77)
    whole = world.field("test", sites, times, length_km=2.0, hours=4.0)
    pick = np.array([149, 70, 3])
    part = world.field("test", world.sites(pick), times[20:50], length_km=2.0, hours=4.0)
    assert part.tobytes() == whole[pick][:, 20:50].copy().tobytes()


def test_smooth_field_approximates_the_field() -> None:
    world = make_world(WorldOptions(), 0)
    sites, times = world.sites(np.arange(300)), np.arange(100.0, 500.0)
    exact = world.field("test", sites, times, length_km=14.0, hours=28.0)
    quick = world.smooth_field("test", sites, times, length_km=14.0, hours=28.0)
    assert np.sqrt(((quick - exact) ** 2).mean()) < 0.01
    assert quick.std() == pytest.approx(exact.std(), rel=0.01)
    pick = np.array([299, 70])
    part = world.smooth_field("test", world.sites(pick), times[20:50], length_km=14.0, hours=28.0)
    assert part.tobytes() == quick[pick][:, 20:50].copy().tobytes()
    large = make_world(WorldOptions(radius_km=500.0), 0)  # the grid would be too large, so this is the field itself
    sites = large.sites(np.arange(5))
    same = [f("test", sites, times, length_km=2.0, hours=28.0) for f in (large.field, large.smooth_field)]
    np.testing.assert_array_equal(*same)


def test_arrays_are_read_only() -> None:
    world: World = make_world(WorldOptions(), 0)
    with pytest.raises(ValueError, match="read-only"):
        world.temperature[0] = 0.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("districts", 0),
        ("radius_km", 0.0),
        ("start", "Monday"),
        ("days", 0),
        ("mean_temperature", 90.0),
        ("seasonal_swing", -1.0),
        ("rain_share", 0.9),
        ("storms_per_month", -1.0),
        ("events_per_week", 60.0),
        ("power_cuts_per_month", float("nan")),
    ],
)
def test_mistakes_are_named(field: str, value: object) -> None:
    with pytest.raises(UserError) as mistake:
        WorldOptions(**{field: value})
    assert mistake.value.field == field
