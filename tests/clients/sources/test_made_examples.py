"""Generated examples with a known truth: points, customers, reviews."""

from dataclasses import replace

import numpy as np
import pytest

from clients.core.errors import PartitionError, UserError
from clients.federation.data_kinds import build_population
from clients.partition.options import IidOptions
from clients.sources.churn import FEATURES, bayes_rates, branch_means, made_customers, true_model
from clients.sources.made_options import ChurnOptions, PointsOptions, ReviewsOptions
from clients.sources.points import made_points
from clients.sources.reviews import GOOD, NEGATIONS, OPENINGS, VOCABULARY, bag_of_words_accuracy, made_reviews


def test_separable_points_keep_their_margin():
    options = PointsOptions(features=7, margin=0.3, examples=300)
    points, labels, facts = made_points(options, 4)
    assert facts["margin"] >= 0.3
    assert facts["radius"] == np.linalg.norm(points, axis=1).max()
    assert facts["mistake_bound"] == (facts["radius"] / facts["margin"]) ** 2
    assert 0.3 < labels.mean() < 0.7
    assert "mistake_bound" in build_population(options, IidOptions(clients=3), seed=4).federation.record


def test_xor_has_the_sign_of_the_product_and_rings_their_radius():
    points, labels, _ = made_points(PointsOptions(pattern="xor", spread=0.1, features=4), 0)
    assert ((points[:, 0] * points[:, 1] < 0) == labels).all()
    assert points[:, 2:].std() == pytest.approx(0.1, rel=0.1)
    points, labels, _ = made_points(PointsOptions(pattern="rings", spread=0.0), 0)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.0 + labels)


def test_labels_of_coins_do_not_depend_on_points():
    points, labels, _ = made_points(PointsOptions(pattern="random", examples=4000, features=3), 1)
    assert abs(labels.mean() - 0.5) < 0.03
    assert abs(np.corrcoef(points[:, 0], labels)[0, 1]) < 0.06


def test_points_need_a_partition_and_room_for_their_pattern():
    with pytest.raises(PartitionError, match="come without clients"):
        build_population(PointsOptions(), None, seed=0)
    with pytest.raises(UserError, match="features: must be at least 2 for 'xor', got 1"):
        PointsOptions(pattern="xor", features=1)


CHURN = ChurnOptions(branches=30, customers=1000, churn_rate=0.15)


def test_churn_has_its_rate_and_its_bayes_error():
    branch, features, labels = made_customers(CHURN, 3)
    weights, constant = true_model(CHURN, 3)
    scores = features @ weights + constant
    chance = 1 / (1 + np.exp(-scores))
    means = branch_means(CHURN, 3)
    error, loss = bayes_rates(means @ weights + constant, CHURN.signal, np.bincount(branch))
    assert (np.bincount(branch, chance) / np.bincount(branch)).mean() == pytest.approx(0.15, abs=0.01)
    wrong = (scores > 0) != labels
    assert wrong.mean() == pytest.approx(error, abs=0.008)
    assert np.logaddexp(0, np.where(labels, -scores, scores)).mean() == pytest.approx(loss, abs=0.015)
    assert 0 < error < 0.15 < loss


def test_bayes_rates_have_known_limits():
    """Without signal nothing is better than the common answer; with much signal nothing is left to chance."""
    base, customers = np.array([np.log(0.2 / 0.8)]), np.array([7])
    error, loss = bayes_rates(base, 0.0, customers)
    assert error == pytest.approx(0.2, abs=1e-12)
    assert loss == pytest.approx(-0.2 * np.log(0.2) - 0.8 * np.log(0.8), abs=1e-12)
    assert bayes_rates(base, 10.0, customers)[0] < 0.07


def test_branches_are_clients_unless_customers_are_dealt_out():
    population = build_population(ChurnOptions(branches=6, customers=50), None, seed=0)
    assert (population.num_clients, population.spec.feature_shape) == (6, (len(FEATURES),))
    assert len(set(population.sizes.tolist())) > 1
    assert {"bayes_error", "bayes_loss"} <= set(population.federation.record)
    alike = replace(ChurnOptions(branches=6, customers=50), size_spread=0.0)
    assert np.bincount(made_customers(alike, 0)[0]).tolist() == [50] * 6
    assert build_population(alike, IidOptions(clients=4), seed=0).num_clients == 4


def in_words(row):
    return " ".join(VOCABULARY[i] for i in row).split()


@pytest.mark.parametrize("clauses", [1, 3])
def test_reviews_mean_what_their_words_say(clauses):
    shop, tokens, labels = made_reviews(ReviewsOptions(shops=4, reviews=60, clauses=clauses), 2)
    assert len(np.unique(shop)) == 4
    for row, label in zip(tokens[:200], labels[:200], strict=True):
        words, praises = in_words(row), 0
        words = words[1:] if words[0] in OPENINGS else words
        for at in range(0, len(words), 6):
            praises += (words[at + 3] in NEGATIONS) != (words[at + 4] in GOOD)
        assert label == (praises > clauses / 2)


def test_negation_is_independent_of_the_words_it_turns_round():
    _, tokens, labels = made_reviews(ReviewsOptions(shops=5, reviews=2000, clauses=1, shops_differ=0.0), 0)
    good = np.isin(tokens, [VOCABULARY.index(w) for w in GOOD]).any(1)
    negated = np.isin(tokens, [VOCABULARY.index(w) for w in NEGATIONS]).any(1)
    assert abs(np.corrcoef(good, labels)[0, 1]) < 0.04
    assert abs(np.corrcoef(negated, labels)[0, 1]) < 0.04
    assert ((good != negated) == labels).all()


def test_best_count_of_words_has_its_accuracy():
    """The rule that knows negations and good words of each review does as well as the closed form, on many reviews."""
    options = ReviewsOptions(shops=5, reviews=4000, clauses=3, shops_differ=0.0)
    _, tokens, labels = made_reviews(options, 1)
    good, negated = (np.isin(tokens, [VOCABULARY.index(w) for w in words]).sum(1) for words in (GOOD, NEGATIONS))
    cell = 4 * good + negated
    praised = np.bincount(cell, labels) / np.maximum(np.bincount(cell), 1)
    assert ((praised[cell] > 0.5) == labels).mean() == pytest.approx(bag_of_words_accuracy(options), abs=0.012)


def test_shops_are_clients_with_tokens():
    population = build_population(ReviewsOptions(shops=6, reviews=30, clauses=3), None, seed=0)
    assert (population.num_clients, population.spec.tokens) == (6, len(VOCABULARY))
    assert population.spec.feature_shape == (19,)
    assert population.federation.record["bag_of_words_accuracy"] == 0.8125
    assert build_population(ReviewsOptions(shops=6, reviews=30), IidOptions(clients=3), seed=0).num_clients == 3
    with pytest.raises(UserError, match="clauses: must be an odd number from 1 to 7, got 2"):
        ReviewsOptions(clauses=2)
