"""Each packet fault follows its rule, and gateways are out at the listed times."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from clients.core.channels import Channel
from clients.faults.apply import Block, corrupt
from clients.faults.options import FaultOptions, Fill, Schedule
from clients.faults.outages import Outage, outages
from clients.faults.packet_options import (
    ClockSkewOptions,
    DuplicatedOptions,
    GatewayOutageOptions,
    MissingBurstsOptions,
    MissingOptions,
    ReorderedOptions,
)

CHANNELS = (Channel(name="a", mean=50.0, deviation=10.0), Channel(name="b", mean=-7.0, deviation=2.0))
K, T = 120, 480


@dataclass(frozen=True)
class Weather:
    storm: Any


def block_of(clients: int = K, steps: int = T, *, districts: int = 1) -> Block:
    values = np.random.default_rng(3).normal([50.0, -7.0], [10.0, 2.0], (clients, steps, 2)).astype(np.float32)
    return Block(
        values=values,
        lengths=np.full(clients, steps),
        clients=np.arange(clients) + 5,
        hours=np.tile(np.arange(steps) * 0.5, (clients, 1)),  # half-hourly
        district=np.arange(clients) % districts,
        channels=CHANNELS,
        districts=tuple("ABCDEFGH"[:districts]),
    )


def one(options: FaultOptions, block: Block, world: Any = None, seed: int = 4) -> tuple[Any, Any, Any]:
    values, masks, effects = corrupt(block, {"it": options}, seed=seed, world=world)
    return values, masks["it"], effects["it"]


def test_missing_readings_have_their_share_and_are_independent() -> None:
    _, mask, effect = one(MissingOptions(severity=0.5, share=0.6, fill="zero"), block_of())
    assert abs(mask.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / mask.size)
    np.testing.assert_allclose(effect, mask.mean(axis=(1, 2)))
    centred = mask - 0.3
    bound = 4 * 0.21 / np.sqrt(K * T)
    assert abs((centred[:, 1:, 0] * centred[:, :-1, 0]).mean()) < bound
    assert abs((centred[:, :, 0] * centred[:, :, 1]).mean()) < bound


def test_bursts_remove_all_channels_for_stretches() -> None:
    _, mask, effect = one(MissingBurstsOptions(severity=0.5, share=0.8, steps=10, fill="zero"), block_of())
    np.testing.assert_array_equal(mask[:, :, 0], mask[:, :, 1])
    assert abs(mask.mean() - 0.4) < 4 * np.sqrt(0.4 * 0.6 / (K * T / 10))
    starts = mask[:, 1:, 0] & ~mask[:, :-1, 0]
    assert mask[:, 1:, 0].sum() / starts.sum() == pytest.approx(10 / 0.6, rel=0.1)
    assert len(np.unique(np.nonzero(starts)[1] % 10)) == 10  # every client has its own phase
    np.testing.assert_allclose(effect, mask.mean(axis=(1, 2)))


def _filled(series: Any, lost: Any, fill: Fill, mean: float) -> Any:
    """Fill one series, a step at a time."""
    out, came = series.copy(), np.flatnonzero(~lost)
    for t in np.flatnonzero(lost):
        before, after = came[came < t], came[came > t]
        if fill == "zero":
            out[t] = 0.0
        elif fill == "mean" or (not len(before) and (fill == "last" or not len(after))):
            out[t] = mean
        elif fill == "last" or not len(after):
            out[t] = series[before[-1]]
        else:
            out[t] = np.interp(t, came, series[came])
    return out


@pytest.mark.parametrize("fill", ["last", "zero", "mean", "interpolate"])
@pytest.mark.parametrize("make", [MissingOptions, MissingBurstsOptions])
def test_missing_readings_are_filled_by_the_rule(make: Any, fill: Fill) -> None:
    lengths = np.array([25, 3, 1, 20, 25, 12, 25, 25])
    block = replace(block_of(8, 25), lengths=lengths)
    for share in (0.5, 1.0):
        options = make(severity=1.0, share=share, fill="zero")
        lost = one(options, block)[1]
        values, mask, _ = one(replace(options, fill=fill), block)
        for k, length in enumerate(lengths):
            for c, channel in enumerate(CHANNELS):
                expected = _filled(block.values[k, :length, c], lost[k, :length, c], fill, channel.mean)
                np.testing.assert_allclose(values[k, :length, c], expected, rtol=1e-5, atol=1e-5)
        assert not (mask & ~lost).any()
    assert lost[0].all()


def test_readings_before_the_schedule_fill_missing_ones_in_it() -> None:
    options = MissingOptions(severity=1.0, share=1.0, schedule=Schedule(unit="hours", start=5.0, stop=10.0))
    block = block_of(3, 40)
    values = one(options, block)[0]
    np.testing.assert_array_equal(values[:, 10:20], np.repeat(block.values[:, 9:10], 10, axis=1))
    np.testing.assert_array_equal(values[:, 20:], block.values[:, 20:])


@pytest.mark.parametrize("direction", ["late", "early"])
def test_skewed_clock_reads_another_time(direction: Any) -> None:
    block = block_of(50, 100)
    values, _, effect = one(ClockSkewOptions(severity=0.5, steps=12.0, direction=direction), block)
    assert effect.min() >= 3.0
    assert effect.max() <= 6.0
    assert len(np.unique(effect)) == 50
    late = 1.0 if direction == "late" else -1.0
    for k in range(50):
        for c in range(2):
            expected = np.interp(np.arange(100) - late * effect[k], np.arange(100), block.values[k, :, c])
            np.testing.assert_allclose(values[k, :, c], expected, rtol=1e-4, atol=1e-4)


def test_clocks_may_be_either_early_or_late() -> None:
    block = block_of(100, 100)
    ramp = np.repeat(np.arange(100, dtype=np.float32)[None, :, None], 100, axis=0).repeat(2, axis=2)
    values, _, effect = one(ClockSkewOptions(severity=1.0, direction="either"), replace(block, values=ramp))
    moved = (values - ramp)[:, 50, 0]
    np.testing.assert_allclose(np.abs(moved), effect, rtol=1e-5)
    assert 0.35 < (moved < 0).mean() < 0.65


def test_duplicated_packet_equals_the_one_before() -> None:
    block = block_of()
    values, mask, effect = one(DuplicatedOptions(severity=0.5, share=0.6, steps=4), block)
    np.testing.assert_array_equal(mask[:, :, 0], mask[:, :, 1])
    np.testing.assert_array_equal(values[:, 4:], np.where(mask[:, 4:], block.values[:, :-4], block.values[:, 4:]))
    assert not mask[:, :4].any()
    assert abs(mask[:, 4:].mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / (K * T / 4))
    np.testing.assert_allclose(effect, mask.mean(axis=(1, 2)))
    starts = mask[:, 5:, 0] & ~mask[:, 4:-1, 0]
    assert len(np.unique(np.nonzero(starts)[1] % 4)) == 4


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_packets_longer_than_the_block_leave_it_as_it_is(steps: int) -> None:
    block = block_of(3, steps)
    for options in (DuplicatedOptions(severity=1.0, share=1.0, steps=4), ReorderedOptions(severity=1.0, steps=4)):
        values, mask, effect = one(options, block)
        np.testing.assert_array_equal(values, block.values)
        assert not mask.any()
        assert not effect.any()


def test_reordered_packets_are_all_present() -> None:
    block = block_of()
    values, mask, effect = one(ReorderedOptions(severity=1.0, share=0.4, steps=3), block)
    np.testing.assert_array_equal(np.sort(values, axis=1), np.sort(block.values, axis=1))
    back, ahead = np.roll(block.values, 3, axis=1), np.roll(block.values, -3, axis=1)
    np.testing.assert_array_equal(mask, (values != block.values))
    assert ((values == back) | (values == ahead))[mask].all()
    assert abs(mask.mean() - 0.4) < 4 * np.sqrt(0.4 * 0.6 / (K * T / 6)) + 6 / T
    np.testing.assert_allclose(effect, mask.mean(axis=(1, 2)))
    everything = one(ReorderedOptions(severity=1.0, share=1.0, steps=3), block)[1]
    assert everything[:, 6:-6].all()


def test_outage_hits_all_sites_of_its_district_and_no_other() -> None:
    block = block_of(districts=6)
    options = GatewayOutageOptions(severity=1.0, hours=5.0, fill="zero", districts=("B", "C", "E"))
    _, mask, effect = one(options, block)
    hit = mask.any(axis=2)
    for district in range(6):
        here = hit[block.district == district]
        assert (here == here[0]).all()
        assert here.any() == (district in (1, 2, 4))
    np.testing.assert_array_equal(mask[:, :, 0], mask[:, :, 1])
    assert (hit[1] != hit[2]).any()
    np.testing.assert_allclose(effect, mask.mean(axis=(1, 2)))


def test_outages_follow_the_clock_for_every_step_length() -> None:
    block = block_of(districts=1)
    options = GatewayOutageOptions(severity=1.0, hours=4.0, share=0.5, fill="zero")
    coarse = replace(block, hours=np.tile(np.arange(T) * 1.0, (K, 1)))
    late = one(options, coarse)[1][0, : T // 2, 0]
    np.testing.assert_array_equal(one(options, block)[1][0, ::2, 0], late)
    steps = replace(block, hours=None)  # without a clock a step is an hour
    np.testing.assert_array_equal(one(options, steps)[1], one(options, coarse)[1])


@pytest.mark.parametrize("stormy", [False, True])
@pytest.mark.parametrize("schedule", [Schedule(), Schedule(unit="hours", start=30.3, stop=177.7)])
def test_list_of_outages_matches_the_readings(stormy: bool, schedule: Schedule) -> None:
    storm = np.zeros(240)
    storm[100:160] = 0.8
    world = Weather(storm) if stormy else None
    options = GatewayOutageOptions(severity=0.7, hours=3.5, fill="zero", schedule=schedule)
    block = block_of(districts=5)
    mask = one(options, block, world)[1]
    found = outages("it", options, 5, T * 0.5, seed=4, world=world)
    assert found
    out = np.zeros((5, T), bool)
    hours = np.arange(T) * 0.5
    for outage in found:
        assert isinstance(outage, Outage)
        assert not out[outage.district, (hours >= outage.start) & (hours < outage.start + outage.hours)].any()
        out[outage.district] |= (hours >= outage.start) & (hours < outage.start + outage.hours)
    np.testing.assert_array_equal(mask[:, :, 0], out[block.district])
    assert outages("it", replace(options, severity=0.0), 5, 240.0, seed=4) == []


def test_storms_make_outages_likelier_by_the_formula() -> None:
    hours, districts = 240, 400
    storm = np.zeros(hours)
    storm[120:] = 0.5
    options = GatewayOutageOptions(severity=0.5, share=0.1, hours=2.0, storm_factor=8.0)
    lost = np.zeros(2)
    for outage in outages("it", options, districts, float(hours), seed=9, world=Weather(storm)):
        for half in (0, 1):
            begin, end = half * 120.0, (half + 1) * 120.0
            lost[half] += max(0.0, min(end, outage.start + outage.hours) - max(begin, outage.start))
    share = lost / (districts * 120.0)
    expected = np.array([0.05, 1 - 0.95**5])
    error = np.sqrt(expected * (1 - expected) / (districts * 60))
    assert (np.abs(share - expected) < 4 * error + 0.005).all()  # about one slot lies across the two halves
