"""Every concept drift has the properties listed here, on data of every shape: one test for each property."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import city_populations as city
import numpy as np
import pytest
import torch

from clients.concept_drift.application import with_drifts
from clients.concept_drift.options import DriftOptions
from clients.concept_drift.table import DRIFTS, level
from clients.core.errors import UserError
from clients.core.examples import Examples
from clients.core.population import Population
from clients.core.population_parts import CentralExamples
from clients.faults.sensor_options import NoiseOptions
from clients.sources.options import QuadraticOptions

DATA = ("traffic", "intrusion", "activity", "digits")
CHANGES = ("p(x)", "p(y)", "p(y|x)")
EVERY = {
    f"{name}, {kind} {changes}": (
        name,
        DriftOptions(kind=kind, changes=changes, strength=1.0, start=5.0, duration=10.0, period=4.0),  # type: ignore[arg-type]
    )
    for name, kind, changes in product(DATA, DRIFTS, CHANGES)
}
every = pytest.mark.parametrize(("name", "options"), EVERY.values(), ids=EVERY)
everyone = np.arange(city.CLIENTS)


def drifting(name: str, options: DriftOptions, **more: object) -> Population:
    return city.population(name, drifts={"turn": options}, **more)


def sorted_rows(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.unique(np.concatenate([x.reshape(len(x), -1), y.reshape(len(y), -1).astype(np.float32)], axis=1), axis=0)


def test_list_has_every_kind() -> None:
    assert {options.kind for _, options in EVERY.values()} == set(DRIFTS)


@every
def test_drift_changes_no_bit_before_its_start_and_no_size(name: str, options: DriftOptions) -> None:
    p, plain = drifting(name, options), city.clean(name)
    for round_index in (0, 4):
        now = p.during(round_index)
        for a, b in zip(city.examples(now, [0, 3]), city.examples(plain, [0, 3]), strict=True):
            assert np.array_equal(a, b)
        assert now.validation is plain.validation or torch.equal(now.validation.targets, plain.validation.targets)  # type: ignore[union-attr]
    for round_index in (5, 9, 20):
        assert np.array_equal(p.during(round_index).cohort(everyone).sizes, p.sizes)
        assert (p.during(round_index).history.drift_levels(everyone)["turn"] <= 1).all()  # type: ignore[misc]


@every
def test_drift_changes_its_law_alone(name: str, options: DriftOptions) -> None:
    late = 7 if options.kind == "recurring" else 30
    p, plain = drifting(name, options).during(late), city.clean(name)
    for k in (0, 5):
        ours, theirs = city.examples(p, [k])[:2], city.examples(plain, [k])[:2]
        if options.changes == "p(y|x)":
            assert np.array_equal(ours[0], theirs[0])
            assert not np.array_equal(ours[1], theirs[1])
        else:  # only the client's own pairs of input and target, in other shares
            pool, drawn = sorted_rows(*theirs), sorted_rows(*ours)
            assert len(np.unique(np.concatenate([pool, drawn]), axis=0)) == len(pool)
            assert not np.array_equal(ours[0], theirs[0])


@every
def test_drift_depends_on_seed_and_client_alone(name: str, options: DriftOptions) -> None:
    p, again = drifting(name, options).during(6), drifting(name, options).during(6)
    together, alone = city.examples(p, [2, 7, 4]), city.examples(again, [7])
    own = slice(together[2][0], together[2][0] + together[2][1])
    assert np.array_equal(together[0][own], alone[0])
    assert np.array_equal(together[1][own], alone[1])


@every
def test_central_examples_drift_with_their_clients(name: str, options: DriftOptions) -> None:
    late = 7 if options.kind == "recurring" else 30
    p, plain = drifting(name, options).during(late), city.clean(name)
    assert p.validation is not None
    assert plain.validation is not None
    assert len(p.validation) == len(plain.validation)
    same_inputs = torch.equal(p.validation.features, plain.validation.features)
    assert same_inputs == (options.changes == "p(y|x)")
    assert not torch.equal(p.validation.targets, plain.validation.targets)
    nobody = drifting(name, replace(options, clients=0.0)).during(late)
    assert torch.equal(nobody.validation.targets, plain.validation.targets)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["traffic", "intrusion", "activity"])
@pytest.mark.parametrize("changes", ["p(x)", "p(y)"])
def test_central_example_is_redrawn_from_its_owners(name: str, changes: str) -> None:
    plain = city.clean(name)
    assert plain.validation is not None
    owners = plain.central.validation.owners  # type: ignore[union-attr]
    assert owners is not None
    shuffled = np.random.default_rng(0).permutation(len(plain.validation))  # the order of examples does not matter
    examples = Examples(plain.validation.features[shuffled], plain.validation.targets[shuffled])
    validation = CentralExamples(examples, owners[shuffled])
    mixed = replace(plain, central=replace(plain.central, validation=validation))
    p = with_drifts(mixed, {"turn": DriftOptions(changes=changes, clients=0.5)}, seed=3).during(1)  # type: ignore[arg-type]
    assert p.validation is not None
    assert mixed.validation is not None
    levels = p.history.drift_levels(everyone)["turn"]  # type: ignore[misc]
    assert 0 < levels.mean() < 1
    for k in everyone:
        own = owners[shuffled] == k
        now, before = p.validation.features[own].flatten(1), mixed.validation.features[own].flatten(1)
        assert torch.equal(now, before) == (levels[k] == 0 or bool((before == before[:1]).all()))
        assert len(torch.unique(torch.cat([now, before]), dim=0)) == len(torch.unique(before, dim=0))


def share_changed(p: Population, plain: Population) -> float:
    ours, theirs = city.examples(p, everyone.tolist()), city.examples(plain, everyone.tolist())
    x = (ours[0] != theirs[0]).reshape(len(ours[0]), -1).any(axis=1)
    return float((x | (ours[1] != theirs[1]).reshape(len(ours[1]), -1).any(axis=1)).mean())


@pytest.mark.parametrize(("name", "changes"), list(product(DATA, CHANGES)))
def test_gradual_drift_only_adds_examples_each_round(name: str, changes: str) -> None:
    p = drifting(name, DriftOptions(kind="gradual", changes=changes, start=0, duration=10))  # type: ignore[arg-type]
    plain = city.clean(name)
    shares = [share_changed(p.during(r), plain) for r in (2, 5, 8, 10)]
    assert shares == sorted(shares)
    assert shares[0] < 0.35
    assert shares[-1] > 2 * shares[0]


@pytest.mark.parametrize("name", ["intrusion", "activity", "digits"])
@pytest.mark.parametrize("changes", ["p(x)", "p(y)"])
def test_stronger_drift_moves_the_law_further(name: str, changes: str) -> None:
    plain = city.clean(name)
    moved = []
    for strength in (0.0, 0.3, 1.0):
        p = drifting(name, DriftOptions(changes=changes, strength=strength)).during(1)  # type: ignore[arg-type]
        x, y, _ = city.examples(p, everyone.tolist())
        x0, y0, _ = city.examples(plain, everyone.tolist())
        if changes == "p(x)":
            moved.append(float(np.abs(x.mean(axis=0) - x0.mean(axis=0)).sum()))
        else:
            moved.append(float(np.abs(np.bincount(y, minlength=10) - np.bincount(y0, minlength=10)).sum()))
    assert moved[0] == 0
    assert moved[0] < moved[1] < moved[2]


@pytest.mark.parametrize("name", ["traffic", "air", "bridge, autoencoder"])
def test_forecast_values_move_by_their_own_deviation(name: str) -> None:
    """For any number of values of a target: weights exp(3 z) of z with deviation 1 move its mean by more than 0.5."""
    truth = city.examples(city.clean(name), everyone.tolist())[1].mean(axis=1)
    for strength, least in ((0.0, 0.0), (0.3, 0.2), (1.0, 0.5)):
        p = drifting(name, DriftOptions(changes="p(y)", strength=strength)).during(1)
        moved = city.examples(p, everyone.tolist())[1].mean(axis=1).mean() - truth.mean()
        assert least <= moved / truth.std() < 4.0


@pytest.mark.parametrize("name", ["intrusion", "digits"])
def test_changed_relation_depends_on_inputs_and_its_region_grows(name: str) -> None:
    plain = city.clean(name)
    truth = city.examples(plain, everyone.tolist())
    region = np.zeros(len(truth[1]), bool)
    for strength in (0.25, 0.5, 1.0):
        p = drifting(name, DriftOptions(strength=strength)).during(1)
        now = city.examples(p, everyone.tolist())
        changed = now[1] != truth[1]
        assert np.array_equal(now[1][changed], (truth[1][changed] + 1) % plain.outputs)
        assert (region <= changed).all(), "nested"
        assert abs(changed.mean() - strength) < 0.12
        region = changed
    assert region.all()


def test_forecast_is_mirrored_about_the_mean() -> None:
    plain = city.clean("traffic")
    p = drifting("traffic", DriftOptions(strength=1.0)).during(1)
    ours, theirs = city.examples(p, everyone.tolist())[1], city.examples(plain, everyone.tolist())[1]
    np.testing.assert_allclose(ours + theirs, np.broadcast_to(2 * theirs.mean(axis=0), ours.shape), atol=2e-5)


def test_recurring_drift_returns_unchanged() -> None:
    p = drifting("digits", DriftOptions(kind="recurring", changes="p(x)", start=3, period=2))
    plain = city.examples(city.clean("digits"), [1])[0]
    on = [not np.array_equal(city.examples(p.during(r), [1])[0], plain) for r in range(10)]
    assert on == [False, False, False, True, True, False, False, True, True, False]
    assert np.array_equal(city.examples(p.during(3), [1])[0], city.examples(p.during(8), [1])[0])


def test_drift_keeps_to_its_districts_and_share_and_stagger_spreads_starts() -> None:
    places = city.clean("air").places(everyone)  # type: ignore[misc]
    names = city.clean("air").federation.districts
    district = int(places.district[0])
    p = drifting("air", DriftOptions(districts=(names[district],), start=1)).during(2)
    levels = p.history.drift_levels(everyone)["turn"]  # type: ignore[misc]
    assert np.array_equal(levels > 0, places.district == district)
    small, large = (
        drifting("digits", DriftOptions(clients=share)).during(1).history.drift_levels(everyone)["turn"] > 0  # type: ignore[misc]
        for share in (0.3, 0.8)
    )
    assert (small <= large).all()
    assert small.sum() < large.sum()
    slow = drifting("digits", DriftOptions(stagger=10.0, start=2))
    counts = [int((slow.during(r).history.drift_levels(everyone)["turn"] > 0).sum()) for r in range(14)]  # type: ignore[misc]
    assert counts[1] == 0
    assert counts[-1] == city.CLIENTS
    assert counts == sorted(counts)
    assert len(set(counts)) > 3


@pytest.mark.parametrize("changes", CHANGES)
def test_drift_in_hours_moves_later_examples_in_every_round(changes: str) -> None:
    options = DriftOptions(unit="hours", start=240.0, changes=changes)  # type: ignore[arg-type]
    p, plain = drifting("intrusion", options), city.clean("intrusion")
    assert plain.clients.hours is not None
    hours = plain.clients.hours(everyone)
    ours, theirs = city.examples(p, everyone.tolist()), city.examples(plain, everyone.tolist())
    differs = (ours[0] != theirs[0]).reshape(len(hours), -1).any(axis=1) | (ours[1] != theirs[1])
    assert not differs[hours < 240].any()
    assert differs[hours >= 240].mean() > 0.5
    assert np.array_equal(city.examples(p.during(7), [0])[0], city.examples(p.during(1), [0])[0])
    with pytest.raises(UserError, match=r"drifts\.turn\.unit: is 'hours', and these data have no clock"):
        drifting("digits", options)


def test_drift_and_faults_combine_and_are_announced() -> None:
    p = drifting("activity", DriftOptions(start=4), faults={"noisy": NoiseOptions(severity=0.5)})
    now = p.during(4)
    assert (now.cohort(everyone).fault_counts.changed["noisy"] > 0.5).all()  # type: ignore[misc]
    kinds = {r: [e["kind"] for e in p.history.events(r) if e.get("name")] for r in range(1, 6)}  # type: ignore[misc]
    assert kinds == {1: ["fault_started"], 2: [], 3: [], 4: ["drift_started"], 5: []}


@pytest.mark.parametrize(
    ("options", "announced"),
    [
        (
            DriftOptions(kind="recurring", start=0.5, period=2.0),
            {1: "starts", 3: "is off", 5: "is on again", 7: "is off"},
        ),
        (
            DriftOptions(kind="recurring", start=2, period=1.5),
            {2: "starts", 4: "is off", 5: "is on again", 7: "is off"},
        ),
        (DriftOptions(kind="gradual", start=1.5, duration=0.4), {2: "starts is complete"}),
        (DriftOptions(kind="incremental", start=0, duration=5), {1: "starts", 5: "is complete"}),
        (DriftOptions(start=2, stagger=3), {2: "starts", 5: "has reached every client it is for"}),
    ],
)
def test_turns_are_announced_in_their_rounds(options: DriftOptions, announced: dict[int, str]) -> None:
    p = drifting("digits", options)
    assert p.history.events is not None
    found = {r: " ".join(e["message"].rpartition(") ")[2] for e in p.history.events(r)) for r in range(1, 8)}
    assert {r: words for r, words in found.items() if words} == announced
    if options.kind == "recurring":
        on = [bool(p.during(r).history.drift_levels(everyone)["turn"].all()) for r in range(8)]  # type: ignore[misc]
        assert {r for r in range(1, 8) if on[r] != on[r - 1]} == set(announced)


def test_levels_equal_the_figures_of_gama_et_al() -> None:
    start, rounds = np.array([2.0]), np.arange(10.0)
    levels = {
        kind: level(DriftOptions(kind=kind, duration=4, period=3), start, rounds).tolist()  # type: ignore[arg-type]
        for kind in DRIFTS
    }
    assert levels["abrupt"] == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]
    assert levels["gradual"] == levels["incremental"] == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1]
    assert levels["recurring"] == [0, 0, 1, 1, 1, 0, 0, 0, 1, 1]


def test_drift_of_an_objective_is_refused() -> None:
    from clients.federation.build import Federation, build_federation

    with pytest.raises(UserError, match=r"drifts\.turn: needs examples"):
        build_federation(Federation(data=QuadraticOptions(),
                                    drifts={"turn": DriftOptions()}))  # fmt: skip


def test_drift_without_strength_changes_nothing_and_is_not_announced() -> None:
    for nothing in (DriftOptions(strength=0.0), DriftOptions(clients=0.0)):
        p = drifting("digits", nothing, faults={"none": NoiseOptions(severity=0.0)})
        assert not p.during(3).history.drift_levels(everyone)["turn"].any()  # type: ignore[misc]
        assert not [event for r in range(1, 5) for event in p.history.events(r) if event.get("name")]  # type: ignore[misc]
