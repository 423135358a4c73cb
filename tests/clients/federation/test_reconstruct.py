"""An autoencoder's targets equal its inputs after faults, features and drift."""

from __future__ import annotations

import city_populations as city
import numpy as np
import pytest
import torch

from clients.concept_drift.options import DriftOptions
from clients.core.errors import UserError
from clients.core.examples import CohortData
from clients.core.population import Population
from clients.faults.sensor_options import NoiseOptions
from clients.federation.options import FeatureOptions

NAME = "bridge, autoencoder"
DONE = {
    "faults": {"faults": {"noisy": NoiseOptions(severity=1.0, clients=0.5)}},
    "normalised": {"features": FeatureOptions(normalise="client")},
    "selected": {"features": FeatureOptions(select="variance", keep=2)},
    "drift": {"drifts": {"turn": DriftOptions(changes="p(x)")}},
    "all": {
        "faults": {"noisy": NoiseOptions(severity=1.0)},
        "features": FeatureOptions(normalise="federated", select="variance", keep=1),
        "drifts": {"turn": DriftOptions(changes="p(y)")},
    },
}


def same(p: Population, data: CohortData) -> bool:
    rows = torch.from_numpy(data.rows)
    features, targets = data.features[rows], data.targets[rows]
    assert targets.shape == (len(features), p.outputs)
    return torch.equal(features.flatten(1), targets)


@pytest.mark.parametrize("done", DONE)
def test_targets_of_an_autoencoder_are_its_features(done: str) -> None:
    p, plain = city.population(NAME, **DONE[done]).during(1), city.clean(NAME)  # type: ignore[arg-type]
    clients = np.arange(city.CLIENTS)
    assert same(p, p.cohort(clients))
    ours, theirs = city.examples(p, [0, 3, 4])[0], city.examples(plain, [0, 3, 4])[0]
    assert ours.shape != theirs.shape or not np.array_equal(ours, theirs)
    assert p.clients.held_out is not None
    assert same(p, p.clients.held_out(clients))
    assert p.validation is not None
    assert torch.equal(p.validation.features.flatten(1), p.validation.targets)


def test_drift_of_an_autoencoders_relation_is_refused() -> None:
    with pytest.raises(UserError, match=r"drifts\.turn\.changes: is 'p\(y\|x\)', and the targets of these data are"):
        city.population(NAME, drifts={"turn": DriftOptions()})
