"""A drift rule against its definition, by loops over examples: unequal clients, empty ones, constant inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from clients.concept_drift.application import with_drifts
from clients.concept_drift.drift_rule import COORDINATES, SAMPLE_CLIENTS, STEPS, TILT, DriftRule, apply
from clients.concept_drift.options import DriftOptions
from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.population import Population
from clients.sources.custom import custom_population

SIZES = [7, 0, 1, 4, 12]
WIDTH, CONSTANT, CLASSES, SEED, NAME = 20, 3, 3, 5, "turn"
OWNERS = np.repeat(np.arange(5), SIZES)
SLOT = np.concatenate([np.arange(n) for n in SIZES])


def rows_of(k: int, size: int, task: str) -> tuple[F64, Any]:
    random = np.random.default_rng(100 + k)
    x = random.normal(size=(size, WIDTH)) * np.linspace(0.5, 4.0, WIDTH)
    x[:, CONSTANT] = 2.5
    y = random.integers(0, CLASSES, size) if task == "classification" else random.normal(3.0, 2.0, (size, 2))
    return x, y


def population(task: str = "classification") -> Population:
    return custom_population(
        lambda k: rows_of(k, SIZES[k], task), SIZES, outputs=CLASSES if task == "classification" else 2,
        task=task, feature_shape=(WIDTH,), dtype=torch.float64, test=rows_of(50, 30, task),
        client_test=lambda k: rows_of(60 + k, 3, task), client_test_sizes=[3] * 5,
    )  # fmt: skip


def rule(changes: str, task: str = "classification", **options: Any) -> DriftRule:
    return DriftRule(NAME, DriftOptions(changes=changes, **options), population(task), SEED)  # type: ignore[arg-type]


def examples(p: Population) -> tuple[F64, Any]:
    data = p.cohort(np.arange(5))
    rows = torch.from_numpy(data.rows)
    return data.features[rows].numpy(), data.targets[rows].numpy()


def drifted(changes: str, task: str = "classification", **options: Any) -> tuple[F64, Any]:
    made = with_drifts(population(task), {NAME: DriftOptions(changes=changes, **options)}, seed=SEED)  # type: ignore[arg-type]
    return examples(made.during(3))


def drawn(z: F64, a: float, owners: I64 = OWNERS) -> list[int]:
    """Return the row that each example is replaced by: the first whose share of the weights reaches its chance."""
    found = []
    slot = np.concatenate([np.arange((owners == k).sum()) for k in np.unique(owners)])
    for i, k in enumerate(owners):
        (u,) = streams.uniforms(streams.keys(SEED, f"concept drift/{NAME}/draw", int(k), int(slot[i])), 1)
        mine = np.flatnonzero(owners == k)
        weights = np.exp(TILT * a * z[mine])
        reached = np.cumsum(weights) / weights.sum() >= u
        found.append(int(mine[np.argmax(reached)]))
    return found


def test_projection_is_standardised_over_the_sample() -> None:
    x, _ = examples(population())
    z = rule("p(x)").projection(torch.from_numpy(x))
    assert z.mean() == pytest.approx(0.0, abs=1e-12)
    assert z.std() == pytest.approx(1.0, rel=1e-12)


def test_projection_reads_sixteen_inputs_that_vary_in_units_of_their_deviation() -> None:
    x, _ = examples(population())
    made = rule("p(x)")
    start, slopes = made.projection(torch.zeros(1, WIDTH).double())[0], []
    for j in range(WIDTH):
        unit = torch.zeros(1, WIDTH).double()
        unit[0, j] = 1.0
        slopes.append(made.projection(unit)[0] - start)
    read = np.abs(slopes) > 1e-12
    assert read.sum() == COORDINATES
    assert not read[CONSTANT]
    chosen = [j for j in range(WIDTH) if read[j]]
    normal = streams.normals(streams.keys(SEED, f"concept drift/{NAME}/direction"), COORDINATES)
    raw = x[:, chosen] / x[:, chosen].std(axis=0) @ normal
    np.testing.assert_allclose(slopes, [
        normal[chosen.index(j)] / x[:, j].std() / raw.std() if read[j] else 0.0 for j in range(WIDTH)
    ], atol=1e-12)  # fmt: skip
    constant = custom_population(lambda k: (np.ones((4, 2)), np.arange(4) % 2), [4], outputs=2, feature_shape=(2,))
    z = DriftRule(NAME, DriftOptions(), constant, SEED).projection(torch.ones(3, 2))
    assert z.tolist() == [0.0, 0.0, 0.0]
    small = custom_population(lambda k: (np.arange(8.0).reshape(4, 2) / 1e4, np.arange(4) % 2), [4], outputs=2,
                              feature_shape=(2,), dtype=torch.float64)  # fmt: skip
    x = torch.from_numpy(np.arange(8.0).reshape(4, 2) / 1e4)
    assert DriftRule(NAME, DriftOptions(), small, SEED).projection(x).std() == pytest.approx(1.0, rel=1e-12)


def test_projection_is_measured_on_a_drawn_sample_of_clients() -> None:
    many = SAMPLE_CLIENTS + 50
    p = custom_population(lambda k: (np.array([[float(k**2)]]), np.array([float(k)])), [1] * many, outputs=1,
                          task="regression", feature_shape=(1,), dtype=torch.float64)  # fmt: skip
    made = DriftRule(NAME, DriftOptions(), p, SEED)
    chosen = streams.choose(streams.keys(SEED, f"concept drift/{NAME}/sample"), many, SAMPLE_CLIENTS)
    assert made.target_mean.tolist() == [pytest.approx(chosen.mean(), rel=1e-12)]
    assert abs(made.projection(torch.tensor([[(chosen**2).mean()]], dtype=torch.float64))[0]) < 1e-12


def test_quantiles_fall_from_the_largest_projection_to_the_smallest() -> None:
    made = rule("p(y|x)")
    z = made.projection(torch.from_numpy(examples(population())[0]))
    assert len(made.quantiles) == 1001
    ends = z.max(), np.quantile(z, 0.75), np.median(z), z.min()
    np.testing.assert_allclose(made.quantiles[[0, 250, 500, 1000]], ends, rtol=1e-12)


def test_scores_of_forecasts_are_their_standardised_means() -> None:
    _, y = examples(population("regression"))
    score = rule("p(y)", "regression").label_scores(torch.from_numpy(y))
    means = y.mean(axis=1)
    np.testing.assert_allclose(score, (means - means.mean()) / means.std(), rtol=1e-11, atol=1e-12)
    alike = custom_population(lambda k: (np.eye(3), np.full(3, 7.0)), [3], outputs=1, task="regression",
                              feature_shape=(3,))  # fmt: skip
    assert DriftRule(NAME, DriftOptions(), alike, SEED).label_scores(torch.tensor([[7.0], [8.0]])).tolist() == [
        0.0,
        1.0,
    ]


def test_scores_of_labels_are_one_number_a_class() -> None:
    made = rule("p(y)")
    expected = streams.normals(streams.keys(SEED, f"concept drift/{NAME}/classes"), CLASSES)
    np.testing.assert_array_equal(made.label_scores(torch.tensor([2, 0, 1, 2])), expected[[2, 0, 1, 2]])


@pytest.mark.parametrize("strength", [0.37, 1.0])
@pytest.mark.parametrize(("changes", "task"), [("p(x)", "classification"), ("p(y)", "classification"),
                                               ("p(x)", "regression"), ("p(y)", "regression")])  # fmt: skip
def test_examples_are_drawn_from_their_clients_by_weight(changes: str, task: str, strength: float) -> None:
    x, y = examples(population(task))
    made = rule(changes, task)
    z = made.projection(torch.from_numpy(x)) if changes == "p(x)" else made.label_scores(torch.from_numpy(y))
    chosen = drawn(z, strength)
    new_x, new_y = drifted(changes, task, strength=strength)
    np.testing.assert_array_equal(new_x, x[chosen])
    np.testing.assert_array_equal(new_y, y[chosen])
    assert chosen != list(range(len(x)))


@pytest.mark.parametrize("spread", [300.0, 1e4])
def test_weights_of_any_spread_are_drawn_from(spread: float) -> None:
    """exp of the tilt alone would be infinite, or 0 for every example of a client that lies below another."""
    x, _ = examples(population())
    made, data = rule("p(x)"), population().cohort(np.arange(5))
    made.scale /= spread
    z = made.projection(torch.from_numpy(x))
    found = apply(made, data, OWNERS, SLOT, np.ones(len(OWNERS)))
    best = [int(np.flatnonzero(k == OWNERS)[np.argmax(z[k == OWNERS])]) for k in OWNERS]
    np.testing.assert_array_equal(found.rows, data.rows[best])


def test_gradual_drift_moves_the_examples_that_have_switched() -> None:
    x, y = examples(population())
    z = rule("p(x)").projection(torch.from_numpy(x))
    chosen = drawn(z, 0.8)
    chance = [float(streams.uniforms(streams.keys(SEED, f"concept drift/{NAME}/example", int(k), int(s)), 1)[0])
              for k, s in zip(OWNERS, SLOT, strict=True)]  # fmt: skip
    switched = np.array(chance) < 3 / 8
    expected = np.where(switched, chosen, np.arange(len(x)))
    new_x, new_y = drifted("p(x)", kind="gradual", strength=0.8, duration=8.0)
    np.testing.assert_array_equal(new_x, x[expected])
    np.testing.assert_array_equal(new_y, y[expected])
    assert switched.any()
    assert not switched.all()


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_labels_above_the_quantile_become_the_next_class(strength: float) -> None:
    x, y = examples(population())
    made = rule("p(y|x)")
    z = made.projection(torch.from_numpy(x))
    bound = np.quantile(z, 1 - strength) - 1e-12
    new_x, new_y = drifted("p(y|x)", strength=strength)
    np.testing.assert_array_equal(new_x, x)
    np.testing.assert_array_equal(new_y, np.where(z >= bound, (y + 1) % CLASSES, y))


def test_examples_at_the_quantile_become_the_next_class_as_those_above() -> None:
    x, y = np.tile([[0.0], [1.0]], (5, 1)), np.arange(10) % CLASSES
    p = custom_population(lambda k: (x, y), [10], outputs=CLASSES, feature_shape=(1,), dtype=torch.float64)
    made = DriftRule(NAME, DriftOptions(), p, SEED)
    z = made.projection(torch.from_numpy(x))
    moved = with_drifts(p, {NAME: DriftOptions(strength=0.3)}, seed=SEED).during(1).cohort(np.array([0]))
    np.testing.assert_array_equal(moved.targets.numpy(), np.where(z > 0, (y + 1) % CLASSES, y))


def test_client_without_drift_keeps_its_label_at_the_largest_projection() -> None:
    x, y = examples(population())
    z = rule("p(y|x)").projection(torch.from_numpy(x))
    largest = int(OWNERS[np.argmax(z)])
    others = tuple(k for k in range(5) if k != largest)
    expected = np.where((z >= np.quantile(z, 0.3) - 1e-12) & (largest != OWNERS), (y + 1) % CLASSES, y)
    np.testing.assert_array_equal(drifted("p(y|x)", strength=0.7, clients=others)[1], expected)


def test_forecasts_in_single_precision_are_mirrored_in_it() -> None:
    y = np.array([1.0, 4.0, 7.0])
    p = custom_population(lambda k: (np.eye(3), y), [3], outputs=1, task="regression", feature_shape=(3,),
                          dtype=torch.float32)  # fmt: skip
    moved = with_drifts(p, {NAME: DriftOptions()}, seed=SEED).during(1).cohort(np.array([0]))
    assert moved.targets.dtype == torch.float32
    assert moved.targets.flatten().tolist() == [7.0, 4.0, 1.0]


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_forecasts_above_the_quantile_are_mirrored_about_the_mean(strength: float) -> None:
    x, y = examples(population("regression"))
    z = rule("p(y|x)", "regression").projection(torch.from_numpy(x))
    above = z >= np.quantile(z, 1 - strength) - 1e-12
    expected = np.where(above[:, None], 2 * y.mean(axis=0) - y, y)
    np.testing.assert_allclose(drifted("p(y|x)", "regression", strength=strength)[1], expected, rtol=1e-13)


@pytest.mark.parametrize(("strength", "amount"), [(0.3, 0.3), (0.301, 0.31), (0.299999, 0.3), (1.0, 1.0), (0.0, 0.0)])
def test_amounts_are_rounded_up_to_hundredths(strength: float, amount: float) -> None:
    found = rule("p(x)", strength=strength).amounts(OWNERS, 2, None, SLOT)
    np.testing.assert_allclose(found, np.full(len(OWNERS), amount), rtol=1e-15)
    assert STEPS == 100


def test_staggered_clients_have_their_own_amounts() -> None:
    made = rule("p(x)", kind="incremental", strength=0.5, start=1.0, duration=4.0, stagger=3.0)
    clients = np.array([4, 0, 2])
    draw = streams.uniforms(streams.keys(SEED, f"concept drift/{NAME}", clients), 2)[:, 1]
    starts = 1.0 + 3.0 * draw
    np.testing.assert_allclose(made.starts(clients), starts, rtol=1e-15)
    levels = np.clip((4 - starts) / 4.0, 0.0, 1.0)
    np.testing.assert_allclose(made.levels(clients, 4), levels, rtol=1e-14)
    owners, slot = np.array([4, 4, 2, 0]), np.array([0, 1, 0, 0])
    expected = np.ceil(100 * 0.5 * levels[[0, 0, 2, 1]]) / 100
    np.testing.assert_allclose(made.amounts(owners, 4, None, slot), expected, rtol=1e-15)


def test_central_examples_without_owners_drift_as_if_clients_had_them_at_random() -> None:
    p = population()
    x, y = rows_of(50, 30, "classification")
    assert p.central.test is not None
    made = rule("p(x)")
    moved = with_drifts(p, {NAME: DriftOptions(changes="p(x)", strength=0.6)}, seed=SEED).during(2).central.test
    assert moved is not None
    with_data = [k for k, n in enumerate(SIZES) if n]
    owners = [with_data[int(streams.keys(SEED, "central owners", i) % np.uint64(4))] for i in range(30)]
    weights = np.exp(TILT * 0.6 * made.projection(torch.from_numpy(x)))
    total = np.cumsum(weights) / weights.sum()
    for i, k in enumerate(owners):
        (u,) = streams.uniforms(streams.keys(SEED, f"concept drift/{NAME}/draw", k, i), 1)
        chosen = int(np.argmax(total >= u))
        np.testing.assert_array_equal(moved.examples.features[i].numpy(), x[chosen])
        assert int(moved.examples.targets[i]) == y[chosen]
    label = with_drifts(p, {NAME: DriftOptions(strength=1.0)}, seed=SEED).during(2).central.test
    assert label is not None
    assert label.examples.targets.tolist() == [(int(one) + 1) % CLASSES for one in y]
    assert with_drifts(p, {NAME: DriftOptions(start=9.0)}, seed=SEED).during(2).central.test is p.central.test


def test_held_out_examples_drift_within_their_client() -> None:
    p = with_drifts(population(), {NAME: DriftOptions(changes="p(x)", strength=0.6)}, seed=SEED).during(2)
    assert p.clients.held_out is not None
    data = p.clients.held_out(np.array([3, 0]))
    z, x = rule("p(x)"), np.concatenate([rows_of(60 + k, 3, "classification")[0] for k in (3, 0)])
    owners = np.array([3, 3, 3, 0, 0, 0])
    chosen = []
    for i, k in enumerate(owners):
        (u,) = streams.uniforms(streams.keys(SEED, f"concept drift/{NAME}/draw", int(k), i % 3), 1)
        mine = np.flatnonzero(owners == k)
        weights = np.exp(TILT * 0.6 * z.projection(torch.from_numpy(x[mine])))
        chosen.append(mine[int(np.argmax(np.cumsum(weights) / weights.sum() >= u))])
    np.testing.assert_array_equal(data.features[torch.from_numpy(data.rows)].numpy(), x[chosen])


def test_two_drifts_act_one_after_the_other() -> None:
    drifts = {NAME: DriftOptions(changes="p(x)", strength=0.5), "labels": DriftOptions(changes="p(y|x)", strength=1.0)}
    x, y = examples(population())
    chosen = drawn(rule("p(x)").projection(torch.from_numpy(x)), 0.5)
    found = with_drifts(population(), drifts, seed=SEED).during(1)  # type: ignore[arg-type]
    np.testing.assert_array_equal(examples(found)[0], x[chosen])
    np.testing.assert_array_equal(examples(found)[1], (y[chosen] + 1) % CLASSES)
    levels = found.history.drift_levels
    assert levels is not None
    assert {name: at.tolist() for name, at in levels(np.arange(2)).items()} == {NAME: [1.0, 1.0], "labels": [1.0, 1.0]}
    counts = found.clients.label_counts
    assert counts is not None
    labels = (y[chosen] + 1) % CLASSES
    expected = [
        [int(((owner == k) & (labels == c)).sum()) for c in range(CLASSES)] for owner in [OWNERS] for k in (0, 4)
    ]
    assert counts(np.array([0, 4])).tolist() == expected
