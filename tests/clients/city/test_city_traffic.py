"""Traffic: a generated week lies within METR-LA's bands, and each cause of slow speeds acts in its direction."""

import dataclasses

import numpy as np
import pytest
from city_statistics import figures, outside, traffic_statistics

from clients.city.roads.network import RECOVERY_KMH, Incidents, driving_km, make_incidents, place_sensors, queue_ratio
from clients.city.series_options import TrafficOptions
from clients.city.traffic import CHANNELS, traffic_source
from clients.core.errors import UserError
from clients.world.options import WorldOptions
from clients.world.world import World, make_world

WEEK = TrafficOptions(step_minutes=5, window=12, horizon=12)
SENSORS = np.arange(207)
FAIR = WorldOptions(days=7, storms_per_month=0.0, rain_share=0.03)  # March in Los Angeles
DRY = WorldOptions(days=7, storms_per_month=0.0, rain_share=0.0, events_per_week=0.0)
SEEDS = (100, 101, 102, 103, 104, 105)  # none of them was used to tune the generator


def _speed(options: TrafficOptions, world: World) -> np.ndarray:
    source = traffic_source(options, world, world.seed)
    return source.read(np.arange(options.clients), 0, source.ends[2])[..., 0].astype(np.float64)


@pytest.fixture(scope="module")
def weeks() -> list[dict[str, np.ndarray]]:
    lags = figures("traffic")["autocorrelation_lags_steps"]
    made = []
    for seed in SEEDS:
        world = make_world(FAIR, seed)
        distance = driving_km(world, WEEK.roads, place_sensors(world, WEEK.roads, SENSORS))
        weekend = world.is_weekend(24.0 * np.arange(7) + 12.0)
        made.append(traffic_statistics(_speed(WEEK, world), distance, weekend, lags))
    return made


@pytest.mark.parametrize("name", figures("traffic")["statistics"])
def test_mean_of_generated_weeks_lies_within_the_band_of_metr_la(weeks: list[dict[str, np.ndarray]], name: str) -> None:
    mean = {name: np.mean([week[name] for week in weeks], axis=0)}
    assert outside(mean, {name: figures("traffic")["statistics"][name]}) == []


def test_single_weeks_lie_within_nearly_all_bands(weeks: list[dict[str, np.ndarray]]) -> None:
    statistics = figures("traffic")["statistics"]
    numbers = sum(np.size(band["real"]) for band in statistics.values())
    assert numbers == 117
    missed = [len(outside(week, statistics)) for week in weeks]
    assert max(missed) <= 0.1 * numbers, missed
    assert np.mean(missed) <= 0.04 * numbers, missed


def test_values_outside_a_band_are_reported() -> None:
    band = {"mean_speed": figures("traffic")["statistics"]["mean_speed"]}
    assert outside({"mean_speed": np.array(58.9)}, band) == []
    assert len(outside({"mean_speed": np.array(50.0)}, band)) == 1
    assert len(outside({"mean_speed": np.array(np.nan)}, band)) == 1


def test_readings_do_not_depend_on_other_sensors_or_the_time_range() -> None:
    world = make_world(WorldOptions(days=7), 3)
    for minutes in (5, 15, 60):
        source = traffic_source(dataclasses.replace(WEEK, step_minutes=minutes, clients=400), world, 3)
        whole = source.read(np.arange(400), 0, source.ends[2])
        again = traffic_source(dataclasses.replace(WEEK, step_minutes=minutes, clients=400), world, 3)
        assert again.read(np.arange(400), 0, source.ends[2]).tobytes() == whole.tobytes()
        pick = np.array([399, 5, 200])
        assert source.read(pick, 0, source.ends[2]).tobytes() == whole[pick].tobytes()
        assert source.read(pick[:1], 0, source.ends[2]).tobytes() == whole[pick[:1]].tobytes()
        first, last = source.ends[2] // 3, source.ends[2] // 2
        assert source.read(pick, first, last).tobytes() == whole[pick][:, first:last].tobytes()
        assert source.read(pick, 7, 7).shape == (3, 0, 5)


def test_readings_are_finite_and_within_their_channels() -> None:
    for seed in range(3):
        world = make_world(WorldOptions(storms_per_month=10.0), seed)
        source = traffic_source(TrafficOptions(incidents_per_day=60.0), world, seed)
        values = source.read(SENSORS, 0, source.ends[2])
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        for channel, of_channel in zip(source.channels, np.moveaxis(values, -1, 0), strict=True):
            assert channel.low <= of_channel.min() <= of_channel.max() <= channel.high, channel.name
            assert abs(of_channel.mean() - channel.mean) < 0.6 * channel.deviation, channel.name
    assert [c.name for c in CHANNELS if not c.measured] == ["hour_sin", "hour_cos", "weekend"]


def test_calendar_channels_have_the_time() -> None:
    world = make_world(DRY, 0)
    values = traffic_source(TrafficOptions(step_minutes=60), world, 0).read(np.array([0]), 0, 168)[0]
    np.testing.assert_allclose(values[6 + 24, 2:4], [1.0, 0.0], atol=1e-6)
    assert values[:, 4].reshape(7, 24).mean(axis=1).tolist() == [0, 0, 0, 0, 0, 1, 1]


def test_inbound_roads_are_slow_in_the_morning_and_outbound_ones_in_the_evening() -> None:
    contrast = []
    for seed in range(4):
        world = make_world(DRY, seed)
        sensors = place_sensors(world, 6, np.arange(600))
        speed = _speed(TrafficOptions(clients=600, step_minutes=60), world).reshape(600, 7, 24)[:, :5].mean(axis=1)
        later = speed[:, 17:19].mean(axis=1) - speed[:, 7:9].mean(axis=1)
        contrast.append(later[sensors.inward > 0.7].mean() - later[sensors.inward < -0.7].mean())
    assert min(contrast) > 5.0


def test_rain_and_storms_slow_traffic() -> None:
    options = TrafficOptions(step_minutes=60, incidents_per_day=0.0)
    dry, wet = (make_world(dataclasses.replace(DRY, rain_share=share), 1) for share in (0.0, 0.3))
    slower = _speed(options, wet) - _speed(options, dry)
    raining = wet.rain > 0.5
    # only readings at full hours: there the rain is known exactly
    assert slower[:, raining].mean() < -2.0
    np.testing.assert_allclose(slower[:, wet.rain == 0.0], 0.0, atol=1e-5)
    stormy = make_world(WorldOptions(storms_per_month=20.0, rain_share=0.0, events_per_week=0.0), 1)
    calm = make_world(WorldOptions(storms_per_month=0.0, rain_share=0.0, events_per_week=0.0), 1)
    slower = (_speed(options, stormy) - _speed(options, calm))[:, stormy.storm > 0.5]
    assert -25.0 < slower.mean() < -7.0


def test_public_events_slow_only_their_district() -> None:
    quiet = make_world(dataclasses.replace(DRY, events_per_week=0.0), 2)
    busy = make_world(dataclasses.replace(DRY, events_per_week=30.0), 2)
    options = TrafficOptions(step_minutes=60, clients=400)
    slower = _speed(options, busy) - _speed(options, quiet)
    district = place_sensors(busy, options.roads, np.arange(400)).places.district
    there = busy.crowd[district] > 0.4
    assert there.any()
    assert slower[there].mean() < -1.0
    np.testing.assert_allclose(slower[busy.crowd[district] == 0.0], 0.0, atol=1e-5)


def test_queue_grows_upstream_and_dissolves_from_its_head() -> None:
    world = make_world(DRY, 0)
    sensors = place_sensors(world, 1, np.arange(4000))
    head = 0.0
    one = Incidents(
        *(np.array([value]) for value in (0, 0)), *(np.array([value]) for value in (head, 10.0, 11.0, 5.0, 0.3))
    )
    times = np.arange(9.0, 14.0, 1 / 60)
    ratio = queue_ratio(one, sensors, times)
    slow = ratio < 0.65
    untouched = (sensors.direction == 1) | (sensors.along > head)
    assert (ratio[untouched] == 1.0).all()
    queued = np.flatnonzero(slow.any(axis=1))
    behind = head - sensors.along[queued]
    reach = 1.0 / (1.0 / 5.0 - 1.0 / RECOVERY_KMH)
    assert 0.8 * reach < behind.max() < reach
    begins, ends = times[slow[queued].argmax(axis=1)], times[len(times) - 1 - slow[queued][:, ::-1].argmax(axis=1)]
    np.testing.assert_allclose(begins, 10.05 + behind / 5.0, atol=0.03)
    np.testing.assert_allclose(ends, 11.125 + behind / RECOVERY_KMH, atol=0.03)
    assert ratio[queued].min() == pytest.approx(0.3)


def test_incidents_have_the_configured_rate_and_make_congestion() -> None:
    worlds = [make_world(dataclasses.replace(DRY, days=28), seed) for seed in range(6)]
    counts = [len(make_incidents(world, 6, 20.0).start) for world in worlds]
    expected = 20.0 * (20 + 8 * 0.7)
    assert np.mean(counts) == pytest.approx(expected, abs=4 * np.sqrt(expected / 6))
    assert len(make_incidents(worlds[0], 6, 0.0).start) == 0
    with_none, with_many = (
        _speed(TrafficOptions(step_minutes=60, incidents_per_day=n), worlds[0]) for n in (0.0, 200.0)
    )
    assert (with_many <= with_none + 1e-4).all()
    assert (with_many < 40).mean() > (with_none < 40).mean() + 0.02


def test_congestion_is_the_rare_class_and_is_judged_at_the_horizon() -> None:
    world = make_world(WorldOptions(), 0)
    source = traffic_source(TrafficOptions(task="congestion"), world, 0)
    assert source.label is not None
    assert source.outputs == 2
    assert source.label(np.array([[30.0, 30.0, 60.0], [60.0, 60.0, 39.9], [60.0, 60.0, 40.0]])).tolist() == [0, 1, 0]
    speed = source.read(SENSORS, 0, source.ends[2])[..., 0]
    assert 0.05 < source.label(speed[..., None]).mean() < 0.15
    forecast = traffic_source(TrafficOptions(), world, 0)
    assert forecast.label is None
    assert forecast.outputs == 4


def test_parts_are_split_in_order_of_time() -> None:
    source = traffic_source(TrafficOptions(), make_world(WorldOptions(), 0), 0)
    assert source.ends == (int(2688 * 0.7), int(2688 * 0.8), 2688)
    assert source.step_hours == 0.25
    assert source.client_name(3).startswith("road ")
    assert source.places is not None
    assert np.hypot(*(getattr(source.places(SENSORS), axis) for axis in "xy")).max() <= 12.0


def test_driving_distance_is_a_metric() -> None:
    world = make_world(DRY, 0)
    sensors = place_sensors(world, 6, np.arange(120))
    distance = driving_km(world, 6, sensors)
    straight = np.hypot(*(np.subtract.outer(v, v) for v in (sensors.places.x, sensors.places.y)))
    np.testing.assert_array_equal(distance, distance.T)
    assert (distance >= straight - 1e-9).all()
    assert (np.diag(distance) == 0.0).all()
    same = (sensors.road[:, None] == sensors.road) & (sensors.direction[:, None] == sensors.direction)
    np.testing.assert_allclose(distance[same], straight[same], atol=1e-9)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clients", 0),
        ("task", "guess"),
        ("step_minutes", 7),
        ("window", 0),
        ("horizon", 0),
        ("stride", 0),
        ("roads", 0),
        ("incidents_per_day", -1.0),
        ("validation_fraction", 1.0),
        ("test_fraction", 0.95),
    ],
)
def test_mistakes_are_named(field: str, value: object) -> None:
    with pytest.raises(UserError) as mistake:
        TrafficOptions(**{field: value})
    assert mistake.value.field == field


def test_world_too_short_for_a_window_is_refused() -> None:
    with pytest.raises(UserError, match="window: must leave"):
        traffic_source(TrafficOptions(step_minutes=60, window=30), make_world(WorldOptions(days=1), 0), 0)
