"""Every fault has the properties listed here: one test for each property."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.core.channels import Channel
from clients.faults import label_options, packet_options, sensor_options
from clients.faults.apply import Block, LabelBlock, affected, corrupt, corrupt_labels
from clients.faults.options import FaultOptions, Schedule
from clients.faults.table import EFFECTS, FAULTS

K, T, D, CLASSES = 40, 240, 4, 5
CHANNELS = (
    Channel(name="speed", mean=55.0, deviation=12.0, low=0.0, high=100.0, other_unit="km/h", other_scale=1.609),
    Channel(name="hour", mean=0.0, deviation=0.7, measured=False),
    Channel(name="warmth", mean=10.0, deviation=8.0, other_unit="deg F", other_scale=1.8, other_offset=32.0),
    Channel(name="flow", mean=300.0, deviation=90.0, low=0.0),
)
MEASURED = (0, 2, 3)

SENSORS: dict[str, FaultOptions] = {
    "stuck_at": sensor_options.StuckAtOptions(steps=5),
    "stuck_at, always new": sensor_options.StuckAtOptions(steps=1),
    "spikes": sensor_options.SpikesOptions(share=0.2),
    "bias": sensor_options.BiasOptions(),
    "calibration_drift": sensor_options.CalibrationDriftOptions(steps=300),
    "calibration_drift, soon over": sensor_options.CalibrationDriftOptions(steps=20),
    "noise": sensor_options.NoiseOptions(),
    "noise, faint": sensor_options.NoiseOptions(snr_db=40.0),
    "missing, last": packet_options.MissingOptions(),
    "missing, zero": packet_options.MissingOptions(fill="zero"),
    "missing, mean": packet_options.MissingOptions(fill="mean"),
    "missing, interpolate": packet_options.MissingOptions(fill="interpolate"),
    "missing, all": packet_options.MissingOptions(share=1.0),
    "missing_bursts, last": packet_options.MissingBurstsOptions(steps=6),
    "missing_bursts, interpolate": packet_options.MissingBurstsOptions(steps=6, fill="interpolate"),
    "clock_skew": packet_options.ClockSkewOptions(steps=9.0),
    "clock_skew, early": packet_options.ClockSkewOptions(steps=9.0, direction="early"),
    "clock_skew, either": packet_options.ClockSkewOptions(steps=2.5, direction="either"),
    "unit_mixup": sensor_options.UnitMixupOptions(steps=10),
    "saturation": sensor_options.SaturationOptions(),
    "quantisation": sensor_options.QuantisationOptions(),
    "duplicated": packet_options.DuplicatedOptions(),
    "reordered": packet_options.ReorderedOptions(),
    "gateway_outage": packet_options.GatewayOutageOptions(hours=3.0),
    "gateway_outage, interpolate": packet_options.GatewayOutageOptions(hours=0.7, fill="interpolate"),
}
LABELS: dict[str, FaultOptions] = {
    "label_symmetric": label_options.LabelSymmetricOptions(),
    "label_pair_flip": label_options.LabelPairFlipOptions(),
    "label_class_dependent": label_options.LabelClassDependentOptions(rates=(0.0, 0.1, 0.3, 0.6, 1.0)),
    "label_class_dependent, to": label_options.LabelClassDependentOptions(
        rates=(0.9, 0.1, 0.3, 0.6, 1.0), to=(1, 2, 0, 4, 3)
    ),
    "label_concentrated": label_options.LabelConcentratedOptions(clients=0.3),
}
EVERY = SENSORS | LABELS
WHOLE_SPAN = {"stuck_at", "missing", "missing_bursts", "gateway_outage", "clock_skew", "duplicated", "reordered"}

every_sensor = pytest.mark.parametrize("options", SENSORS.values(), ids=SENSORS)
every_label = pytest.mark.parametrize("options", LABELS.values(), ids=LABELS)
every = pytest.mark.parametrize("options", EVERY.values(), ids=EVERY)


def readings(clients: int = K, steps: int = T, seed: int = 0) -> Block:
    """Continuous values, all strictly inside the channels' ranges."""
    random = np.random.default_rng(seed)
    mean, deviation = (np.array([getattr(c, a) for c in CHANNELS]) for a in ("mean", "deviation"))
    values = mean + deviation * np.clip(random.normal(size=(clients, steps, len(CHANNELS))), -3.0, 3.0)
    return Block(
        values=values.astype(np.float32),
        lengths=np.full(clients, steps),
        clients=np.arange(clients) * 7 + 3,
        hours=np.tile(np.arange(steps, dtype=float), (clients, 1)),
        district=np.arange(clients) % D,
        channels=CHANNELS,
    )


def part(block: Block, rows: Any, steps: slice = slice(None)) -> Block:
    assert block.hours is not None
    return replace(
        block,
        values=np.ascontiguousarray(block.values[rows, steps]),
        lengths=np.full(len(block.lengths[rows]), block.values[:, steps].shape[1]),
        clients=block.clients[rows],
        hours=block.hours[rows, steps],
        district=block.district[rows],
        first=block.first + (steps.start or 0),
    )


def one(block: Block, options: FaultOptions, *, seed: int = 5) -> tuple[Any, Any, Any]:
    values, masks, effects = corrupt(block, {"it": options}, seed=seed)
    return values, masks["it"], effects["it"]


def some_labels(clients: int = 60, each: int = 80) -> tuple[Any, Any, Any]:
    sizes = each + np.arange(clients) % 7
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    return np.random.default_rng(1).integers(0, CLASSES, offsets[-1]), offsets, np.arange(clients) * 3 + 1


def one_of_labels(options: FaultOptions, *, seed: int = 5) -> tuple[Any, Any, Any]:
    labels, masks, effects = corrupt_labels(LabelBlock(*some_labels(), CLASSES), {"it": options}, seed=seed)
    return labels, masks["it"], effects["it"]


def outcome(options: FaultOptions, *, seed: int = 5) -> tuple[Any, Any, Any]:
    if options.kind.startswith("label_"):
        return one_of_labels(options, seed=seed)
    return one(readings(), options, seed=seed)


def test_lists_have_every_kind() -> None:
    assert {options.kind for options in EVERY.values()} == set(FAULTS)
    assert {row.measure for row in FAULTS.values()} == set(EFFECTS)


@every
def test_same_seed_gives_same_bytes_and_another_differs(options: FaultOptions) -> None:
    (a, mask_a, effect_a), (b, mask_b, effect_b) = outcome(options), outcome(options)
    assert a.tobytes() == b.tobytes()
    assert mask_a.tobytes() == mask_b.tobytes()
    assert effect_a.tobytes() == effect_b.tobytes()
    seeded = options.kind not in ("saturation", "quantisation")
    assert (outcome(options, seed=6)[0].tobytes() != a.tobytes()) == seeded


@every
def test_severity_0_is_the_identity(options: FaultOptions) -> None:
    given = some_labels()[0] if options.kind.startswith("label_") else readings().values
    values, mask, effect = outcome(replace(options, severity=0.0))
    assert values.tobytes() == given.tobytes()
    assert not mask.any()
    assert not effect.any()


@every
@pytest.mark.parametrize("severity", [0.01, 0.3, 1.0])
def test_masks_are_exact_and_values_finite(options: FaultOptions, severity: float) -> None:
    given = some_labels()[0] if options.kind.startswith("label_") else readings().values
    kept = given.copy()
    values, mask, effect = outcome(replace(options, severity=severity))
    assert kept.tobytes() == given.tobytes()
    assert values.dtype == given.dtype
    np.testing.assert_array_equal(mask, values != given)
    assert values[~mask].tobytes() == given[~mask].tobytes()
    assert np.isfinite(values).all()
    assert np.isfinite(effect).all()
    assert (effect >= 0).all()


@every
def test_masks_are_nested_and_the_effect_grows_with_severity(options: FaultOptions) -> None:
    found = [outcome(replace(options, severity=s)) for s in (0.0, 0.2, 0.4, 0.7, 1.0)]
    for (_, mask, effect), (_, larger, more) in pairwise(found):
        assert not (mask & ~larger).any()
        assert (effect <= more * (1 + 1e-6)).all()
        assert effect.mean() < more.mean()


@every
def test_share_of_clients_is_nested_and_leaves_the_others_unchanged(options: FaultOptions) -> None:
    all_of_them = outcome(replace(options, clients=1.0, severity=1.0))[1]
    before = np.zeros_like(all_of_them)
    for share in (0.0, 0.2, 0.5, 0.9, 1.0):
        _, mask, effect = outcome(replace(options, clients=share, severity=1.0))
        assert not (before & ~mask).any()
        assert not (mask & ~all_of_them).any()
        clients = some_labels()[2] if options.kind.startswith("label_") else readings().clients
        at = affected("it", replace(options, clients=share), clients, np.zeros(len(clients), np.int64), 5)
        assert not effect[~at].any()
        assert effect[at].all()
        if not options.kind.startswith("label_"):
            assert mask.any(axis=(1, 2)).tolist() == at.tolist()
            np.testing.assert_array_equal(mask[at], all_of_them[at])  # the other affected clients do not matter
        before = mask


@every_sensor
def test_client_does_not_depend_on_others_in_its_block(options: FaultOptions) -> None:
    block = readings()
    values, mask, effect = one(block, options)
    for rows in ([17], [30, 2, 9], list(range(39, -1, -1))):
        some, some_mask, some_effect = one(part(block, rows), options)
        assert some.tobytes() == values[rows].tobytes()
        assert some_mask.tobytes() == mask[rows].tobytes()
        np.testing.assert_allclose(some_effect, effect[rows], rtol=1e-12)


@every_sensor
def test_channel_does_not_depend_on_the_others(options: FaultOptions) -> None:
    values, mask, _ = one(readings(), options)
    some, some_mask, _ = one(readings(), replace(options, channels=("warmth",)))
    assert some[:, :, 2].tobytes() == values[:, :, 2].tobytes()
    np.testing.assert_array_equal(some_mask[:, :, 2], mask[:, :, 2])
    assert not some_mask[:, :, [0, 1, 3]].any()


@every_sensor
@pytest.mark.parametrize("start", [1, 50, 77])
def test_fault_does_not_depend_on_the_span(options: FaultOptions, start: int) -> None:
    block = readings()
    stop = T - 3
    values, mask, _ = one(block, options)
    some, some_mask, _ = one(part(block, slice(None), slice(start, stop)), options)
    edge = 70 if options.kind in WHOLE_SPAN else 0  # these read beyond the span, where nothing is known
    inside, seen = slice(start + edge, stop - edge), slice(edge, stop - start - edge)
    assert some[:, seen].tobytes() == values[:, inside].tobytes()
    assert some_mask[:, seen].tobytes() == mask[:, inside].tobytes()


@every_sensor
def test_padding_stays_unchanged_and_changes_nothing(options: FaultOptions) -> None:
    block = readings()
    lengths = np.random.default_rng(2).integers(0, T + 1, K)
    padding = np.arange(T) >= lengths[:, None]
    found = []
    for garbage in (np.nan, 7.0):
        values, hours = block.values.copy(), np.array(block.hours)
        values[padding], hours[padding] = garbage, garbage
        out, mask, effect = one(replace(block, values=values, hours=hours, lengths=lengths), options)
        assert out[padding].tobytes() == values[padding].tobytes()
        assert not mask[padding].any()
        found.append((out[~padding].tobytes(), mask.tobytes(), effect.tobytes()))
    assert found[0] == found[1]
    k = int(np.argmax(lengths > 100))
    alone = one(part(block, [k], slice(0, int(lengths[k]))), options)[0]
    both = one(replace(block, lengths=lengths), options)[0]
    assert alone[0].tobytes() == both[k, : lengths[k]].tobytes()


@every_sensor
def test_unmeasured_and_unnamed_channels_stay_unchanged(options: FaultOptions) -> None:
    options = replace(options, severity=1.0)
    values, mask, _ = one(readings(), options)
    assert values[:, :, 1].tobytes() == readings().values[:, :, 1].tobytes()
    assert not mask[:, :, 1].any()
    touched = MEASURED[:2] if options.kind == "unit_mixup" else MEASURED
    assert mask.any(axis=(0, 1)).nonzero()[0].tolist() == list(touched)
    named = one(readings(), replace(options, channels=("speed",)))[1]
    assert named.any(axis=(0, 1)).nonzero()[0].tolist() == [0]


@every_sensor
def test_fault_keeps_to_its_hours(options: FaultOptions) -> None:
    block = readings()
    assert block.hours is not None
    late = replace(block, hours=block.hours + 24.0 * np.arange(K)[:, None] / K)  # clients' steps differ in hour
    options = replace(options, severity=1.0, schedule=Schedule(unit="hours", start=60.0, stop=120.0))
    mask = one(late, options)[1]
    assert late.hours is not None
    inside = (late.hours >= 60.0) & (late.hours < 120.0)
    assert not mask[~inside].any()
    assert mask.any(axis=2)[inside].mean() > 0.2
    ended = one(late, replace(options, schedule=Schedule(unit="hours", start=900.0)))
    assert not ended[1].any()
    assert not ended[2].any()


@every_sensor
def test_fault_keeps_to_its_district(options: FaultOptions) -> None:
    block = replace(readings(), districts=("North", "East", "South", "West"))
    mask = one(block, replace(options, severity=1.0, districts=("East", "West")))[1]
    assert np.unique(block.district[mask.any(axis=(1, 2))]).tolist() == [1, 3]


@every_label
def test_labels_do_not_depend_on_other_clients(options: FaultOptions) -> None:
    labels, offsets, clients = some_labels()
    all_of_them, mask, effect = one_of_labels(options)
    for k in (0, 13, 59):
        mine = slice(offsets[k], offsets[k + 1])
        one_client = (labels[mine], np.array([0, mine.stop - mine.start]), clients[[k]])
        alone, alone_mask, alone_effect = corrupt_labels(LabelBlock(*one_client, CLASSES), {"it": options}, seed=5)
        np.testing.assert_array_equal(alone, all_of_them[mine])
        np.testing.assert_array_equal(alone_mask["it"], mask[mine])
        assert alone_effect["it"][0] == effect[k] == mask[mine].mean()
        tail = (labels[mine][20:], np.array([0, mine.stop - mine.start - 20]), clients[[k]])
        later = corrupt_labels(LabelBlock(*tail, CLASSES, first=20), {"it": options}, seed=5)[0]
        np.testing.assert_array_equal(later, all_of_them[mine][20:])


@every_label
def test_labels_keep_to_schedule_and_district(options: FaultOptions) -> None:
    labels, offsets, clients = some_labels()
    hours = np.arange(len(labels), dtype=float) % 50
    timed = replace(options, severity=1.0, clients=1.0, schedule=Schedule(unit="hours", start=10.0, stop=20.0))
    mask = corrupt_labels(LabelBlock(labels, offsets, clients, CLASSES, hours=hours), {"it": timed}, seed=5)[1]["it"]
    assert np.unique(hours[mask]).tolist() == list(range(10, 20))
    there = {"it": replace(options, severity=1.0, clients=1.0, districts=("b",))}
    district = np.arange(len(clients)) % 2
    block = LabelBlock(labels, offsets, clients, CLASSES, district=district, districts=("a", "b"))
    kept = corrupt_labels(block, there, seed=5)
    assert (kept[2]["it"] > 0).tolist() == (district == 1).tolist()


@settings(max_examples=80)
@given(
    name=st.sampled_from(sorted(SENSORS)),
    clients=st.integers(0, 4),
    steps=st.integers(0, 30),
    first=st.integers(0, 10**6),
    severity=st.floats(0, 1),
    share=st.floats(0, 1),
    clock=st.booleans(),
    data=st.data(),
)
def test_fault_accepts_any_shape(
    name: str, clients: int, steps: int, first: int, severity: float, share: float, clock: bool, data: st.DataObject
) -> None:
    block = readings(clients, steps, seed=first)
    lengths = np.array(data.draw(st.lists(st.integers(0, steps), min_size=clients, max_size=clients)), np.int64)
    block = replace(block, lengths=lengths, first=first, hours=block.hours if clock else None)
    values, mask, effect = one(block, replace(SENSORS[name], severity=severity, clients=share))
    assert values.shape == mask.shape == block.values.shape
    assert effect.shape == (clients,)
    assert np.isfinite(values).all()
    assert np.isfinite(effect).all()
    np.testing.assert_array_equal(mask, values != block.values)
    assert not mask[np.arange(steps) >= lengths[:, None]].any()
