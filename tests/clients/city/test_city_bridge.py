from dataclasses import replace

import numpy as np
import pytest
import torch
from bridge_statistics import figures, first_peak, identify, modal_statistics, temperature_statistics

from clients.city.bridge import bridge_source, bridge_truth
from clients.city.structure import FREQUENCY, RATE, traffic_volume
from clients.city.window_options import BridgeOptions
from clients.core.errors import UserError
from clients.world.options import WorldOptions
from clients.world.world import make_world

WORLD = make_world(WorldOptions(), 0)
YEAR = make_world(WorldOptions(days=365, mean_temperature=10.0, seasonal_swing=36.0), 0)
LONG = BridgeOptions(clients=7, windows=24, spread=0.0, window=4096, validation_fraction=0.0, test_fraction=0.0)


def windows(options, clients=None, part="train", seed=0, world=WORLD):
    source = bridge_source(options, world, seed)
    chosen = np.arange(options.clients) if clients is None else np.asarray(clients)
    x, y = source.make(chosen, part)
    return x, y, bridge_truth(options, world, seed, chosen, part)


def test_generated_bridges_lie_within_every_band():
    found = modal_statistics(LONG, WORLD, 0)
    found |= temperature_statistics(replace(LONG, windows=200, window=2048, clients=4), YEAR, 0)
    found["swing_over_damage"] = found["swing_of_a_year"] / found["damage_drop_1"]
    assert found.keys() == figures().keys()
    assert {k: (found[k], f) for k, f in figures().items() if not f["low"] <= found[k] <= f["high"]} == {}


def test_identified_modes_equal_the_generated_ones():
    options = replace(LONG, clients=1, damaged=0.0, temperature_effect=0.0)
    x, _, truth = windows(options)
    hertz, damping = identify(x)
    np.testing.assert_allclose(hertz, truth.frequencies.mean(0), rtol=0.006)
    np.testing.assert_allclose(damping, truth.bridges.damping[0], rtol=0.35)
    alike = windows(replace(options, diversity=0.0))[2]
    np.testing.assert_allclose(alike.frequencies.mean(0), FREQUENCY, rtol=0.002)


def test_cold_raises_frequencies_only_with_the_temperature_effect():
    slopes = []
    for effect in (0.0, 1.0, 2.0):
        options = replace(LONG, clients=2, windows=150, window=1024, diversity=0.0, temperature_effect=effect)
        options = replace(options, damaged=0.0)
        x, _, truth = windows(options, world=YEAR)
        slopes.append(np.polyfit(truth.temperature, first_peak(x, 3.3, 4.6), 1)[0])
    assert abs(slopes[0]) < 0.002
    assert slopes[2] < 1.5 * slopes[1] < slopes[1] < -0.004


def test_traffic_and_wind_raise_the_amplitude():
    x, _, truth = windows(BridgeOptions(clients=40, windows=150, diversity=0.0))
    size = np.log(x.std(axis=(1, 2)))
    volume, wind = traffic_volume(WORLD, truth.hours), WORLD.at(WORLD.wind, truth.hours)
    calm = wind < np.median(wind)
    rush, night = calm & (volume > 0.8), calm & (volume < 0.1)
    assert 2.0 < np.exp(size[rush].mean() - size[night].mean()) < 8.0
    stormy = make_world(WorldOptions(storms_per_month=20.0), 0)
    x, _, truth = windows(BridgeOptions(clients=40, windows=150, diversity=0.0), world=stormy)
    volume, wind = traffic_volume(stormy, truth.hours), stormy.at(stormy.wind, truth.hours)
    size, quiet = np.log(x.std(axis=(1, 2))), volume < 0.15
    windy, still = quiet & (wind > 8.0), quiet & (wind < 4.0)
    assert size[windy].mean() > size[still].mean() + 0.2


def test_traffic_falls_in_storms_and_at_weekends():
    hours = np.arange(WORLD.hours, dtype=float)
    volume = traffic_volume(WORLD, hours)
    rush = WORLD.hour_of_day(hours) == 8
    dry = WORLD.storm < 0.01
    weekend = WORLD.is_weekend(hours)
    np.testing.assert_allclose(volume[rush & dry & ~weekend], 1.0)
    np.testing.assert_allclose(volume[rush & dry & weekend], 0.38)
    assert (volume[rush & (WORLD.storm > 0.3) & ~weekend] < 0.85).all()


def test_sensors_read_modes_by_their_position():
    x, *_ = windows(replace(LONG, clients=1, windows=30, diversity=0.0, temperature_effect=0.0, damaged=0.0))
    power = (np.abs(np.fft.rfft(x, axis=1)) ** 2).mean(0)
    frequency = np.fft.rfftfreq(4096, 1 / RATE)

    def at(m):
        return power[np.abs(frequency - FREQUENCY[m]) < 0.1].mean(0)

    assert at(0)[1] / at(0)[0] == pytest.approx(2.0, rel=0.2)  # sin^2: 1 at midspan, 1/2 at the quarter
    assert at(2)[1] < 0.2 * at(2)[0]  # the node of the second bending mode


def test_labels_follow_the_onset_and_damage_is_rarer_in_training():
    options = BridgeOptions(clients=60, windows=60)
    share = {}
    for part in ("train", "validation", "test"):
        x, y, truth = windows(options, part=part)
        onset = truth.bridges.onset[truth.bridge]
        np.testing.assert_array_equal(y, truth.hours >= onset)
        np.testing.assert_array_equal(y, truth.damage > 0)
        assert np.isfinite(x).all()
        assert x.dtype == np.float32
        assert (np.diff(truth.hours)[np.diff(truth.bridge) == 0] > 0).all()
        share[part] = y.mean()
    assert 0.05 < share["train"] < share["validation"] < share["test"] < 0.75
    struck = np.isfinite(truth.bridges.onset)
    assert 0.4 < struck.mean() < 0.8
    assert bridge_source(options, WORLD, 0).facts["damaged_bridges"] == struck.sum()
    assert not windows(replace(options, damaged=0.0))[1].any()
    assert not windows(replace(options, damage=0.0))[1].any()


def test_damage_grows_over_time():
    options = BridgeOptions(clients=1, windows=400, damaged=1.0, damage=2.0, onset=(0.2, 0.2), growth_hours=200.0)
    options = replace(options, diversity=0.0, temperature_effect=0.0, validation_fraction=0.0, test_fraction=0.0)
    truth = windows(options)[2]
    since = truth.hours - 0.2 * WORLD.hours
    np.testing.assert_allclose(truth.damage, 2.0 * np.clip(since / 200.0, 0, 1))
    assert np.polyfit(truth.damage, truth.frequencies[:, 0], 1)[0] == pytest.approx(-0.0566 * 3.89, rel=0.05)


def test_reconstruct_targets_are_standardised_windows_and_damage_starts_after_training():
    options = BridgeOptions(clients=20, windows=60, task="reconstruct", damaged=1.0)
    source = bridge_source(options, WORLD, 0)
    assert (source.task, source.outputs) == ("regression", 384)
    for part in ("train", "validation", "test"):
        x, y, truth = windows(options, part=part)
        assert y.dtype == np.float32
        scale = np.array([c.deviation for c in source.channels])
        np.testing.assert_allclose(y.reshape(x.shape), x / scale, rtol=1e-5)
        assert (truth.damage > 0).any() == (part == "test")
    assert 0.2 < (truth.damage > 0).mean() < 0.9


def test_bridge_does_not_depend_on_other_clients():
    options = BridgeOptions(clients=40, windows=50)
    for part in ("train", "test"):
        x, y, truth = windows(options, part=part, seed=4)
        for alone in ([9], [39, 9, 2]):
            x1, y1, truth1 = windows(options, alone, part, seed=4)
            mine = truth1.bridge == alone.index(9)
            assert x1[mine].tobytes() == x[truth.bridge == 9].tobytes()
            assert y1[mine].tobytes() == y[truth.bridge == 9].tobytes()
            assert truth1.hours[mine].tobytes() == truth.hours[truth.bridge == 9].tobytes()
    assert windows(options, [9], seed=5)[0].tobytes() != windows(options, [9], seed=4)[0].tobytes()


def trained(module, loss, x, y, steps):
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(module.parameters(), 2e-3)
    for _ in range(steps):
        rows = torch.randint(len(x), (64,))
        optimiser.zero_grad()
        loss(module(x[rows]), y[rows]).backward()
        optimiser.step()
    return module


def test_small_network_separates_damage_from_frost():
    options = BridgeOptions(clients=15, windows=150)
    x, y, _ = windows(options)
    held, expected, _ = windows(options, part="test")
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(384, 48), torch.nn.ReLU(), torch.nn.Linear(48, 2))
    trained(net, torch.nn.functional.cross_entropy, torch.from_numpy(x / 0.02), torch.from_numpy(y), 500)
    guess = net(torch.from_numpy(held / 0.02)).argmax(1).numpy()
    balanced = np.mean([(guess == expected)[expected == c].mean() for c in (0, 1)])
    assert 0.6 < balanced < 0.98


def test_autoencoder_of_healthy_windows_has_larger_error_on_damaged_ones():
    options = BridgeOptions(clients=10, windows=150, task="reconstruct", damaged=1.0, damage=2.0)
    x, y, _ = windows(options)
    held, expected, truth = windows(options, part="test")
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(384, 24), torch.nn.Linear(24, 384))
    trained(net, torch.nn.functional.mse_loss, torch.from_numpy(x / 0.02), torch.from_numpy(y), 700)
    error = ((net(torch.from_numpy(held / 0.02)).detach().numpy() - expected) ** 2).mean(1) / (expected**2).mean(1)
    assert np.median(error[truth.damage > 0]) > 1.5 * np.median(error[truth.damage == 0])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"clients": 0}, "clients"),
        ({"windows": 0}, "windows"),
        ({"window": 1}, "window"),
        ({"sensors": 0}, "sensors"),
        ({"damaged": 1.5}, "damaged"),
        ({"damage": -1.0}, "damage"),
        ({"onset": (0.9, 0.1)}, "onset"),
        ({"growth_hours": -1.0}, "growth_hours"),
        ({"noise": -1.0}, "noise"),
        ({"validation_fraction": 0.9}, "test_fraction"),
    ],
)
def test_mistakes_name_their_field(change, field):
    with pytest.raises(UserError) as caught:
        BridgeOptions(**change)
    assert caught.value.field == field
