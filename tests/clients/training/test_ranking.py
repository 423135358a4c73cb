"""How well scores rank two classes, and reconstruction errors find anomalies."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from clients.training.class_metrics import anomaly_scores, ranking


@pytest.mark.parametrize("levels", [3, 40, 10_000])
def test_ranking_equals_scikit_learns_also_with_ties(levels):
    random = np.random.default_rng(levels)
    positive = random.random(300) < 0.3
    scores = np.round(levels * (random.random(300) + 0.4 * positive)) / levels
    found = ranking(scores, positive)
    assert found["auc"] == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    assert found["average_precision"] == pytest.approx(average_precision_score(positive, scores), abs=1e-12)


def test_examples_that_are_all_alike_have_no_ranking():
    assert ranking(np.ones(3), np.zeros(3, bool)) == {}
    assert anomaly_scores(torch.ones(2, 3), torch.ones(2, 3), np.ones(2, bool)) == {"examples": 2, "anomalies": 2}


def test_relative_error_is_blind_to_the_strength_of_a_signal():
    targets = torch.tensor([[1.0, 1.0], [10.0, 10.0], [1.0, 1.0], [10.0, 10.0]])
    share_left = torch.tensor([[0.1], [0.1], [0.3], [0.3]])
    found = anomaly_scores(targets * (1 - share_left), targets, np.array([False, False, True, True]))
    assert found["relative_auc"] == 1.0
    assert found["auc"] == 0.75
