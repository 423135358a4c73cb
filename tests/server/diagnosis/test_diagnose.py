"""The diagnosis as a pure function of made evidence: each cause is found where it is planted, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from server.diagnosis.diagnose import diagnose
from server.diagnosis.evidence import Evidence, labels_of
from server.diagnosis.federation import cohort_matters
from server.diagnosis.fit import UNHELPED
from server.diagnosis.table import CAUSES

ROUNDS = 60
SCENARIO: dict[str, Any] = {
    "model": {"kind": "mlp", "hidden": [64], "norm": "none", "activation": "relu"},
    "local": {"local_lr": 0.1, "batch_size": 16, "local_epochs": 2, "schedule": {"kind": "constant"}},
    "algorithm": {"kind": "fedavg", "cohort": 10},
    "drifts": {},
}


def settled(rounds: int = ROUNDS, first: float = 2.0, last: float = 0.2, pace: float = 5.0) -> np.ndarray:
    """A loss that falls geometrically and has come to rest."""
    return last + (first - last) * np.exp(-np.arange(rounds + 1) / pace)


def lines_of(validation: np.ndarray, training: np.ndarray | None = None, **more: Any) -> list[dict[str, Any]]:
    training = validation if training is None else training
    lines = [{"round": 0, "validation_loss": float(validation[0])}]
    for r in range(1, len(validation)):
        facts = {"validation_loss": float(validation[r]), "train_loss": float(training[r]), "respondents": 10}
        lines.append({"round": r, "local_steps": 60, "largest_gradient_norm": 1.0, **facts, **more})
    return lines


def trial(gain: float, change: float = -0.001, error: float = 1e-4) -> dict[str, float]:
    return {"change": change, "gain": gain, "error": error}


def looks_of(loss: float = 0.2, first: float = 2.0, **changes: Any) -> dict[str, Any]:
    """What is seen of a healthy run."""
    weights = {"0.weight": 4.0, "2.weight": 3.0, "4.weight": 3.0}
    gradients = {"mean_norm": 1.0, "weights": weights}
    start = {"own": trial(0.0, -0.5), "eighth_rate": trial(-0.4, -0.1), "eightfold_rate": trial(0.2, -0.7)}
    end = {name: trial(0.0) for name in ("own", "half_rate", "fourfold_rate", "full_batch", "larger_cohort")}
    table = {
        "clients": list(range(10)),
        "sizes": [50] * 10,
        "features": {"number": 20, "low": 0.5, "middle": 1.0, "high": 2.0, "offset": 0.5, "root_mean_square": 1.0},
        "targets": {"constant_loss": 2.0, "counts": [50] * 10},
        "parameters": 400,
        "reference_loss": 0.2,
        "start": {"round": 0, "losses": [first] * 10, "trials": start,
                  "gradients": gradients | {"layers": dict.fromkeys(weights, 0.3)}},
        "end": {"round": ROUNDS, "losses": [loss] * 10, "trials": end},
    }  # fmt: skip
    for path, value in changes.items():
        *parts, last = path.split("__")
        place: Any = table
        for part in parts:
            place = place[part]
        place[last] = value
    return table


def healthy(**changes: Any) -> Evidence:
    clients = np.tile(np.arange(40), 15)
    losses = 0.2 + 0.01 * np.random.default_rng(0).standard_normal(len(clients))
    columns = {"client": clients, "round": np.repeat(np.arange(1, 61), 10), "train_loss": losses,
               "gradient_norm": np.ones(len(clients))}  # fmt: skip
    labels = np.full((40, 10), 5.0)
    found = Evidence(
        SCENARIO, lines_of(settled()), {"clients": 40, "examples": 2000, "parameters": 400}, columns, labels
    )
    known = {"looks": looks_of(), "outcome": {"outcome": "stopped", "round": ROUNDS}}
    return replace(found, **(known | changes))


def scenario_with(section: str, **keys: Any) -> dict[str, Any]:
    return {**SCENARIO, section: {**SCENARIO[section], **keys}}


def _skewed() -> np.ndarray:
    return np.kron(np.eye(10), np.full((4, 1), 50.0))


def _bad_columns() -> dict[str, np.ndarray]:
    columns = dict(healthy().columns)
    columns["train_loss"] = np.where(columns["client"] < 4, 1.5, columns["train_loss"])
    return columns


def _uneven_columns() -> dict[str, np.ndarray]:
    columns = dict(healthy().columns)
    often = np.tile(np.arange(20), 30)
    return {**columns, "client": often}


def _drifted() -> np.ndarray:
    values = settled()
    values[45:] += 0.8 * np.exp(-np.arange(len(values) - 45) / 30)
    return values


FALLING = settled(20, pace=15.0)
CURVE_UP = np.where(np.arange(61) > 20, settled()[20] + 0.02 * (np.arange(61) - 20), settled())
PLANTED: dict[str, Evidence] = {
    "rate_too_high": healthy(looks=looks_of(start__trials={"own": trial(0, 3.0), "eighth_rate": trial(3.2, -0.2)})),
    "rate_too_low": replace(
        healthy(), lines=lines_of(settled(20, pace=40.0)),
        looks=looks_of(first=2.0, start__trials__own=trial(0, -0.02), start__trials__eightfold_rate=trial(0.13, -0.15),
                       end__trials__fourfold_rate=trial(0.06)),
    ),
    "decayed_too_early": replace(
        healthy(), lines=lines_of(np.concatenate([np.linspace(2, 1.4, 5), np.full(56, 1.39)])),
        scenario=scenario_with("local", schedule={"kind": "step", "at": [4], "factor": 0.01}),
    ),
    "clipping_dominates": replace(
        healthy(), scenario=scenario_with("local", clip_norm=0.01),
        looks=looks_of(end__trials__unclipped=trial(0.1)),
    ),
    "too_many_local_steps": replace(
        healthy(), lines=lines_of(settled(), settled(last=0.01), local_steps=600), looks=looks_of(loss=0.4),
    ),
    "heterogeneity": replace(
        healthy(), labels=_skewed(), lines=lines_of(settled(), settled(last=0.15)), looks=looks_of(0.4),
    ),
    "cohort_too_small": replace(
        healthy(), lines=lines_of(settled(), respondents=2) , looks=looks_of(end__trials__larger_cohort=trial(0.1)),
    ),
    "batch_statistics": replace(
        healthy(), labels=_skewed(), scenario=scenario_with("model", norm="batch"),
        lines=lines_of(settled(), settled(last=0.1)), looks=looks_of(0.5),
    ),
    "bad_clients": healthy(columns=_bad_columns(), looks=looks_of(end__losses=[1.5, 1.4] + [0.2] * 8)),
    "biased_participation": healthy(
        columns=_uneven_columns(),
        looks=looks_of(clients=[0, 2, 4, 6, 8, 22, 24, 26, 28, 30], end__losses=[0.2] * 5 + [0.35] * 5),
    ),
    "noise_floor": healthy(looks=looks_of(end__trials__full_batch=trial(0.05), end__trials__half_rate=trial(0.02))),
    "vanishing": replace(
        healthy(), lines=lines_of(settled(first=2.3, last=2.25)),
        looks=looks_of(2.25, 2.3, start__gradients__layers={"0.weight": 1e-5, "2.weight": 1e-3, "4.weight": 0.3},
                       reference_loss=2.2),
    ),
    "exploding": healthy(looks=looks_of(start__gradients__mean_norm=500.0)),
    "badly_scaled": healthy(looks=looks_of(features__high=50.0)),
    "class_imbalance": replace(
        healthy(), labels=np.tile([100.0] + [30.0] * 8 + [2.0], (40, 1)),
        lines=lines_of(settled(), class_accuracy=[0.95] * 9 + [0.1]),
    ),
    "model_too_small": replace(healthy(), lines=lines_of(settled(last=1.0)), looks=looks_of(1.0, pooled_loss=0.9)),
    "model_too_large": replace(
        healthy(), lines=lines_of(CURVE_UP, settled(last=0.01)), looks=looks_of(0.02, parameters=9000),
    ),
    "overfitting": replace(healthy(), lines=lines_of(CURVE_UP, settled(last=0.01)), looks=looks_of(0.02)),
    "too_few_rounds": replace(healthy(), lines=lines_of(FALLING)),
    "concept_drift": replace(
        healthy(), lines=lines_of(_drifted()),
        scenario={**SCENARIO, "drifts": {"turn": {"kind": "abrupt", "start": 45.0}}},
    ),
    "wrong_loss": replace(healthy(), lines=lines_of(settled(), validation_error=3.0, validation_mae=1.0)),
}  # fmt: skip


def test_every_cause_is_planted():
    assert set(PLANTED) == {cause.kind for cause in CAUSES}


def test_healthy_run_has_no_finding():
    assert diagnose(healthy()).healthy, diagnose(healthy()).findings


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_cause_is_among_the_first_three(kind):
    found = [finding.kind for finding in diagnose(PLANTED[kind]).findings]
    assert kind in found[:3], found


@pytest.mark.parametrize("kind", [kind for kind, e in PLANTED.items() if not cohort_matters(e)])
@pytest.mark.parametrize("gain", [-0.5, 0.05, 0.5])
def test_larger_cohort_changes_no_finding_where_it_does_not_matter(kind, gain):
    """Its trial is left out there: it costs as much as all others."""
    e = PLANTED[kind]
    end = e.looks["end"]
    changed = replace(e, looks={**e.looks, "end": {**end, "trials": {**end["trials"], "larger_cohort": trial(gain)}}})
    assert kinds(changed) == kinds(e)


def test_larger_cohort_matters_to_few_clients_and_to_unlike_ones():
    assert not cohort_matters(healthy())
    assert cohort_matters(PLANTED["cohort_too_small"])
    assert cohort_matters(PLANTED["heterogeneity"])


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_cause_has_evidence_with_numbers_and_a_change(kind):
    finding = next(f for f in diagnose(PLANTED[kind]).findings if f.kind == kind)
    assert any(character.isdigit() for clause in finding.evidence for character in clause)
    assert finding.change is not None
    assert finding.change.words


def test_bad_clients_are_named():
    found = next(f for f in diagnose(PLANTED["bad_clients"]).findings if f.kind == "bad_clients")
    assert sorted(found.clients) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("kind", "round_index"),
    [("overfitting", 20), ("concept_drift", 45), ("decayed_too_early", 5), ("too_few_rounds", None)],
)
def test_finding_has_the_round_in_which_it_shows(kind, round_index):
    assert next(f for f in diagnose(PLANTED[kind]).findings if f.kind == kind).round_index == round_index


def test_explained_finding_ranks_after_the_one_that_explains_it():
    both = replace(PLANTED["badly_scaled"], looks=looks_of(features__high=9.0, start__gradients__mean_norm=500.0))
    kinds = [(finding.kind, finding.because_of) for finding in diagnose(both).findings]
    assert kinds == [("badly_scaled", ""), ("exploding", "badly_scaled")]


def test_record_alone_says_what_it_cannot_see():
    found = diagnose(replace(PLANTED["too_few_rounds"], looks={}))
    assert [finding.kind for finding in found.findings] == ["too_few_rounds"]
    assert "only the record" in found.blind[0]


def test_gain_within_its_error_counts_as_none():
    noisy = healthy(looks=looks_of(end__trials__full_batch=trial(0.05, error=0.04)))
    assert diagnose(noisy).strengths["noise_floor"] == 0


def test_diverged_run_is_not_called_too_short_or_overfitted():
    values = np.concatenate([settled()[:30], [5.0, 50.0, 500.0]])
    found = diagnose(
        replace(healthy(), lines=lines_of(values), outcome={"outcome": "diverged", "headline": "Diverged at round 32"})
    )
    kinds = {finding.kind for finding in found.findings}
    assert "rate_too_high" in kinds
    assert not kinds & {"too_few_rounds", "overfitting", "model_too_small"}


def test_loss_that_is_never_finite_gives_a_diagnosis():
    lines = [{"round": r, "validation_loss": float("nan"), "train_loss": float("nan")} for r in range(6)]
    found = diagnose(Evidence(SCENARIO, lines))
    assert [finding.kind for finding in found.findings] == ["rate_too_high"]


def test_label_distance_of_a_random_deal_is_about_nothing():
    generator = np.random.default_rng(1)
    dealt = generator.multinomial(20, np.full(10, 0.1), size=200).astype(float)
    assert Evidence(SCENARIO, [], labels=dealt).emd < 0.05
    assert Evidence(SCENARIO, [], labels=_skewed()).emd == pytest.approx(1.8 - 0.31, abs=0.15)


def test_rare_class_without_validation_examples_is_no_evidence():
    e = replace(PLANTED["class_imbalance"], lines=lines_of(settled(), class_accuracy=[0.95] * 9 + [None]))
    assert diagnose(e).strengths["class_imbalance"] == 0


@pytest.mark.parametrize("damaged", [1, 5, 61])
def test_lines_with_another_number_of_classes_are_left_out(damaged):
    e = PLANTED["class_imbalance"]
    lines = [
        line | {"class_accuracy": [0.5] * 3} if len(e.lines) - i <= damaged else line for i, line in enumerate(e.lines)
    ]
    found = diagnose(replace(e, lines=lines)).strengths["class_imbalance"]
    assert found == (diagnose(e).strengths["class_imbalance"] if damaged == 1 else 0)


def test_damaged_label_counts_are_none():
    assert labels_of({"label_counts": [[1, 2], [3, 4]]}).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    for rows in ([[1, 2], [3]], [[1, 1e308]], [[-1, 2]], [[float("nan"), 2]], [], None):
        assert labels_of({"label_counts": rows}) is None
    assert labels_of(None) is None


def strengths(e: Evidence) -> dict[str, float]:
    return dict(diagnose(e).strengths)


def kinds(e: Evidence) -> list[str]:
    return [finding.kind for finding in diagnose(e).findings]


def test_run_that_would_gain_a_few_percent_more_is_healthy():
    almost = settled(pace=16.0)
    left = almost[-1] - 0.2
    assert 0.01 < left / (almost[0] - almost[-1]) < 0.05
    noisy = almost + 0.01 * np.random.default_rng(1).standard_normal(len(almost))
    for values in (almost, noisy):
        assert diagnose(replace(healthy(), lines=lines_of(values))).healthy


def test_run_that_would_gain_a_fifth_more_is_too_short():
    values = settled(pace=35.0)
    assert (values[-1] - 0.2) / (values[0] - values[-1]) > 0.2
    assert kinds(replace(healthy(), lines=lines_of(values)))[0] == "too_few_rounds"


def _short(pooled: float, **changes: Any) -> Evidence:
    """A run that still falls, above its reference, and what its model reaches on the pooled sample."""
    values = settled(30, last=0.6, pace=15.0)
    last = float(values[-1])
    return replace(healthy(), lines=lines_of(values), looks=looks_of(last, pooled_loss=pooled, **changes))


def test_run_is_too_short_where_its_model_reaches_the_reference_on_the_pooled_sample():
    found = strengths(_short(pooled=0.2))
    assert found["too_few_rounds"] >= 1
    assert found["model_too_small"] == 0


def test_model_is_too_small_where_it_misses_the_reference_on_the_pooled_sample():
    small = _short(pooled=0.8)
    assert kinds(small)[0] == "model_too_small"
    assert strengths(small)["too_few_rounds"] < strengths(_short(pooled=0.2))["too_few_rounds"]


def test_model_is_too_small_where_a_wider_one_does_better():
    assert strengths(_short(pooled=0.2, wider_loss=0.19))["model_too_small"] < 1
    assert strengths(_short(pooled=0.5, reference_loss=0.5, wider_loss=0.2))["model_too_small"] >= 1


def test_model_that_learns_the_pooled_sample_by_heart_is_not_too_small():
    assert strengths(_short(pooled=0.8, pooled_training_loss=0.75))["model_too_small"] >= 1
    assert strengths(_short(pooled=0.8, pooled_training_loss=0.01))["model_too_small"] == 0


def test_shortfall_that_a_wider_model_does_not_mend_counts_less():
    other, none = (_short(pooled=0.5, wider_loss=wide) for wide in (0.49, 0.51))
    assert strengths(none)["model_too_small"] == pytest.approx(UNHELPED * strengths(other)["model_too_small"], rel=0.1)


def test_heavy_tails_are_told_by_the_largest_errors_of_the_last_model():
    lines = lines_of(settled(), validation_error=3.0, validation_mae=1.0)
    seen = replace(healthy(looks=looks_of(end__tail=0.09)), lines=lines)
    assert kinds(seen) == []  # the errors of the record have outliers, those of the last model have none
    assert kinds(healthy(looks=looks_of(end__tail=0.6))) == ["wrong_loss"]


def test_small_rise_is_overfitting_where_it_is_clear_beside_loss_and_noise():
    """The loss fell from 20 and rises from 0.2 to 0.24, which is little beside what was gained."""
    turn = np.arange(ROUNDS + 1) > 30
    values = settled(first=20.0, pace=3.0) + np.where(turn, 0.002 * (np.arange(ROUNDS + 1) - 30), 0.0)
    training = settled(first=20.0, last=0.1, pace=3.5)
    e = replace(healthy(), lines=lines_of(values, training))
    assert kinds(replace(e, looks=looks_of(0.1, 20.0)))[0] == "overfitting"
    assert strengths(replace(e, looks=looks_of(0.2, 20.0)))["overfitting"] < 1
    noisy = values + 0.03 * np.random.default_rng(3).standard_normal(len(values))
    unclear = looks_of(0.1, 20.0, reference_loss=0.24)
    assert strengths(replace(e, lines=lines_of(noisy, training), looks=unclear))["overfitting"] < 1


def test_moderate_answer_to_a_larger_rate_needs_both_signs_of_the_end():
    start = {"first": 2.0, "start__trials__own": trial(0, -0.1), "start__trials__eightfold_rate": trial(0.18, -0.28)}
    lines = lines_of(settled(20, pace=12.0))
    both = looks_of(end__trials__fourfold_rate=trial(0.02), reference_loss=0.2, **start)
    one = looks_of(end__trials__fourfold_rate=trial(0.02), reference_loss=0.6, **start)
    assert strengths(replace(healthy(), lines=lines, looks=both))["rate_too_low"] >= 1
    assert strengths(replace(healthy(), lines=lines, looks=one))["rate_too_low"] < 1


def test_fewer_rounds_need_a_smaller_shortfall():
    values = np.array([2.0, 0.27, 0.245, 0.235, 0.23])
    few = replace(healthy(), lines=lines_of(values), looks=looks_of(0.23))
    assert few.shortfall < 0.03
    assert kinds(few) == ["too_few_rounds"]
    level = replace(healthy(), lines=lines_of(settled(last=0.245)), looks=looks_of(0.23))
    assert level.shortfall == pytest.approx(few.shortfall, abs=0.001)
    assert kinds(level) == []


def test_added_noise_that_ruins_a_run_is_told_by_its_first_round():
    rises = np.linspace(2.0, 9.0, ROUNDS + 1)
    start = {"own": trial(0, -0.3), "eighth_rate": trial(0.1, -0.4), "noiseless": trial(0.5, -0.8)}
    looks, local = looks_of(9.0, start__trials=start, end={"losses": [9.0] * 10}), {"gradient_noise": 1.6}
    ruined = replace(healthy(), lines=lines_of(rises), scenario=scenario_with("local", **local), looks=looks)
    assert kinds(ruined)[:2] == ["noise_floor", "rate_too_high"]
    assert any("first round ends 0.5 lower" in clause for clause in diagnose(ruined).findings[0].evidence)
    assert "noise_floor" not in kinds(replace(ruined, scenario=SCENARIO))


def test_model_that_fits_training_examples_alone_is_not_too_small():
    e = replace(_short(pooled=0.8), looks=looks_of(0.05, pooled_loss=0.8))
    assert strengths(e)["model_too_small"] == 0


def test_added_noise_explains_that_smaller_steps_gain():
    added = replace(
        healthy(looks=looks_of(end__trials__noiseless=trial(0.2), end__trials__half_rate=trial(0.1))),
        scenario=scenario_with("local", gradient_noise=0.8),
    )
    first, second = diagnose(added).findings[:2]
    assert (first.kind, second.kind, second.because_of) == ("noise_floor", "rate_too_high", "noise_floor")
    assert first.change is not None
    assert first.change.sets == {"local.gradient_noise": 0.0}


def test_noise_of_batches_is_explained_by_a_rate_that_is_too_high():
    e = healthy(looks=looks_of(end__trials__full_batch=trial(0.2), end__trials__half_rate=trial(0.1)))
    found = {finding.kind: finding.because_of for finding in diagnose(e).findings}
    assert found == {"rate_too_high": "", "noise_floor": "rate_too_high"}


def test_run_that_still_falls_has_no_noise_floor():
    looks = looks_of(end__trials__full_batch=trial(0.02), end__trials__half_rate=trial(0.01))
    assert strengths(healthy(looks=looks))["noise_floor"] >= 1
    assert strengths(replace(healthy(looks=looks), lines=lines_of(FALLING)))["noise_floor"] < 1


def test_small_cohort_explains_that_smaller_steps_gain():
    looks = looks_of(end__trials__larger_cohort=trial(0.2), end__trials__half_rate=trial(0.1))
    small = replace(healthy(looks=looks), lines=lines_of(settled(), respondents=2))
    assert kinds(small)[:2] == ["cohort_too_small", "rate_too_high"]
    assert kinds(healthy(looks=looks)) == ["rate_too_high"]


def test_gradients_vanish_in_a_regression_that_learns_the_mean_alone():
    layers = {"0.weight": 1e-5, "2.weight": 1e-3, "4.weight": 0.3}
    found = {
        last: strengths(replace(
            healthy(), lines=lines_of(settled(first=5.0, last=last)),
            looks=looks_of(last, 5.0, start__gradients__layers=layers, targets={"constant_loss": 1.0}),
        ))["vanishing"]
        for last in (0.98, 0.1)
    }  # fmt: skip
    assert found[0.98] >= 1 > found[0.1]


def test_gradients_that_are_large_before_the_first_step_explain_a_rate_that_is_too_high():
    diverged = {"outcome": "diverged", "headline": "Diverged at round 32"}
    lines = lines_of(np.concatenate([settled()[:30], [5.0, 50.0, 500.0]]))
    steep = replace(healthy(looks=looks_of(start__gradients__mean_norm=500.0)), lines=lines, outcome=diverged)
    assert kinds(steep)[:2] == ["exploding", "rate_too_high"]
    grown = [{**line, "largest_gradient_norm": 10.0 ** min(line["round"], 4)} for line in lines]
    found = diagnose(replace(healthy(), lines=[*lines[:28], *grown[28:]], outcome=diverged)).findings
    assert [(f.kind, f.because_of) for f in found[:2]] == [("rate_too_high", ""), ("exploding", "rate_too_high")]


def test_gradients_of_one_hidden_layer_do_not_explode():
    shallow = {"0.weight": 3.0, "2.weight": 3.0}
    gradients = {"mean_norm": 500.0, "weights": shallow, "layers": shallow}
    assert kinds(healthy(looks=looks_of(start__gradients=gradients))) == []


def test_batch_statistics_are_named_where_labels_differ_and_the_run_falls_short():
    named, short = PLANTED["batch_statistics"], settled(last=1.0)
    apart = replace(named, lines=lines_of(short, short))  # local training does no better than the averaged model
    assert strengths(replace(apart, looks=looks_of(1.0)))["batch_statistics"] >= 1
    assert strengths(replace(apart, looks=looks_of(1.0, reference_loss=1.0)))["batch_statistics"] < 1


def test_badly_scaled_inputs_explain_gradients_that_are_large_at_the_start():
    both = healthy(looks=looks_of(features__high=50.0, start__gradients__mean_norm=500.0))
    assert kinds(both) == ["badly_scaled", "exploding"]


def test_one_low_value_of_a_noisy_loss_is_no_overfitting():
    values = settled() + 0.02 * np.random.default_rng(2).standard_normal(ROUNDS + 1)
    values[40] -= 0.12
    e = replace(healthy(), lines=lines_of(values, settled(last=0.01)), looks=looks_of(0.01))
    assert strengths(e)["overfitting"] < 1


def test_bad_clients_are_told_by_the_last_model_where_local_steps_hide_them():
    hidden = healthy(looks=looks_of(end__losses=[1.5, 1.4] + [0.2] * 8))
    found = diagnose(hidden).findings[0]
    assert (found.kind, sorted(found.clients)) == ("bad_clients", ["0", "1"])
    gradual = healthy(columns=_bad_columns(), looks=looks_of(end__losses=[1.5, 1.1, 0.8, 0.6, 0.5, 0.4] + [0.3] * 4))
    assert strengths(gradual)["bad_clients"] < 1


def _accuracy(training: float, examples: int = 500) -> dict[str, float]:
    return {"training": training, "validation": 0.9, "examples": examples}


def test_few_validation_examples_tell_wrong_labels_beyond_chance_alone():
    many, few = (healthy(looks=looks_of(end__accuracy=_accuracy(0.75, n))) for n in (500, 25))
    assert kinds(many) == ["bad_clients"]
    assert kinds(few) == []


def test_wrong_labels_of_all_clients_are_told_by_the_accuracy_on_their_own_examples():
    wrong, right = (healthy(looks=looks_of(end__accuracy=_accuracy(share))) for share in (0.5, 0.85))
    assert kinds(wrong) == ["bad_clients"]
    assert (
        "90% of the validation labels, and with 50% of the clients' labels" in diagnose(wrong).findings[0].evidence[0]
    )
    assert "where the clients' labels come from" in diagnose(wrong).findings[0].change.words
    assert diagnose(right).healthy


def test_bad_clients_that_stand_apart_are_named_beside_wrong_labels():
    """Whichever of the two is stronger."""
    for training in (0.65, 0.1):
        looks = looks_of(end__losses=[1.5, 1.4] + [0.2] * 8, end__accuracy=_accuracy(training))
        found = diagnose(healthy(columns=_bad_columns(), looks=looks)).findings[0]
        assert found.kind == "bad_clients"
        assert found.clients
        assert any("none lies between" in clause for clause in found.evidence)


def test_bad_clients_of_the_record_alone_are_those_apart_in_local_steps():
    found = diagnose(healthy(columns=_bad_columns(), looks={})).findings[0]
    assert (found.kind, sorted(found.clients)) == ("bad_clients", ["0", "1", "2", "3"])


def test_run_that_ends_above_its_start_has_no_bad_clients_and_is_not_too_short():
    worse = np.linspace(2.0, 9.0, ROUNDS + 1)
    e = replace(PLANTED["bad_clients"], lines=lines_of(worse), looks=looks_of(end__losses=[9.5, 9.4] + [8.0] * 8))
    assert strengths(e)["rate_too_high"] >= 1
    assert strengths(e)["bad_clients"] == strengths(e)["too_few_rounds"] == 0


def test_validation_loss_that_only_rose_while_the_training_loss_fell_is_overfitting():
    e = healthy(lines=lines_of(np.linspace(2.0, 9.0, ROUNDS + 1), settled()))
    for looks in (looks_of(0.05, 2.0), {}):  # and of the record alone
        assert kinds(replace(e, looks=looks))[0] == "overfitting"
        assert strengths(replace(e, looks=looks))["rate_too_high"] == 0


def test_model_that_knows_its_examples_and_new_ones_worse_than_others_do_overfits_without_a_rise():
    e = healthy(lines=lines_of(settled(last=0.3), settled(last=0.1)))
    fitted, worse = looks_of(0.1), looks_of(0.2)
    first = diagnose(replace(e, looks=fitted)).findings[0]
    assert first.kind == "overfitting"
    assert "rose" not in first.evidence[0]
    assert strengths(replace(e, looks=worse))["overfitting"] < 1  # it knows its examples no better than new ones
    assert strengths(replace(e, looks=looks_of(0.1, reference_loss=0.29)))["overfitting"] < 1


def test_clients_that_are_hardly_heard_explain_bad_clients_and_noise():
    e = healthy(
        columns=_uneven_columns(),
        looks=looks_of(
            clients=[0, 2, 4, 6, 8, 22, 24, 26, 28, 30], end__losses=[0.2] * 7 + [1.5] * 3,
            end__trials__full_batch=trial(0.05), end__trials__half_rate=trial(0.02),
        ),
    )  # fmt: skip
    found = diagnose(e).findings
    assert found[0].kind == "biased_participation"
    assert {f.because_of for f in found[1:]} == {"biased_participation"}
    assert {f.kind for f in found[1:]} >= {"bad_clients", "noise_floor"}


def test_unequal_classes_rank_behind_a_clearer_cause():
    unequal = PLANTED["class_imbalance"]
    assert kinds(unequal)[0] == "class_imbalance"
    clear = replace(unequal, looks=looks_of(start__trials={"own": trial(0, 3.0), "eighth_rate": trial(3.2, -0.2)}))
    assert kinds(clear)[:2] == ["rate_too_high", "class_imbalance"]
