"""Each fault of labels follows its law."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from clients.faults.apply import LabelBlock, corrupt_labels
from clients.faults.label_options import (
    LabelClassDependentOptions,
    LabelConcentratedOptions,
    LabelPairFlipOptions,
    LabelSymmetricOptions,
)
from clients.faults.options import FaultOptions
from clients.faults.sensor_options import BiasOptions

K, EACH, CLASSES = 100, 400, 4
OFFSETS = np.arange(K + 1) * EACH
LABELS = np.random.default_rng(0).choice(CLASSES, K * EACH, p=[0.4, 0.3, 0.2, 0.1])


def one(options: FaultOptions, classes: int = CLASSES, labels: Any = LABELS) -> tuple[Any, Any, Any]:
    out, masks, effects = corrupt_labels(LabelBlock(labels, OFFSETS, np.arange(K), classes), {"it": options}, seed=2)
    return out, masks["it"], effects["it"]


def near(share: float, expected: float, count: int) -> bool:
    return abs(share - expected) <= 4 * np.sqrt(expected * (1 - expected) / count)


def test_symmetric_flips_reach_every_other_class_equally() -> None:
    out, mask, effect = one(LabelSymmetricOptions(severity=0.5, share=0.6))
    assert near(mask.mean(), 0.3, mask.size)
    for old in range(CLASSES):
        of_class = np.equal(LABELS, old)
        flipped = out[mask & of_class]
        assert near(len(flipped) / of_class.sum(), 0.3, int(of_class.sum()))
        counts = np.bincount(flipped, minlength=CLASSES)
        assert counts[old] == 0
        assert stats.chisquare(np.delete(counts, old)).pvalue > 1e-3
    np.testing.assert_allclose(effect, mask.reshape(K, EACH).mean(axis=1))


def test_two_classes_are_swapped() -> None:
    binary = LABELS % 2
    out, mask, _ = one(LabelSymmetricOptions(severity=1.0, share=1.0), 2, binary)
    assert mask.all()
    np.testing.assert_array_equal(out, 1 - binary)


def test_pair_flips_go_to_the_next_class() -> None:
    out, mask, _ = one(LabelPairFlipOptions(severity=1.0, share=0.4))
    assert near(mask.mean(), 0.4, mask.size)
    np.testing.assert_array_equal(out[mask], (LABELS[mask] + 1) % CLASSES)


def test_class_dependent_flips_have_the_rate_of_each_class() -> None:
    rates = (0.0, 0.2, 0.9, 0.5)
    for to in ((), (1, 3, 0, 2)):
        out, mask, _ = one(LabelClassDependentOptions(severity=0.5, rates=rates, to=to))
        for old, rate in enumerate(rates):
            of_class = np.equal(LABELS, old)
            assert near(mask[of_class].mean(), rate / 2, int(of_class.sum()))
            went = set(np.unique(out[mask & of_class]).tolist())
            assert went == (set() if rate == 0 else {to[old]} if to else set(range(CLASSES)) - {old})


def test_concentrated_noise_is_strong_in_few_clients() -> None:
    _, mask, effect = one(LabelConcentratedOptions(severity=1.0, clients=0.2, share=0.8))
    wrong = mask.reshape(K, EACH).mean(axis=1)
    hit = wrong > 0
    assert near(hit.mean(), 0.2, K)
    assert (np.abs(wrong[hit] - 0.8) < 5 * np.sqrt(0.16 / EACH)).all()
    assert (effect[~hit] == 0).all()


def test_faults_of_labels_are_applied_in_order_without_those_of_readings() -> None:
    faults: dict[str, FaultOptions] = {
        "a": LabelPairFlipOptions(severity=1.0, share=0.5),
        "b": BiasOptions(),
        "c": LabelPairFlipOptions(severity=1.0, share=0.5),
    }
    out, masks, effects = corrupt_labels(LabelBlock(LABELS, OFFSETS, np.arange(K), CLASSES), faults, seed=2)
    np.testing.assert_array_equal(out, (LABELS + masks["a"] + masks["c"]) % CLASSES)
    assert set(masks) == set(effects) == {"a", "c"}
    assert near((masks["a"] & masks["c"]).mean(), 0.25, LABELS.size)  # the two are independent


def test_empty_labels_stay_empty() -> None:
    nothing = np.zeros(0, np.int64)
    faults: dict[str, FaultOptions] = {"it": LabelSymmetricOptions()}
    out, masks, effects = corrupt_labels(LabelBlock(nothing, np.zeros(3, np.int64), np.arange(2), 3), faults, seed=2)
    assert len(out) == len(masks["it"]) == 0
    assert effects["it"].tolist() == [0.0, 0.0]
