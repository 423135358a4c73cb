"""A population in parts: what people read from it, and the fault counts that travel with data and updates."""

from __future__ import annotations

from dataclasses import replace

import city_populations as city
import numpy as np
import pytest

from clients.concept_drift.options import DriftOptions
from clients.core.errors import DataError
from clients.core.examples import CohortData, FaultCounts, join_fault_counts
from clients.core.population import DataHistory, Population
from clients.faults.label_options import LabelSymmetricOptions
from clients.faults.sensor_options import NoiseOptions
from clients.federation.options import FeatureOptions
from clients.sources.custom import custom_population

FAULTS = {"noisy": NoiseOptions(severity=0.6, clients=0.5), "wrong": LabelSymmetricOptions(severity=0.5)}
SOME = np.array([7, 2, 4])


def plain() -> Population:
    return custom_population(lambda k: (np.full((2, 3), k), np.array([0, 1])), [2, 2], outputs=2)


def same(ours: FaultCounts | None, theirs: FaultCounts | None) -> bool:
    assert ours is not None
    assert theirs is not None
    assert list(ours.changed) == list(theirs.changed)
    return all(
        np.array_equal(mine[name], other[name])
        for mine, other in ((ours.changed, theirs.changed), (ours.effect, theirs.effect))
        for name in mine
    )


def test_population_reads_its_parts() -> None:
    p = plain()
    assert (p.name, p.task, p.outputs, p.feature_shape) == ("custom", "classification", 2, (3,))
    assert (p.num_clients, p.num_examples, p.sizes.tolist()) == (2, 4, [2, 2])
    assert (p.validation, p.test, p.masks(np.array([0]))) == (None, None, {})
    assert p.during(5) is p
    renamed = replace(p, federation=replace(p.federation, name="ours"))
    assert renamed.name == "ours"
    assert renamed.clients is p.clients


def test_population_without_places_refuses_them() -> None:
    with pytest.raises(DataError, match=r"world: is missing, so the clients have no places\. Add a \[world\] section"):
        plain().places(np.array([0]))


def test_population_without_faults_has_no_fault_counts() -> None:
    assert plain().cohort(np.array([0])).fault_counts is None
    assert plain().fault_counts(np.array([0])) is None


def test_fault_counts_are_made_a_few_clients_at_a_time() -> None:
    counts = FaultCounts({"f": np.arange(150) / 150}, {"f": np.arange(150) * 2.0})
    made: list[int] = []

    def cohort(clients: np.ndarray) -> CohortData:
        made.append(len(clients))
        return replace(base.cohort(clients), fault_counts=counts.take(clients))

    base = custom_population(lambda k: (np.zeros((1, 1)), np.array([0])), [1] * 150, outputs=1)
    p = replace(base, clients=replace(base.clients, cohort=cohort), history=DataHistory(faults=("f",)))
    assert same(p.fault_counts(np.arange(150)), counts)
    assert made == [64, 64, 22]


@pytest.mark.parametrize("name", ["traffic, congestion", "intrusion", "activity", "digits"])
def test_fault_counts_belong_to_their_clients(name: str) -> None:
    p = city.population(name, faults=FAULTS)
    assert p.history.faults == tuple(FAULTS)
    counts = p.cohort(SOME).fault_counts
    alone = [city.population(name, faults=FAULTS).cohort(np.array([k])).fault_counts for k in SOME]
    assert same(counts, join_fault_counts(alone))
    assert same(counts, p.fault_counts(SOME))
    assert counts is not None
    assert counts.changed["wrong"].dtype == np.float64
    assert counts.changed["wrong"].max() > 0.1


@pytest.mark.parametrize("name", ["traffic, congestion", "intrusion", "digits"])
def test_fault_counts_survive_features_and_drift(name: str) -> None:
    faulty = city.population(name, faults=FAULTS).cohort(SOME).fault_counts
    normalised = city.population(name, faults=FAULTS, features=FeatureOptions(normalise="client"))
    drifting = city.population(name, faults=FAULTS, drifts={"turn": DriftOptions(changes="p(y|x)")})
    assert same(normalised.cohort(SOME).fault_counts, faulty)
    assert same(drifting.during(3).cohort(SOME).fault_counts, faulty)


def test_fault_counts_of_parts_are_joined_unless_one_is_unknown() -> None:
    first, second = (FaultCounts({"f": np.array([x])}, {"f": np.array([2 * x])}) for x in (0.1, 0.2))
    joined = join_fault_counts([first, second])
    assert joined is not None
    assert joined.changed["f"].tolist() == [0.1, 0.2]
    assert joined.effect["f"].tolist() == [0.2, 0.4]
    assert join_fault_counts([first, None]) is None
    assert join_fault_counts([]) is None
