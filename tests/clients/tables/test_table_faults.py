"""Faults in recorded series change the training readings before windows are cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clients.concept_drift.options import DriftOptions
from clients.core.errors import UserError
from clients.core.population import Population
from clients.faults.options import Schedule
from clients.faults.packet_options import GatewayOutageOptions
from clients.faults.sensor_options import BiasOptions, StuckAtOptions
from clients.federation.build import Federation, build_federation
from clients.tables.options import TableOptions
from clients.world.options import WorldOptions

ROWS, WINDOW = 200, 6


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Write three sensors' hourly readings with one missing value."""
    t = np.arange(ROWS)
    lines = ["time,a,b,c"]
    for i in t:
        b = "" if i == 50 else f"{5 + np.cos(i / 7):.4f}"
        lines.append(f"2026-03-0{1 + i // 24} {i % 24:02d}:00,{20 + np.sin(i / 5):.4f},{b},{i / 10:.2f}")
    path = tmp_path / "sensors.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def population(path: Path, scale: str = "client", **more: object) -> Population:
    options = TableOptions(path=str(path), window=WINDOW, horizon=2, gaps="drop", scale=scale)  # type: ignore[arg-type]
    return build_federation(Federation(data=options, seed=1, **more))  # type: ignore[arg-type]


def windows(p: Population, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    e = p.cohort(np.array([k])).client(0)
    return e.features, e.targets


def test_bias_moves_training_windows_and_targets_alike(table: Path) -> None:
    clean = population(table)
    p = population(table, faults={"off": BiasOptions(severity=1.0)})
    for k in range(3):
        moved = windows(p, k)[0] - windows(clean, k)[0]
        assert moved.std() < 1e-5
        assert moved.abs().mean() > 0.1
        torch.testing.assert_close(windows(p, k)[1] - windows(clean, k)[1], moved[:, -2:, 0], atol=1e-5, rtol=0)
    assert torch.equal(p.validation.features, clean.validation.features)  # type: ignore[union-attr]
    assert torch.equal(p.test.targets, clean.test.targets)  # type: ignore[union-attr]
    masks = p.masks(np.arange(3))["off"]  # type: ignore[misc]
    assert [int((~m).sum()) for m in masks] == [0, 1, 0], "all but the missing value"
    assert p.sizes.tolist() == clean.sizes.tolist()


def test_stuck_sensor_stays_stuck_across_windows(table: Path) -> None:
    p = population(table, scale="none", faults={"stuck": StuckAtOptions(severity=1.0)})
    truth = population(table, scale="none")
    ours, theirs = windows(p, 2)[0][:, -1, 0], windows(truth, 2)[0][:, -1, 0]
    assert (torch.diff(theirs) > 0).all()
    held = torch.diff(ours) == 0
    assert held.sum() > 10
    found = p.cohort(np.array([2])).fault_counts  # type: ignore[misc]
    assert found.changed["stuck"][0] == pytest.approx(p.masks(np.array([2]))["stuck"][0].mean())  # type: ignore[misc]


def test_hours_count_from_the_first_midnight(table: Path) -> None:
    clean = population(table)
    hours = clean.clients.hours(np.array([0, 1]))  # type: ignore[misc]
    assert hours[0] == WINDOW - 1
    assert len(hours) == clean.sizes[:2].sum()
    late = population(
        table, faults={"off": BiasOptions(severity=1.0, schedule=Schedule(unit="hours", start=24, stop=48))}
    )
    changed = (windows(late, 0)[0] != windows(clean, 0)[0]).flatten(1).any(1).numpy()
    when = clean.clients.hours(np.array([0]))  # type: ignore[misc]
    assert np.array_equal(changed, (when >= 24) & (when < 48 + WINDOW - 1))


def test_drift_in_hours_reaches_held_out_examples(table: Path) -> None:
    clean = population(table)
    held, test = clean.clients.held_out, clean.central.test
    assert held is not None
    assert test is not None
    assert test.hours is not None
    late = float(np.sort(test.hours)[len(test.hours) // 2])
    p = population(table, drifts={"turn": DriftOptions(unit="hours", start=late)})
    everyone = np.arange(3)
    assert all(torch.equal(windows(p, k)[1], windows(clean, k)[1]) for k in everyone), "training lies before it"
    assert p.during(1000).validation is not None
    assert torch.equal(p.during(1000).validation.targets, clean.validation.targets)  # type: ignore[union-attr]
    now, before = p.clients.held_out(everyone), held(everyone)  # type: ignore[misc]
    differs = (now.targets[now.rows] != before.targets[before.rows]).any(1).numpy()
    assert np.array_equal(differs, clean.clients.held_out_hours(everyone) >= late)  # type: ignore[misc]
    central = (p.test.targets != clean.test.targets).any(1).numpy()  # type: ignore[union-attr]
    assert np.array_equal(central, test.hours >= late)
    assert test.owners is not None
    assert np.array_equal(test.owners, np.repeat(everyone, held(everyone).sizes))


def test_stuck_sensor_never_shows_a_missing_reading(table: Path) -> None:
    p = population(table, scale="none", faults={"stuck": StuckAtOptions(severity=1.0, steps=3)})
    truth = np.round(5 + np.cos(np.arange(ROWS) / 7), 4).astype(np.float32)
    shown = windows(p, 1)[0].numpy().ravel()
    assert np.isin(shown, truth).all()


def test_table_faults_follow_districts_and_rounds(table: Path) -> None:
    out = GatewayOutageOptions(severity=1.0, share=0.5, schedule=Schedule(start=2, stop=3))
    p = population(table, faults={"out": out}, world=WorldOptions(days=9))
    assert p.federation.places is not None
    assert torch.equal(windows(p.during(1), 0)[0], windows(p.during(3), 0)[0])
    assert not torch.equal(windows(p.during(1), 0)[0], windows(p.during(2), 0)[0])
    with pytest.raises(UserError, match=r"faults\.off\.channels: 'd' is not a measured channel"):
        population(table, faults={"off": BiasOptions(severity=1.0, channels=("d",))})
