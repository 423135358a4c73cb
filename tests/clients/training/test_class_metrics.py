"""Scores over classes equal scikit-learn's: central ones, those over clients, in the record and in the verdict."""

import warnings

import numpy as np
import pytest
import torch
from flwr.app import Message, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score

import fedscape as fs
from clients.engines.evaluation import Evaluator
from clients.federation.data_kinds import build_population
from clients.flower.decoding import decode_evaluation
from clients.flower.messages import BY_CLASS, METRICS, EvaluationReplies
from clients.flower.shim import FIRST_NODE, claim_identity
from clients.models.build import build_model
from clients.models.options import SoftmaxOptions
from clients.partition.long_tail import Thinning, thinned
from clients.sources.custom import custom_population
from clients.sources.images import digits_pool
from clients.sources.options import DigitsOptions
from clients.training.class_metrics import (
    ClassCounts,
    balanced_accuracy,
    class_counts,
    client_class_counts,
    imbalance,
    macro_f1,
    recalls,
)
from clients.training.options import LocalOptions
from clients.training.task import make_task
from dashboards.report import run_text
from server.convergence.criteria_options import TargetOptions
from server.convergence.facts import METRICS as STOPPING
from simulator.scenario.sections import load_scenario

CLASSES = 4
labels = st.lists(st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), min_size=1, max_size=40)


def by_sklearn(predicted, targets):
    """Return balanced accuracy over the classes that occur, and macro-F1 over those that occur or are predicted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class that is only predicted
        balanced = balanced_accuracy_score(targets, predicted)
    return balanced, f1_score(targets, predicted, average="macro", zero_division=0)


@given(pairs=labels)
def test_scores_equal_scikit_learns(pairs):
    predicted, targets = np.array(pairs, np.int64).T
    counts = class_counts(torch.from_numpy(predicted.copy()), torch.from_numpy(targets.copy()), CLASSES)
    balanced, f1 = by_sklearn(predicted, targets)
    assert float(balanced_accuracy(counts)) == pytest.approx(balanced)
    assert float(macro_f1(counts)) == pytest.approx(f1)
    for k, recall in enumerate(recalls(counts)):
        own = targets == k
        assert recall == (pytest.approx((predicted[own] == k).mean()) if own.any() else None)


@given(clients=st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=10), min_size=1, max_size=5))
def test_counts_of_clients_add_up(clients):
    owner = np.repeat(np.arange(len(clients)), [len(c) for c in clients])
    predicted, targets = np.array([p for c in clients for p in c], np.int64).reshape(-1, 2).T.copy()
    found = client_class_counts(torch.from_numpy(predicted), torch.from_numpy(targets), owner, len(clients), CLASSES)
    total = class_counts(torch.from_numpy(predicted), torch.from_numpy(targets), CLASSES)
    for name in ("right", "actual", "guessed"):
        np.testing.assert_array_equal(getattr(found.total(), name), getattr(total, name))
    each = balanced_accuracy(found)
    for k in range(len(clients)):
        own = owner == k
        expected = by_sklearn(predicted[own], targets[own])[0] if own.any() else np.nan
        assert each[k] == pytest.approx(expected, nan_ok=True)


def test_absent_class_that_is_guessed_counts_as_zero():
    """Class 0: F1 2/3; class 2 is guessed and absent: 0; classes 1 and 3 do not occur."""
    counts = class_counts(torch.tensor([0, 2]), torch.tensor([0, 0]), CLASSES)
    assert float(macro_f1(counts)) == pytest.approx(1 / 3)
    assert float(balanced_accuracy(counts)) == 0.5


def test_classifier_of_the_common_class_scores_low():
    targets = torch.tensor([0] * 95 + [1] * 5)
    counts = class_counts(torch.zeros(100, dtype=torch.int64), targets, 2)
    assert float(balanced_accuracy(counts)) == 0.5
    assert float(macro_f1(counts)) == pytest.approx(0.5 * 2 * 95 / 195)
    assert imbalance(counts) == 19.0
    assert np.isnan(balanced_accuracy(ClassCounts(*[np.zeros(2, np.int64)] * 3)))


@pytest.mark.parametrize(("sizes", "ratio"), [((0, 1, 10), 10.0), ((0, 4, 4), 1.0), ((0, 0, 0), 1.0)])
def test_imbalance_compares_the_classes_that_have_examples(sizes, ratio):
    counts = ClassCounts(np.zeros(3, np.int64), np.array(sizes, np.int64), np.zeros(3, np.int64))
    assert imbalance(counts) == ratio


# over clients, in this process and on nodes


def unequal(classes=3, sizes=(30, 8, 0, 50)):
    def client(k):
        random = np.random.default_rng(k)
        own = np.minimum(random.geometric(0.6, size=sizes[k]) - 1, classes - 1)
        return random.normal(size=(sizes[k], 4)) + own[:, None], own

    central = np.random.default_rng(9).integers(0, classes, 60)
    held = np.random.default_rng(10).normal(size=(60, 4)) + central[:, None]
    return custom_population(client, list(sizes), outputs=classes, feature_shape=(4,), validation=(held, central),
                             test=(held, central))  # fmt: skip


def evaluator_of(population):
    task = make_task(build_model(SoftmaxOptions(initialisation="xavier"), population, 1), population, LocalOptions(),
                     seed=0)  # fmt: skip
    evaluator = Evaluator(task)
    evaluator.load(*task.initial())
    return evaluator


def test_nodes_send_the_counts_of_the_process():
    population = unequal()
    evaluator, clients = evaluator_of(population), np.arange(4)
    together = evaluator.clients(clients)
    claim_identity()
    messages = [Message(RecordDict({}), dst_node_id=FIRST_NODE + k, message_type="evaluate") for k in range(4)]

    def sent(by_class):
        """Return one reply a node, each from a client evaluated alone."""
        alone = [evaluator.clients(clients[k : k + 1]) for k in range(4)]
        return [
            next(iter(EvaluationReplies([messages[k]], alone[k], "accuracy", by_class=by_class))) for k in (2, 0, 3, 1)
        ]

    def client_of(node):
        return node - FIRST_NODE

    read = decode_evaluation(sent(by_class=True), client_of, "accuracy")
    for name in ("right", "actual", "guessed"):
        np.testing.assert_array_equal(getattr(read.classes, name), getattr(together.classes, name))
    assert together.classes.actual.sum() == 88
    assert decode_evaluation(sent(by_class=False), client_of, "accuracy").classes is None
    some = sent(by_class=True)
    del some[1].content[METRICS][BY_CLASS[0]]
    assert decode_evaluation(some, client_of, "accuracy").classes is None, "a total without a node would be wrong"
    shorter = sent(by_class=True)
    shorter[1].content[METRICS][BY_CLASS[1]] = [1, 2]
    assert decode_evaluation(shorter, client_of, "accuracy").classes is None
    assert isinstance(some[0].content[METRICS], MetricRecord)


# in the record


def run(population, **more):
    sets = ["data=", "partition=", "model={kind='softmax'}", "run.rounds=4", "evaluation.federated_every=2",
            "local.local_lr=0.3", "algorithm={kind='fedavg'}", "convergence={}"]  # fmt: skip
    return fs.simulate(load_scenario(sets=sets + more.pop("sets", [])), data=population, record=False, **more)


def test_record_has_scores_over_classes():
    population = unequal()
    found = run(population)
    predicted = found.model()(population.validation.features).argmax(1)
    targets = population.validation.targets
    last = found.rounds.lines[-1]
    balanced, f1 = by_sklearn(predicted.numpy(), targets.numpy())
    assert last["validation_balanced_accuracy"] == pytest.approx(balanced)
    assert last["validation_macro_f1"] == pytest.approx(f1)
    assert np.mean(last["class_accuracy"]) == pytest.approx(balanced)
    assert found.outcome["test_balanced_accuracy"] == pytest.approx(balanced)
    assert found.outcome["test_macro_f1"] == pytest.approx(f1)

    data = population.cohort(np.array([0, 1, 3]))
    rows, owner = torch.from_numpy(data.rows), np.repeat([0, 1, 2], data.sizes)
    predicted, targets = found.model()(data.features[rows]).argmax(1).numpy(), data.targets[rows].numpy()
    balanced, f1 = by_sklearn(predicted, targets)
    assert last["federated_balanced_accuracy"] == pytest.approx(balanced)
    assert last["federated_macro_f1"] == pytest.approx(f1)
    each = [by_sklearn(predicted[owner == k], targets[owner == k])[0] for k in range(3)]
    spread = last["client_spread"]["balanced_accuracy"]
    assert spread["min"] == pytest.approx(min(each))
    assert spread["p10"] == pytest.approx(np.quantile(each, 0.1))
    assert found.outcome["client_spread"]["worst_balanced"] == pytest.approx(min(each))
    assert found.outcome["client_spread"]["lowest_tenth_balanced"] == pytest.approx(np.quantile(each, 0.1))
    assert "federated_balanced_accuracy" not in found.rounds.lines[1]


def test_record_of_many_classes_has_only_the_scores_over_them():
    found = run(unequal(classes=40, sizes=(60, 60)))
    last = found.rounds.lines[2]
    assert "class_accuracy" not in last
    assert "test_class_accuracy" not in found.outcome
    assert 0 < last["validation_macro_f1"] <= last["validation_accuracy"] + 0.2
    assert last["federated_balanced_accuracy"] > 0


def test_target_accepts_a_score_over_classes():
    assert STOPPING["validation_macro_f1"]
    assert STOPPING["federated_balanced_accuracy"]
    assert TargetOptions(metric="validation_macro_f1", at_least=0.8).threshold == 0.8
    found = run(unequal(), sets=["convergence.target={metric='validation_macro_f1', at_least=0.3}"])
    assert found.outcome["headline"].startswith("Stopped on target at round ")
    reached = found.outcome["to_target"]["rounds"]
    assert [line["validation_macro_f1"] >= 0.3 for line in found.rounds.lines[: reached + 1]] == [False] * reached + [
        True
    ]


def test_verdict_names_the_balanced_score_where_classes_are_unequal():
    outcome = {"test_accuracy": 0.95, "test_balanced_accuracy": 0.5, "test_macro_f1": 0.487, "test_imbalance": 19.0}
    assert "balanced 0.500, macro-F1 0.487" in dict(run_text.reached(outcome))["test accuracy"]
    assert "balanced" not in dict(run_text.reached(outcome | {"test_imbalance": 1.2}))["test accuracy"]


# long tails


def test_long_tail_follows_cui_and_keeps_held_out_data_whole():
    sets = ["data={kind='digits', long_tail=50.0}", "partition={kind='iid', clients=5}"]
    scenario = load_scenario(sets=sets)
    whole = load_scenario(sets=["data={kind='digits'}", sets[1]])
    populations = [build_population(s.data, s.partition, seed=0) for s in (scenario, whole)]
    tail, full = (p.clients.label_counts(np.arange(5)).sum(0) for p in populations)
    expected = full.sum() / 10 * 50.0 ** (-np.arange(10) / 9)
    np.testing.assert_array_equal(tail, np.minimum(np.round(expected), full))
    assert tail.max() / tail.min() == pytest.approx(50, rel=0.15)
    for part in ("validation", "test"):
        assert torch.equal(getattr(populations[0], part).targets, getattr(populations[1], part).targets)


def test_stronger_thinning_of_rare_classes_keeps_a_subset():
    labels = digits_pool(DigitsOptions()).targets
    rows = np.arange(len(labels))
    counts = np.bincount(labels)
    milder = thinned(rows, labels, Thinning(rare_classes=(3, 8), rare_share=0.2), seed=1)
    kept = np.bincount(labels[milder])
    np.testing.assert_array_equal(kept[[3, 8]], np.round(counts[[3, 8]] * 0.2))
    np.testing.assert_array_equal(np.delete(kept, [3, 8]), np.delete(counts, [3, 8]))
    stronger = thinned(rows, labels, Thinning(rare_classes=(3, 8), rare_share=0.05), seed=1)
    assert set(stronger) < set(milder)
    assert (np.diff(milder) > 0).all()
    assert thinned(rows, labels, Thinning(), seed=1) is rows
    assert (thinned(rows, labels, Thinning(rare_classes=(3,)), seed=2)[:400] != thinned(
        rows, labels, Thinning(rare_classes=(3,)), seed=1)[:400]).any()  # fmt: skip


@pytest.mark.parametrize(
    ("options", "field"),
    [({"long_tail": 0.5}, "long_tail"), ({"rare_share": 0.0}, "rare_share"), ({"rare_classes": (-1,)}, "rare_classes")],
)
def test_invalid_options_are_named(options, field):
    with pytest.raises(fs.UserError) as error:
        DigitsOptions(**options)
    assert error.value.field == field
    with pytest.raises(fs.UserError, match="no training example has class 12"):
        thinned(np.arange(3), np.arange(3), Thinning(rare_classes=(12,)), seed=0)
