"""Each fault of a sensor follows its formula or its statistics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from clients.core.channels import Channel
from clients.core.errors import UserError
from clients.faults.apply import Block, affected, corrupt
from clients.faults.checks import check_faults
from clients.faults.label_options import LabelClassDependentOptions, LabelSymmetricOptions
from clients.faults.options import FaultOptions, Schedule
from clients.faults.sensor_options import (
    BiasOptions,
    CalibrationDriftOptions,
    NoiseOptions,
    QuantisationOptions,
    SaturationOptions,
    SpikesOptions,
    StuckAtOptions,
    UnitMixupOptions,
)
from clients.faults.table import FAULTS

SPEED = Channel(name="speed", mean=50.0, deviation=10.0, low=0.0, high=90.0, other_unit="km/h", other_scale=1.609)
WARMTH = Channel(
    name="warmth", mean=10.0, deviation=8.0, other_unit="deg F", other_scale=1.8, other_offset=32.0
)  # no range
COUNT = Channel(name="count", mean=4.0, deviation=2.0, other_scale=3.0)  # without a unit
CHANNELS = (SPEED, WARMTH, COUNT)


def block_of(clients: int = 200, steps: int = 500, channels: tuple[Channel, ...] = CHANNELS) -> Block:
    random = np.random.default_rng(3)
    mean, deviation = (np.array([getattr(c, a) for c in channels]) for a in ("mean", "deviation"))
    values = mean + deviation * random.uniform(-3.0, 3.0, size=(clients, steps, len(channels)))
    return Block(
        values=values.astype(np.float32),
        lengths=np.full(clients, steps),
        clients=np.arange(clients),
        hours=None,
        district=np.zeros(clients, np.int64),
        channels=channels,
    )


def one(options: FaultOptions, block: Block | None = None, seed: int = 11) -> tuple[Any, Any, Any, Any]:
    block = block_of() if block is None else block
    values, masks, effects = corrupt(block, {"it": options}, seed=seed)
    return block.values.astype(np.float64), values.astype(np.float64), masks["it"], effects["it"]


@pytest.mark.parametrize(("snr_db", "severity"), [(0.0, 1.0), (10.0, 1.0), (10.0, 0.5), (-6.0, 0.25)])
def test_noise_has_its_signal_to_noise_ratio(snr_db: float, severity: float) -> None:
    before, after, _, effect = one(NoiseOptions(snr_db=snr_db, severity=severity))
    added = (after - before)[:, :, 1:]  # the speed is clipped
    count = added.shape[0] * added.shape[1]
    expected = snr_db - 20 * np.log10(severity)
    for column, channel in enumerate((WARMTH, COUNT)):
        ratio = 10 * np.log10(channel.deviation**2 / added[:, :, column].var())
        assert abs(ratio - expected) < 4 * 10 / np.log(10) * np.sqrt(2 / count)
        assert abs(added[:, :, column].mean()) < 4 * channel.deviation * 10 ** (-expected / 20) / np.sqrt(count)
    realised = np.sqrt((((after - before) / [10.0, 8.0, 2.0]) ** 2).mean(axis=(1, 2)))
    np.testing.assert_allclose(effect, realised, rtol=1e-5)


def test_noise_is_normal_white_and_independent_between_channels() -> None:
    before, after, _, _ = one(NoiseOptions(severity=1.0))
    added = (after - before)[:, :, 1:] / [8.0, 2.0]
    assert stats.kstest(added[:, :, 0].ravel(), "norm").pvalue > 0.01
    bound = 4 / np.sqrt(added[:, 1:, 0].size)
    for lag in (1, 2, 3):
        assert abs((added[:, lag:, 0] * added[:, :-lag, 0]).mean()) < bound
    assert abs((added[:, :, 0] * added[:, :, 1]).mean()) < bound
    assert abs((added[1:, :, 0] * added[:-1, :, 0]).mean()) < bound


def test_spikes_are_rare_have_both_signs_and_their_size() -> None:
    before, after, mask, effect = one(SpikesOptions(severity=0.5, share=0.1, deviations=6.0))
    share, count = 0.05, mask[:, :, 1:].size
    assert abs(mask[:, :, 1:].mean() - share) < 4 * np.sqrt(share * (1 - share) / count)
    jump = ((after - before) / [10.0, 8.0, 2.0])[:, :, 1:][mask[:, :, 1:]]
    assert np.abs(jump).min() >= 3.0 - 1e-4
    assert np.abs(jump).max() <= 6.0 + 1e-4
    assert abs((jump > 0).mean() - 0.5) < 4 * 0.5 / np.sqrt(len(jump))
    assert stats.kstest(np.abs(jump), "uniform", args=(3.0, 3.0)).pvalue > 0.01
    speed = after[:, :, 0]
    assert speed.min() == 0.0
    assert speed.max() == 90.0
    assert effect.mean() == pytest.approx(np.sqrt(share * 6.0**2 * 7 / 12), rel=0.1)  # E[u^2] of u in [1/2, 1] is 7/12


def test_bias_is_one_number_for_each_client_and_channel() -> None:
    before, after, _, _ = one(BiasOptions(severity=0.5, deviations=2.0))
    error = ((after - before) / [10.0, 8.0, 2.0])[:, :, 1:]
    np.testing.assert_allclose(error, np.broadcast_to(error[:, :1], error.shape), atol=1e-5)
    of_each = error[:, 0].ravel()
    assert np.abs(of_each).min() >= 0.5 - 1e-4
    assert np.abs(of_each).max() <= 1.0 + 1e-4
    assert 0.4 < (of_each > 0).mean() < 0.6
    assert len(np.unique(of_each.round(4))) > 350


def test_calibration_drift_is_a_ramp_from_step_0_that_levels_off() -> None:
    before, after, mask, _ = one(CalibrationDriftOptions(severity=0.5, deviations=4.0, steps=250))
    error = ((after - before) / [10.0, 8.0, 2.0])[:, :, 1:]
    ramp = np.minimum(np.arange(500) / 250, 1.0)[:, None]
    np.testing.assert_allclose(error, error[:, -1:] * ramp, atol=1e-5)
    assert not mask[:, 0].any()
    assert np.abs(error[:, -1]).min() >= 1.0 - 1e-4
    assert np.abs(error[:, -1]).max() <= 2.0 + 1e-4


def test_mixed_up_units_follow_the_formula_beyond_the_range() -> None:
    before, after, mask, _ = one(UnitMixupOptions(severity=1.0))
    np.testing.assert_allclose(after[:, :, 0], 1.609 * before[:, :, 0], rtol=1e-6)
    np.testing.assert_allclose(after[:, :, 1], 1.8 * before[:, :, 1] + 32.0, rtol=1e-5, atol=1e-5)
    assert after[:, :, 0].max() > 90.0
    np.testing.assert_array_equal(after[:, :, 2], before[:, :, 2])
    assert not mask[:, :, 2].any()


def test_mixed_up_units_come_in_stretches() -> None:
    mask = one(UnitMixupOptions(severity=0.5, steps=20, share=0.8))[2]
    share, slots = 0.4, 200 * 500 / 20
    for channel in (0, 1):
        assert abs(mask[:, :, channel].mean() - share) < 4 * np.sqrt(share * (1 - share) / slots)
    assert _runs(mask[:, :, 0]).min() == 20
    assert (mask[:, :, 0] != mask[:, :, 1]).any()


def _runs(hit: Any) -> Any:
    """Lengths of the runs that lie wholly inside (the first reading of a span that begins stuck is not changed)."""
    found = []
    for row in hit:
        edges = np.flatnonzero(np.diff(row.astype(int)))
        starts = edges[row[edges + 1] & (edges > 0)]
        found += [int(edges[edges > s][0] - s) for s in starts if (edges > s).any()]
    return np.array(found)


def test_stuck_sensor_repeats_its_last_reading() -> None:
    before, after, mask, effect = one(StuckAtOptions(severity=0.6, share=0.5, steps=8))
    assert abs(mask.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / (200 * 3 * 500 / 8))
    runs = _runs(mask[:, :, 1])
    assert runs.min() == 8
    assert runs.mean() == pytest.approx(8 / 0.7, rel=0.1)
    expected = before.copy()
    for t in range(1, 500):
        expected[:, t] = np.where(mask[:, t], expected[:, t - 1], before[:, t])
    np.testing.assert_array_equal(after, expected)
    np.testing.assert_allclose(effect, mask.mean(axis=(1, 2)), atol=2 / 500)  # the first reading is used as the last


def test_saturation_clips_and_quantisation_rounds() -> None:
    before, after, _, _ = one(SaturationOptions(severity=0.5, limit=0.5))
    mean, deviation = np.array([50.0, 10.0, 4.0]), np.array([10.0, 8.0, 2.0])
    np.testing.assert_allclose(after, np.clip(before, mean - deviation, mean + deviation), rtol=1e-6)
    before, after, _, _ = one(QuantisationOptions(severity=1.0, bits=3))
    steps = (after - mean) / deviation  # 2**3 steps over 8 deviations: a step is one deviation
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-5)
    assert (np.abs(after - before) <= deviation / 2 * (1 + 1e-5)).all()
    finer = one(QuantisationOptions(severity=0.5, bits=3, finest=5))[1]  # 4 bits: half a deviation
    halves = 2 * (finer - mean) / deviation
    np.testing.assert_allclose(halves, np.rint(halves), atol=1e-5)
    assert 0.4 < (np.rint(halves) % 2 == 1).mean() < 0.6


def test_faults_are_applied_in_order_each_with_its_own_numbers() -> None:
    block = block_of(20, 100)
    noise, clip = NoiseOptions(severity=1.0), SaturationOptions(severity=1.0, limit=1.0)
    values, masks, effects = corrupt(block, {"noise": noise, "clip": clip}, seed=1)
    noisy, only, _ = corrupt(block, {"noise": noise}, seed=1)
    np.testing.assert_array_equal(masks["noise"], only["noise"])
    np.testing.assert_array_equal(values != noisy, masks["clip"])
    np.testing.assert_allclose(values, np.clip(noisy, [40.0, 2.0, 2.0], [60.0, 18.0, 6.0]), rtol=1e-6)
    assert set(effects) == {"noise", "clip"}
    other = corrupt(block, {"clip": clip, "noise": noise}, seed=1)[0]
    assert other.max() > values.max()
    twice = corrupt(block, {"noise": noise, "hiss": noise}, seed=1)[0]
    added, second = (noisy - block.values)[:, :, 1:], (twice - noisy)[:, :, 1:]
    assert abs(np.corrcoef(added.ravel(), second.ravel())[0, 1]) < 4 / np.sqrt(added.size)


def test_faults_of_labels_do_not_change_readings() -> None:
    values, masks, effects = corrupt(block_of(3, 10), {"it": LabelSymmetricOptions()}, seed=1)
    assert values.tobytes() == block_of(3, 10).values.tobytes()
    assert masks == effects == {}


def test_fault_affects_its_share_of_clients_and_its_districts() -> None:
    clients, district = np.arange(20_000), np.arange(20_000) % 3
    options = BiasOptions(clients=0.3)
    few = affected("it", options, clients, district, 1)
    assert abs(few.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 20_000)
    assert not (few & ~affected("it", BiasOptions(clients=0.4), clients, district, 1)).any()
    assert (few != affected("other", options, clients, district, 1)).any()
    there = affected("it", BiasOptions(clients=0.3, districts=("b",)), clients, district, 1, districts=("a", "b", "c"))
    np.testing.assert_array_equal(there, few & (district == 1))
    assert not affected("it", BiasOptions(severity=0.0), clients, district, 1).any()


REFUSED: dict[str, tuple[FaultOptions, dict[str, Any], str]] = {
    "channel": (BiasOptions(channels=("sped",)), {}, "it.channels: 'sped' is not a measured channel. Nearest: 'speed'"),
    "unmeasured": (BiasOptions(channels=("hour",)), {}, "it.channels: 'hour' is not a measured channel"),
    "no channels": (BiasOptions(), {"channels": ()}, "it.kind: is 'bias', and these data have no channels"),
    "district": (BiasOptions(districts=("Nort",)), {}, "it.districts: 'Nort' is not a district. Nearest: 'North'"),
    "no districts": (BiasOptions(districts=("North",)), {"districts": ()}, "have no districts"),
    "clock": (BiasOptions(schedule=Schedule(unit="hours")), {"has_hours": False}, "it.schedule.unit: is 'hours'"),
    "unit": (UnitMixupOptions(), {"channels": (COUNT,)}, "no channel of these data has another unit"),
    "units": (UnitMixupOptions(channels=("count",)), {}, "it.channels: names none that has another unit"),
    "labels": (
        LabelSymmetricOptions(),
        {"task": "regression"},
        "it.kind: is 'label_symmetric', and these data have no",
    ),
    "one class": (LabelSymmetricOptions(), {"classes": 1}, "only one class"),
    "rates": (LabelClassDependentOptions(rates=(0.1, 0.2)), {}, "one rate for each of the 3 classes, got 2"),
}


@pytest.mark.parametrize(("options", "changes", "message"), REFUSED.values(), ids=REFUSED)
def test_faults_that_do_not_fit_the_data_are_refused(
    options: FaultOptions, changes: dict[str, Any], message: str
) -> None:
    fits: dict[str, Any] = {
        "channels": (*CHANNELS, Channel(name="hour", measured=False)),
        "districts": ("North", "South"),
        "task": "classification",
        "classes": 3,
        "has_hours": True,
    }
    with pytest.raises(UserError) as error:
        check_faults({"it": options}, **fits | changes)
    assert message in str(error.value)


def test_faults_that_fit_the_data_are_accepted() -> None:
    check_faults(
        {
            "a": BiasOptions(channels=("count",), districts=("South",), schedule=Schedule(unit="hours", start=3.0)),
            "b": LabelClassDependentOptions(rates=(0.1, 0.2, 0.3)),
            "c": UnitMixupOptions(channels=("count", "speed")),
        },
        channels=CHANNELS,
        districts=("North", "South"),
        task="classification",
        classes=3,
        has_hours=True,
    )


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: BiasOptions(severity=1.1), "severity"),
        (lambda: BiasOptions(severity=float("nan")), "severity"),
        (lambda: BiasOptions(clients=-0.1), "clients"),
        (lambda: StuckAtOptions(steps=0), "steps"),
        (lambda: SpikesOptions(share=2.0), "share"),
        (lambda: NoiseOptions(snr_db=float("inf")), "snr_db"),
        (lambda: SaturationOptions(limit=0.0), "limit"),
        (lambda: QuantisationOptions(bits=9, finest=8), "finest"),
        (lambda: Schedule(start=3.0, stop=3.0), "stop"),
        (lambda: LabelClassDependentOptions(rates=(0.1, 0.2), to=(0, 0)), "to"),
        (lambda: LabelClassDependentOptions(rates=(0.1, 1.2)), "rates"),
    ],
)
def test_invalid_fault_options_are_refused(make: Any, field: str) -> None:
    with pytest.raises(UserError) as error:
        make()
    assert error.value.field == field


def test_page_of_faults_lists_exactly_the_kinds() -> None:
    page = (Path(__file__).parents[3] / "docs" / "faults.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\|.*\|", page, re.MULTILINE)
    assert [name for name in rows if name in FAULTS] == list(dict.fromkeys(rows)), "a row that is not a fault"
    assert sorted(rows) == sorted(FAULTS)


def test_faintest_saturation_clips_nothing() -> None:
    values = np.linspace(-50, 50, 20, dtype=np.float32).reshape(1, 20, 1)
    block = Block(values=values, lengths=np.array([20]), clients=np.array([0]), hours=None, district=np.array([0]),
                  channels=(Channel(name="x"),))  # fmt: skip
    out, masks, _ = corrupt(block, {"faint": SaturationOptions(severity=1e-300)}, seed=0)
    assert np.array_equal(out, values)
    assert not masks["faint"].any()
