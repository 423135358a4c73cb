"""Generated meters: statistics within the bands of published figures, and the effects of the world."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import meter_statistics
import numpy as np
import pytest
from city_statistics import checked_readings

from clients.city.homes import make_homes
from clients.city.meters import LOAD, Loads, loads, meters_source, peak_hour, sessions
from clients.city.series_options import MetersOptions
from clients.core.errors import UserError
from clients.world.options import WorldOptions
from clients.world.world import World, make_world

BANDS = json.loads((Path(__file__).parents[2] / "support" / "city_figures" / "meters.json").read_text())["figures"]
HOMES = np.arange(300)
PLAIN = MetersOptions(electric_heating=0.0, ev=0.0, solar=0.0)


def all_of(seed: int, options: MetersOptions, world: World) -> Loads:
    return loads(options, world, seed, HOMES, 0, world.hours)


@pytest.fixture(scope="module", params=[0, 1])
def figures(request: pytest.FixtureRequest) -> dict[str, float]:
    seed = request.param
    world = make_world(WorldOptions(days=365), seed)
    season = world.season(np.arange(world.hours))
    plain, full = all_of(seed, PLAIN, world), all_of(seed, replace(PLAIN, electric_heating=1.0, solar=1.0), world)
    found = {f"homes.{name}": value for name, value in meter_statistics.homes(plain.net, season).items()}
    found |= {f"heating.{name}": value for name, value in meter_statistics.heating(full.heating).items()}
    found["heated.kwh_over_plain"] = 1.0 + float(full.heating.mean() / plain.people.mean())
    homes = make_homes(world, seed, HOMES, electric_heating=0.0, ev=1.0, solar=1.0)
    begin, energy = sessions(homes, world, seed, np.arange(365))
    found["ev.median_session_kwh"] = float(np.median(energy[energy > 0]))
    found["ev.commonest_start_hour"] = float(np.bincount(begin[energy > 0].astype(np.int64)).argmax())
    winter, summer = meter_statistics.winter_and_summer(season)
    found["solar.kwh_a_year_per_kwp"] = float((full.solar.sum(axis=1) / homes.panels).mean())
    found["solar.summer_over_winter"] = float(full.solar[:, summer].mean() / full.solar[:, winter].mean())
    return found


@pytest.mark.parametrize("name", BANDS)
def test_statistic_lies_in_its_band(name: str, figures: dict[str, float]) -> None:
    assert BANDS[name]["low"] <= figures[name] <= BANDS[name]["high"]


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(WorldOptions(power_cuts_per_month=20.0, storms_per_month=6.0), 3)


def changed(world: World, **series: np.ndarray) -> World:
    """Return the same world with some of its series replaced."""
    return replace(world, **series)


def test_cold_raises_the_load_of_heated_homes_only(world: World) -> None:
    options = MetersOptions(electric_heating=0.5, ev=0.3, solar=0.3)
    before = loads(options, world, 0, HOMES, 0, 240)
    colder = loads(options, changed(world, temperature=world.temperature - 5.0), 0, HOMES, 0, 240)
    heated = make_homes(world, 0, HOMES, electric_heating=0.5, ev=0.0, solar=0.0).heat_rate > 0
    assert 0.4 < heated.mean() < 0.6
    rise = (colder.heating - before.heating).mean(axis=1)
    assert (rise[heated] > 0.05).all()
    assert (rise[~heated] == 0.0).all()
    assert colder.net[heated].mean() > before.net[heated].mean() + 0.1


def test_sunshine_lowers_the_net_load_of_solar_homes_even_below_zero(world: World) -> None:
    options = MetersOptions(electric_heating=0.0, ev=0.0, solar=0.5)
    solar = make_homes(world, 0, HOMES, electric_heating=0.0, ev=0.0, solar=0.5).panels > 0
    now = loads(options, world, 0, HOMES, 0, 480)
    dull = loads(options, changed(world, sunshine=0.2 * world.sunshine), 0, HOMES, 0, 480)
    assert now.net[solar].min() < -0.5
    assert now.net[~solar].min() >= 0.0
    assert now.net[solar].mean() < dull.net[solar].mean() - 0.1
    assert now.net[~solar].mean() < dull.net[~solar].mean()  # lamps on a dull day
    assert (now.solar[:, world.sunshine[:480] == 0.0] == 0.0).all()


def test_power_cut_sets_the_load_to_zero_even_with_panels(world: World) -> None:
    result = loads(MetersOptions(solar=1.0), world, 0, HOMES, 0, world.hours)
    district = world.sites(HOMES).district
    cut = world.power_cut[district]
    assert cut.any()
    assert (result.net[cut] == 0.0).all()
    assert (result.net[~cut] != 0.0).all()


def test_storms_raise_the_use_by_people(world: World) -> None:
    calm = changed(world, storm=np.zeros(world.hours))
    stormy = changed(world, storm=np.ones(world.hours))
    assert all_of(0, PLAIN, stormy).people.mean() > 1.02 * all_of(0, PLAIN, calm).people.mean()


def test_charging_delivers_the_energy_of_the_sessions() -> None:
    world = make_world(WorldOptions(days=14, power_cuts_per_month=0.0), 5)
    homes = make_homes(world, 0, HOMES, electric_heating=0.0, ev=1.0, solar=0.0)
    begin, energy = sessions(homes, world, 0, np.arange(12))
    car = loads(replace(PLAIN, ev=1.0), world, 0, HOMES, 0, world.hours).car
    last = begin + energy / homes.charger[:, None] < 24.0  # no two sessions overlap
    rows = last.all(axis=1)
    assert rows.sum() > 50
    np.testing.assert_allclose(car[rows][:, : 12 * 24].sum(axis=1), energy[rows].sum(axis=1), rtol=1e-6)
    assert (car <= homes.charger[:, None]).all()


def test_shares_of_homes_are_met_and_nested(world: World) -> None:
    clients = np.arange(4000)
    few = make_homes(world, 1, clients, electric_heating=0.2, ev=0.1, solar=0.3)
    more = make_homes(world, 1, clients, electric_heating=0.4, ev=0.5, solar=0.6)
    for name, share in (("heat_rate", 0.2), ("charger", 0.1), ("panels", 0.3)):
        has = getattr(few, name) > 0
        assert abs(has.mean() - share) < 0.03
        assert (getattr(more, name)[has] > 0).all()


@pytest.mark.parametrize("task", ["forecast", "peak_hour"])
def test_readings_depend_on_seed_client_and_hour_alone(task: str, world: World) -> None:
    source = meters_source(MetersOptions(task=task), world, 7)  # type: ignore[arg-type]
    checked_readings(source, meters_source(MetersOptions(), world, 8), world, clients=80, some=[41, 3, 79])


def test_longer_world_starts_with_the_same_readings() -> None:
    short, long = (make_world(WorldOptions(days=days), 2) for days in (28, 56))
    clients = np.arange(30)
    a = meters_source(MetersOptions(), short, 0).read(clients, 0, 400)
    np.testing.assert_array_equal(a, meters_source(MetersOptions(), long, 0).read(clients, 0, 400))


def test_peak_hour_is_tomorrows_as_of_midnight(world: World) -> None:
    source = meters_source(MetersOptions(task="peak_hour"), world, 0)
    assert source.outputs == 24
    assert all(end % 24 == 0 for end in source.ends)
    assert source.stride % 24 == 0
    assert source.label is not None
    load = source.read(HOMES, 0, 24 * 20)[..., 0].reshape(len(HOMES), 20, 24)
    label = source.label(load)
    np.testing.assert_array_equal(np.take_along_axis(load, label[..., None], -1)[..., 0], load.max(axis=-1))
    hours = np.bincount(label.ravel(), minlength=24) / label.size
    assert hours[16:22].sum() > 0.5  # imbalanced: most days peak in the evening
    assert hours.max() < 0.4  # but it is not constant
    assert int(peak_hour(np.array([0.0, 2.0, 2.0]))) == 1


def test_series_source_describes_itself(world: World) -> None:
    source = meters_source(MetersOptions(clients=17), world, 0)
    assert source.num_clients == 17
    assert source.channels[0] == LOAD
    assert [channel.name for channel in source.channels if not channel.measured] == ["hour_sin", "hour_cos", "weekend"]
    assert 0 < source.ends[0] < source.ends[1] < source.ends[2] == world.hours
    noon = source.read(np.arange(1), 6, 7)[0, 0]
    np.testing.assert_allclose(noon[3:], [1.0, 0.0, 0.0], atol=1e-6)  # six o'clock on a Monday


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ({"clients": 0}, "clients"),
        ({"ev": 1.2}, "ev"),
        ({"solar": -0.1}, "solar"),
        ({"task": "sing"}, "task"),
        ({"task": "peak_hour", "window": 36}, "window"),
        ({"task": "peak_hour", "stride": 1}, "stride"),
        ({"task": "peak_hour", "horizon": 12}, "horizon"),
        ({"window": 0}, "window"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "validation_fraction"),
    ],
)
def test_mistakes_name_the_field(setting: dict[str, object], field: str) -> None:
    with pytest.raises(UserError) as caught:
        MetersOptions(**setting)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_world_that_is_too_short_is_refused() -> None:
    with pytest.raises(UserError, match=r"window: .*validation"):
        meters_source(MetersOptions(), make_world(WorldOptions(days=7), 0), 0)
