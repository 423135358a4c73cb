"""Generated air: statistics within the bands of the twelve Beijing stations, and the effects of the world."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import air_statistics
import numpy as np
import pytest
from city_statistics import checked_readings
from needs import shared_data

from clients.city.air import MOST_UG, air_source, concentrations
from clients.city.series_options import AirOptions
from clients.core.errors import UserError
from clients.world.options import WorldOptions
from clients.world.world import World, make_world

COMMITTED = json.loads((Path(__file__).parents[2] / "support" / "city_figures" / "air.json").read_text())
BANDS = COMMITTED["figures"]
# The size and climate of the figures' city, over as many years.
BEIJING = WorldOptions(start="2026-03-02", days=4 * 365, radius_km=20.0, mean_temperature=13.5, seasonal_swing=30.0)
STATIONS = np.arange(12)


def test_committed_figures_equal_those_of_the_files() -> None:
    air = air_statistics.read_beijing(shared_data("air_beijing"))
    found = air_statistics.bands(air)
    assert found.keys() == BANDS.keys()
    for name, band in found.items():
        assert band == pytest.approx(BANDS[name], abs=2e-4), name
    for name, profile in COMMITTED["profiles"].items():
        np.testing.assert_allclose(air_statistics.profile(air, name), profile, atol=2e-4)


@pytest.fixture(scope="module", params=[40, 41])  # seeds that were not used in fitting
def generated(request: pytest.FixtureRequest) -> air_statistics.Air:
    world = make_world(BEIJING, request.param)
    source = air_source(AirOptions(), world, request.param)
    names = [channel.name for channel in source.channels]
    readings = source.read(STATIONS, 0, world.hours).astype(np.float64)
    assert source.places is not None
    places = source.places(STATIONS)
    values = {name: readings[..., names.index(name)] for name in air_statistics.COLUMNS}
    return air_statistics.Air(date.fromisoformat(BEIJING.start), np.stack((places.x, places.y), axis=1), values)


@pytest.fixture(scope="module")
def figures(generated: air_statistics.Air) -> dict[str, float]:
    return air_statistics.figures(generated)


@pytest.mark.parametrize("name", BANDS)
def test_statistic_lies_in_its_band(name: str, figures: dict[str, float]) -> None:
    low, high = BANDS[name]["low"], BANDS[name]["high"]
    value = figures[name]
    if name.endswith("peak_hour"):
        value = low + (value - low) % 24.0  # a band may pass midnight
    assert low <= value <= high


@pytest.mark.parametrize("name", air_statistics.POLLUTANTS)
def test_daily_profile_is_like_the_real_one(name: str, generated: air_statistics.Air) -> None:
    likeness = np.corrcoef(air_statistics.profile(generated, name), COMMITTED["profiles"][name])[0, 1]
    assert likeness >= COMMITTED["profile_likeness"]["low"]


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(WorldOptions(), 4)


def means(world: World, hours: slice = slice(None), **series: np.ndarray) -> dict[str, float]:
    """Mean concentrations with some of the world's series replaced."""
    values = concentrations(replace(world, **series), 4, STATIONS, 0, world.hours)
    return {name: float(value[:, hours].mean()) for name, value in values.items()}


def test_inversion_traps_particles_and_nitrogen_oxides(world: World) -> None:
    none, full = (means(world, inversion=np.full(world.hours, level)) for level in (0.0, 1.0))
    assert full["pm25"] > 1.05 * none["pm25"]
    assert full["no2"] > 1.05 * none["no2"]
    assert full["o3"] < none["o3"]


def test_wind_dilutes_emissions_and_brings_ozone(world: World) -> None:
    calm, windy = means(world, wind=0.5 * world.wind), means(world, wind=2.0 * world.wind)
    assert windy["pm25"] < 0.7 * calm["pm25"]
    assert windy["no2"] < 0.8 * calm["no2"]
    assert windy["o3"] > calm["o3"]


def test_rain_removes_particles_and_they_return(world: World) -> None:
    shower = np.zeros(world.hours)
    shower[200:206] = 4.0
    dry = concentrations(replace(world, rain=np.zeros(world.hours)), 4, STATIONS, 0, world.hours)["pm25"]
    wet = concentrations(replace(world, rain=shower), 4, STATIONS, 0, world.hours)["pm25"]
    np.testing.assert_array_equal(wet[:, :200], dry[:, :200])
    assert wet[:, 205].mean() < 0.7 * dry[:, 205].mean()
    assert wet[:, 300].mean() > 0.9 * dry[:, 300].mean()


def test_sunshine_and_warmth_make_ozone(world: World) -> None:
    day = slice(24 * 7 + 14, None, 24)
    dull, bright = means(world, day, sunshine=0.3 * world.sunshine), means(world, day)
    assert bright["o3"] > 1.2 * dull["o3"]
    assert bright["no2"] < dull["no2"]
    assert means(world, day, temperature=world.temperature + 10.0)["o3"] > bright["o3"]


def test_cold_raises_particles(world: World) -> None:
    colder = means(world, temperature=world.temperature - 8.0)
    assert colder["pm25"] > 1.05 * means(world)["pm25"]


def test_events_bring_traffic_to_their_district(world: World) -> None:
    crowd = np.zeros_like(world.crowd)
    crowd[3] = 1.0
    stations = np.arange(200)
    district = world.sites(stations).district
    before = concentrations(replace(world, crowd=np.zeros_like(crowd)), 4, stations, 0, 48)["no2"]
    after = concentrations(replace(world, crowd=crowd), 4, stations, 0, 48)["no2"]
    assert (after[district == 3] > before[district == 3]).all()
    np.testing.assert_array_equal(after[district != 3], before[district != 3])


def test_kerb_stations_have_less_ozone_and_more_nitrogen_dioxide(world: World) -> None:
    values = concentrations(world, 4, np.arange(300), 0, world.hours)
    no2, o3 = values["no2"].mean(axis=1), values["o3"].mean(axis=1)
    assert np.corrcoef(no2, o3)[0, 1] < -0.5


@pytest.mark.parametrize("pollutant", air_statistics.POLLUTANTS)
def test_readings_depend_on_seed_client_and_hour_alone(pollutant: str, world: World) -> None:
    source = air_source(AirOptions(pollutant=pollutant, clients=500), world, 7)  # type: ignore[arg-type]
    assert source.channels[0].name == pollutant
    whole = checked_readings(source, air_source(AirOptions(), world, 8), world, clients=100, some=[71, 3, 99])
    assert whole[..., :3].min() > 0.0
    assert whole[..., :3].max() < MOST_UG  # the instruments' limit is not part of the climate


def test_longer_world_starts_with_the_same_readings() -> None:
    short, long = (make_world(WorldOptions(days=days), 2) for days in (28, 56))
    a = air_source(AirOptions(), short, 0).read(STATIONS, 0, 400)
    np.testing.assert_array_equal(a, air_source(AirOptions(), long, 0).read(STATIONS, 0, 400))


def test_other_units_are_those_of_25_degrees(world: World) -> None:
    channels = {channel.name: channel for channel in air_source(AirOptions(), world, 0).channels}
    molar_volume = 8.314 * 298.15 / 1013.25e2 * 1e3  # litres a mole
    assert channels["no2"].other_scale == pytest.approx(molar_volume / 46.0, rel=0.01)
    assert channels["o3"].other_scale == pytest.approx(molar_volume / 48.0, rel=0.01)
    assert not any(channels[name].measured for name in ("hour_sin", "hour_cos", "weekend"))


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ({"clients": 0}, "clients"),
        ({"pollutant": "so2"}, "pollutant"),
        ({"horizon": 0}, "horizon"),
        ({"stride": 0}, "stride"),
        ({"test_fraction": 1.0}, "test_fraction"),
    ],
)
def test_mistakes_name_the_field(setting: dict[str, object], field: str) -> None:
    with pytest.raises(UserError) as caught:
        AirOptions(**setting)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_world_that_is_too_short_is_refused() -> None:
    with pytest.raises(UserError, match=r"window: .*validation"):
        air_source(AirOptions(), make_world(WorldOptions(days=10), 0), 0)
