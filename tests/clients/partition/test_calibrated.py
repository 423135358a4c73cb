"""Calibrated partitions reach their targets within tolerance, keep the other axes, and refuse unreachable targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clients.core.errors import PartitionError, UserError
from clients.federation.data_kinds import build_population
from clients.heterogeneity.feature_shift import feature_shift
from clients.heterogeneity.measures import gini, label_distances
from clients.heterogeneity.table import measure_clients
from clients.partition.options import CalibratedOptions
from clients.partition.partitions import Partition, partition
from clients.sources.images import digits_pool
from clients.sources.options import DigitsOptions

POOL = digits_pool(DigitsOptions())
N = len(POOL.targets)


def calibrated(**values: Any) -> Partition:
    options = CalibratedOptions(**({"clients": 20} | values))
    return partition(options, POOL.targets, {}, seed=4, features=POOL.features)


def counts(p: Partition) -> np.ndarray:
    return np.stack([np.bincount(POOL.targets[rows], minlength=10) for rows in np.split(p.rows, p.offsets[1:-1])])


@pytest.mark.parametrize(
    ("measure", "value"),
    [("label_js", 0.0), ("label_js", 0.1), ("label_js", 0.3), ("label_js", 0.7), ("label_emd", 0.05),
     ("label_emd", 1.0), ("label_emd", 1.7), ("label_hellinger", 0.2), ("label_hellinger", 0.75)],
)  # fmt: skip
def test_label_target_is_reached_and_sizes_stay(measure: str, value: float) -> None:
    p = calibrated(**{measure: value})
    assert label_distances(counts(p))[1][measure] == pytest.approx(value, abs=0.01)
    np.testing.assert_array_equal(p.sizes, calibrated(label_js=0.5).sizes)
    assert np.ptp(p.sizes) <= 1


@pytest.mark.parametrize("value", [0.0, 0.2, 0.5, 0.8])
def test_size_target_is_reached(value: float) -> None:
    p = calibrated(quantity_gini=value, min_size=3)
    assert gini(p.sizes) == pytest.approx(value, abs=0.01)
    assert p.sizes.min() >= 3


def test_sizes_stay_while_labels_move() -> None:
    sizes = [calibrated(quantity_gini=0.5, **labels).sizes for labels in ({}, {"label_js": 0.2}, {"label_emd": 1.2})]
    np.testing.assert_array_equal(sizes[0], sizes[1])
    np.testing.assert_array_equal(sizes[0], sizes[2])
    assert label_distances(counts(calibrated(quantity_gini=0.5, label_js=0.2)))[1]["label_js"] == pytest.approx(
        0.2, abs=0.01
    )


@pytest.mark.parametrize("value", [0.6, 0.75, 0.9])
def test_feature_target_is_reached_and_labels_of_each_client_stay(value: float) -> None:
    before, after = calibrated(label_js=0.2), calibrated(label_js=0.2, feature_shift=value, tolerance=0.01)
    np.testing.assert_array_equal(counts(before), counts(after))
    assert before.rows.tobytes() != after.rows.tobytes()
    # measured in another way: on the population made from it
    p = build_population(
        DigitsOptions(validation_fraction=0.0, test_fraction=0.0),
        CalibratedOptions(clients=20, label_js=0.2, feature_shift=value),
        seed=4,
    )
    measures, _ = measure_clients(p, seed=4)
    assert measures.feature_shift == pytest.approx(value, abs=0.01)
    assert measures.feature_shift == pytest.approx(p.federation.record["reached_feature_shift"], abs=1e-5)
    assert measures.label_js == pytest.approx(0.2, abs=0.01)


def test_feature_target_is_reached_without_labels() -> None:
    x = POOL.features[:500]
    p = partition(CalibratedOptions(clients=8, feature_shift=0.5), x[:, :1], {}, seed=1, features=x)
    assert np.ptp(p.sizes) <= 1
    np.testing.assert_array_equal(np.sort(p.rows), np.arange(500))
    assert feature_shift(x[p.rows], p.offsets, p.sizes).mean == pytest.approx(0.5, abs=0.01)


def test_facts_have_targets_and_reached_values() -> None:
    p = build_population(DigitsOptions(), CalibratedOptions(clients=10, label_js=0.3, quantity_gini=0.4), seed=0)
    measures, _ = measure_clients(p, seed=0)
    assert p.federation.record["requested_label_js"] == 0.3
    assert p.federation.record["reached_label_js"] == pytest.approx(measures.label_js, abs=1e-12)
    assert p.federation.record["reached_quantity_gini"] == pytest.approx(measures.quantity_gini, abs=1e-12)
    assert p.federation.record["reached_quantity_gini"] == pytest.approx(0.4, abs=0.01)


def test_held_out_examples_are_not_measured() -> None:
    options = CalibratedOptions(clients=10, label_js=0.3)
    p = build_population(DigitsOptions(client_test_fraction=0.3), options, seed=0)
    measures, _ = measure_clients(p, seed=0)
    assert p.federation.record["reached_label_js"] == pytest.approx(measures.label_js, abs=1e-12)


def test_skew_rises_along_the_path() -> None:
    """A larger target raises every other measure of labels: all share one path, and each rises along it."""
    found = [label_distances(counts(calibrated(label_emd=e)))[1] for e in (0.2, 0.5, 0.9, 1.3, 1.7)]
    for name in ("label_js", "label_hellinger"):
        assert (np.diff([one[name] for one in found]) > 0).all()


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (
            {"label_js": 0.99},
            r"label_js: 0.99 cannot be reached for these sizes and labels, only from 0\.000.* to 0\.7",
        ),
        ({"clients": 900, "label_js": 0.0}, r"label_js: 0 cannot be reached .* from 0\.6.*the floor, by chance"),
        ({"quantity_gini": 0.99}, r"quantity_gini: 0.99 cannot be reached .* \(the ceiling\)"),
        (
            {"label_js": 0.7, "feature_shift": 0.0},
            r"feature_shift: 0 cannot be reached .* the labels each client holds",
        ),
        ({"feature_shift": 50.0}, r"feature_shift: 50 cannot"),
        ({"clients": N, "feature_shift": 0.1}, "fewer than two clients have two examples"),
        ({"clients": 5, "label_emd": 0.5003, "tolerance": 1e-9}, "is not met within the tolerance"),
    ],
)
def test_unreachable_target_names_the_reachable_range(values: dict[str, Any], names: str) -> None:
    with pytest.raises(PartitionError, match=names):
        calibrated(**values)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({}, "kind: 'requested' needs a value to reach"),
        ({"label_js": 1.5}, "label_js: must be from 0 to 1, got 1.5"),
        ({"label_emd": -0.1}, "label_emd: must be from 0 to 2"),
        ({"feature_shift": float("inf")}, "feature_shift: must be a finite number"),
        ({"label_js": 0.1, "label_emd": 0.1}, "label_emd: cannot be given together with label_js"),
        ({"label_js": 0.1, "tolerance": 0.0}, "tolerance: must be"),
        ({"label_js": 0.1, "min_size": -1}, "min_size: must be"),
        ({"label_js": 0.1, "clients": 0}, "clients: must be"),
    ],
)
def test_invalid_target_is_refused(values: dict[str, Any], names: str) -> None:
    with pytest.raises(UserError, match=names):
        CalibratedOptions(**({"clients": 4} | values))


def test_named_range_can_be_reached() -> None:
    with pytest.raises(PartitionError) as caught:
        calibrated(label_js=1.0)
    words = str(caught.value).split("only from ")[1]
    floor, ceiling = float(words.split()[0]), float(words.split(" to ")[1].split()[0])
    for value in (floor, (floor + ceiling) / 2, ceiling):
        assert label_distances(counts(calibrated(label_js=value)))[1]["label_js"] == pytest.approx(value, abs=0.01)
