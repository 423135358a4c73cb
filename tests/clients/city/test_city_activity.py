import math

import numpy as np
import pytest
import torch
from activity_statistics import NAMES, discriminate, features, figures, load_uci_har, rms, statistics, step_frequency
from needs import shared_data

from clients.city.activity import activity_source
from clients.city.gait import ACTIVITIES, rotation
from clients.city.window_options import ActivityOptions
from clients.core.errors import UserError
from clients.world.options import WorldOptions
from clients.world.world import make_world

WORLD = make_world(WorldOptions(), 0)
LIKE_UCI = ActivityOptions(windows=343, placements=(1.0, 0.0, 0.0), validation_fraction=0.0, test_fraction=0.0)


def windows(options, seed=0, clients=None, part="train"):
    source = activity_source(options, WORLD, seed)
    chosen = np.arange(options.clients) if clients is None else np.asarray(clients)
    x, y = source.make(chosen, part)
    counts = {"train": source.sizes, "validation": source.validation_sizes, "test": source.test_sizes}[part]
    return x, y, np.repeat(chosen, counts[chosen])


def within(found):
    return {k: (found[k], f) for k, f in figures().items() if not f["low"] <= found[k] <= f["high"]}


def test_committed_figures_equal_those_of_uci_har():
    found = statistics(*load_uci_har(shared_data("activity_uci_har/uci_har_windows_25hz_int16.npz")))
    assert found.keys() == figures().keys()
    for name, figure in figures().items():
        assert found[name] == pytest.approx(figure["real"], abs=2e-4 * max(1, abs(figure["real"]))), name


@pytest.mark.parametrize("seed", [0, 7])
def test_generated_windows_lie_within_every_band(seed):
    x, y, who = windows(LIKE_UCI, seed)
    found = statistics(x, y, who)
    assert found.keys() == figures().keys()
    assert within(found) == {}


def test_wrong_windows_miss_the_bands():
    x, y, who = windows(ActivityOptions(clients=12, windows=120, style=0.0, noise=5.0))
    missed = within(statistics(x, y, who))
    assert {"step_frequency_people_sd_walking", "body_rms_sitting", "up_mean_sitting"} <= missed.keys()


def test_windows_have_their_shape_range_and_labels():
    source = activity_source(ActivityOptions(clients=20, windows=60), WORLD, 3)
    everyone = np.arange(20)
    low = np.array([c.low for c in source.channels])
    for part, sizes in (("train", source.sizes), ("validation", source.validation_sizes), ("test", source.test_sizes)):
        x, y = source.make(everyone, part)
        assert x.shape == (sizes.sum(), 64, 9)
        assert x.dtype == np.float32
        assert y.dtype == np.int64
        assert set(y) <= set(range(6))
        assert np.isfinite(x).all()
        assert (x >= low).all()
        assert (x <= -low).all()
    assert source.outputs == 6
    assert ACTIVITIES == NAMES
    assert [c.name for c in source.channels[::3]] == ["body_acc_x", "body_gyro_x", "total_acc_x"]


def test_total_acceleration_is_body_acceleration_and_constant_gravity():
    x, *_ = windows(ActivityOptions(clients=4, windows=30))
    x = x[(np.abs(x[:, :, [0, 1, 2, 6, 7, 8]]) < 2.0).all((1, 2))]  # except at the end of the sensor's range
    gravity = x[:, :, 6:] - x[:, :, :3]
    np.testing.assert_allclose(gravity, np.broadcast_to(gravity.mean(1, keepdims=True), gravity.shape), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(gravity.mean(1), axis=1), 1.02, atol=1e-5)


def test_person_does_not_depend_on_other_clients():
    options = ActivityOptions(clients=50, windows=40)
    for part in ("train", "validation", "test"):
        x, y, who = windows(options, 5, range(50), part)
        hours = activity_source(options, WORLD, 5).hours(np.arange(50), part)
        for alone in ([17], [49, 17, 3], [17, 18]):
            x1, y1, who1 = windows(options, 5, alone, part)
            assert x1[who1 == 17].tobytes() == x[who == 17].tobytes()
            assert y1[who1 == 17].tobytes() == y[who == 17].tobytes()
            hours1 = activity_source(options, WORLD, 5).hours(np.asarray(alone), part)
            assert hours1[who1 == 17].tobytes() == hours[who == 17].tobytes()
    assert windows(options, 6, [17])[0].tobytes() != windows(options, 5, [17])[0].tobytes()


def test_parts_follow_each_other_in_time_and_activities_have_their_hours():
    source = activity_source(ActivityOptions(clients=40, windows=100), WORLD, 0)
    everyone = np.arange(40)
    before = np.full(40, -1.0)
    for part in ("train", "validation", "test"):
        _, y, who = windows(ActivityOptions(clients=40, windows=100), 0, part=part)
        hours = source.hours(everyone, part)
        assert len(hours) == len(y)
        for k in everyone:
            mine = hours[who == k]
            assert mine[0] > before[k]
            assert (np.diff(mine) > 0).all()
            before[k] = mine[-1]
        night = (hours % 24 < 5).astype(float)
        assert night[y == 5].mean() > 0.25
        assert night[y < 3].mean() < 0.05
    assert before.max() <= WORLD.hours


def test_stairs_are_slower_upwards_and_have_harder_impacts_downwards():
    x, y, _ = windows(ActivityOptions(clients=40, windows=100))
    assert step_frequency(x[y == 1]).mean() < step_frequency(x[y == 0]).mean()
    assert np.median(rms(x[y == 2][:, :, :3])) > 1.2 * np.median(rms(x[y == 0][:, :, :3]))


def test_pocket_unit_separates_sitting_from_standing_and_wrist_unit_moves_more():
    only = [ActivityOptions(clients=30, windows=80, placements=p) for p in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    made = [windows(o) for o in only]

    def apart(x, y, who):  # degrees between a person's gravity sitting and standing
        angles = []
        for k in range(30):
            a, b = (x[(y == c) & (who == k)][:, :, 6:].mean((0, 1)) for c in (3, 4))
            angles.append(np.rad2deg(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))))
        return np.median(angles)

    waist, pocket, _ = (apart(*m) for m in made)
    assert waist < 45 < 60 < pocket < 110
    still = [np.median(rms(x[y > 2][:, :, 3:6])) for x, y, _ in made]
    assert still[2] > 1.5 * still[0]


def test_people_without_style_are_alike_and_sensors_without_noise_are_quiet():
    spread = []
    for style in (0.0, 1.0, 2.0):
        options = ActivityOptions(clients=30, windows=100, placements=(1.0, 0.0, 0.0), style=style)
        x, y, who = windows(options)
        pace = [step_frequency(x[(y == 0) & (who == k)]).mean() for k in range(30)]
        spread.append(np.std(pace))
    assert spread[0] < 0.05 < spread[1] < spread[2]
    quiet = []
    for level in (0.0, 1.0, 3.0):
        x, y, _ = windows(ActivityOptions(clients=5, windows=60, noise=level))
        quiet.append(np.median(np.diff(x[y > 2][:, :, 0], 2, axis=1).std(1)))
    assert quiet[0] < 0.5 * quiet[1] < quiet[1] < 0.5 * quiet[2]


def test_activities_of_unseen_people_are_classified_well_but_not_perfectly():
    x, y, who = windows(ActivityOptions(clients=30, windows=150))
    unseen = who % 3 == 2
    found = features(x)
    right = discriminate(found[~unseen], y[~unseen], found[unseen]) == y[unseen]
    assert 0.7 < right.mean() < 0.97
    shuffled = np.random.default_rng(0).permutation(y)
    wrong = discriminate(found[~unseen], shuffled[~unseen], found[unseen]) == shuffled[unseen]
    assert wrong.mean() < 0.3


def test_mlp_classifies_raw_windows_of_unseen_people():
    x, y, who = windows(ActivityOptions(clients=30, windows=100))
    x = (x - x.mean((0, 1))) / x.std((0, 1))
    flat, labels = torch.from_numpy(x.reshape(len(x), -1).astype(np.float32)), torch.from_numpy(y)
    unseen = torch.from_numpy(who % 3 == 2)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(576, 32), torch.nn.ReLU(), torch.nn.Linear(32, 6))
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(flat[~unseen]), labels[~unseen]).backward()
        optimiser.step()
    accuracy = (model(flat[unseen]).argmax(1) == labels[unseen]).float().mean()
    assert 0.45 < accuracy < 0.98  # chance is 0.19


def test_rotations_keep_lengths_and_turn_the_right_way():
    turn = rotation(np.array([[0.0, 0.0, np.pi / 2], [0.3, -0.2, 0.9], [0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(turn[0] @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(turn[1] @ turn[1].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn[1]) == pytest.approx(1)
    np.testing.assert_array_equal(turn[2], np.eye(3))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"clients": 0}, "clients"),
        ({"windows": 0}, "windows"),
        ({"window": 8}, "window"),
        ({"shares": (1.0, 1.0)}, "shares"),
        ({"placements": (0.0, 0.0, 0.0)}, "placements"),
        ({"style": -1.0}, "style"),
        ({"test_fraction": 1.0}, "test_fraction"),
        ({"test_fraction": 0.5, "validation_fraction": 0.5}, "test_fraction"),
        ({"spread": math.nan}, "spread"),
    ],
)
def test_mistakes_name_their_field(change, field):
    with pytest.raises(UserError) as caught:
        ActivityOptions(**change)
    assert caught.value.field == field
