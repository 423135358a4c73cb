"""Each client's digits are turned by its own angle: turns are exact where they can be, and addressed by the client."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fedscape as fs
from clients.core.errors import UserError
from clients.partition.rotation import client_angles, rotation_matrix
from clients.sources.options import DigitsOptions


def digits(clients: int = 5, **more: Any) -> fs.Population:
    sets = {"partition.clients": clients, "data.client_test_fraction": 0.25}
    return fs.population(fs.load_scenario("digits-iid", sets=sets | more))


@pytest.mark.parametrize("side", [3, 4, 8])
def test_quarter_turns_are_exact(side: int) -> None:
    image = np.random.default_rng(side).normal(size=(side, side))
    for quarters in range(-2, 3):
        turned = rotation_matrix(90.0 * quarters, side) @ image.reshape(-1)
        np.testing.assert_allclose(turned.reshape(side, side), np.rot90(image, quarters), atol=1e-9)


def test_small_turns_interpolate_and_keep_the_centre() -> None:
    matrix = rotation_matrix(20.0, 9)
    assert (matrix >= 0).all()
    assert matrix.sum(1).max() <= 1 + 1e-9
    inner = matrix.reshape(9, 9, 81)[2:7, 2:7].sum(2)
    np.testing.assert_allclose(inner, 1.0, atol=1e-9)  # nothing there comes from outside
    assert matrix[40, 40] == pytest.approx(1.0)
    image = np.zeros((9, 9))
    image[4, 6] = 1.0  # to the right of the centre: anticlockwise it moves up
    mass = (matrix @ image.reshape(-1)).reshape(9, 9)
    row, column = (float((mass * axis).sum() / mass.sum()) for axis in np.mgrid[:9, :9])
    assert row == pytest.approx(4 - 2 * np.sin(np.radians(20)), abs=0.1)
    assert column == pytest.approx(4 + 2 * np.cos(np.radians(20)), abs=0.1)


def test_clients_that_hold_out_nothing_are_turned() -> None:
    made = digits(1000, **{"data.rotation": 30.0, "data.client_test_fraction": 0.1})
    assert made.clients.held_out is not None
    held_out = made.clients.held_out(np.arange(1000))
    assert held_out.sizes.sum() == 0
    assert held_out.features.shape[1:] == made.feature_shape


@pytest.mark.parametrize("flat", [True, False])
def test_client_has_its_images_turned_by_its_own_angle(flat: bool) -> None:
    straight, turned = (digits(**{"data.rotation": most, "data.flat": flat}) for most in (0.0, 70.0))
    seed = fs.load_scenario("digits-iid").run.seed
    angles = client_angles(5, 70.0, seed)
    assert np.abs(angles).max() <= 70.0
    assert len(set(angles)) == 5
    for part in ("cohort", "held_out"):
        before, after = (getattr(p.clients, part) for p in (straight, turned))
        for k in range(5):
            one, other = (made(np.array([k])).client(0) for made in (before, after))
            assert torch.equal(one.targets, other.targets)
            rows = one.features.double().reshape(len(one), 64).numpy()
            wanted = (rows @ rotation_matrix(angles[k], 8).T).clip(0, 1).reshape(one.features.shape)
            np.testing.assert_allclose(other.features.numpy(), wanted, atol=1e-6)
    assert turned.federation.record["mean_absolute_angle"] == pytest.approx(np.abs(angles).mean())


def test_angle_depends_on_the_seed_and_the_client_alone() -> None:
    assert (client_angles(9, 30.0, 4)[:3] == client_angles(3, 30.0, 4)).all()
    assert (client_angles(9, 30.0, 4) != client_angles(9, 30.0, 5)).all()
    np.testing.assert_allclose(client_angles(9, 60.0, 4), 2 * client_angles(9, 30.0, 4))
    many = client_angles(4000, 1.0, 0)
    assert many.mean() == pytest.approx(0.0, abs=0.04)
    assert many.var() == pytest.approx(1 / 3, abs=0.02)


def test_central_digits_are_turned_each_by_another_angle() -> None:
    straight, turned = digits(), digits(**{"data.rotation": 180.0})
    assert straight.validation is not None
    assert turned.validation is not None
    assert torch.equal(straight.validation.targets, turned.validation.targets)
    same = (straight.validation.features - turned.validation.features).abs().amax(1) < 0.05
    assert same.sum() < 0.2 * len(same)
    norms = [v.features.sum(1).double() for v in (straight.validation, turned.validation)]
    assert float((norms[1] / norms[0]).mean()) == pytest.approx(1.0, abs=0.06)  # ink in the corners may leave the image


def test_impossible_angles_are_refused() -> None:
    with pytest.raises(UserError, match="rotation"):
        fs.load_scenario("digits-iid", sets={"data.rotation": 200.0})
    assert DigitsOptions(rotation=180.0).rotation == 180.0
