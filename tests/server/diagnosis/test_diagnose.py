"""The diagnosis as a pure function of made evidence: each cause is found where it is planted, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from server.diagnosis.diagnose import diagnose
from server.diagnosis.evidence import Evidence
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
    end = {
        name: trial(0.0)
        for name in ("own", "half_rate", "fourfold_rate", "full_batch", "larger_cohort")
    }
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
    "bad_clients": healthy(columns=_bad_columns()),
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
    "model_too_small": replace(healthy(), lines=lines_of(settled(last=1.0)), looks=looks_of(1.0)),
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


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_cause_has_evidence_with_numbers_and_a_change(kind):
    finding = next(f for f in diagnose(PLANTED[kind]).findings if f.kind == kind)
    assert any(character.isdigit() for clause in finding.evidence for character in clause)
    assert finding.change is not None
    assert finding.change.words


def test_bad_clients_are_named():
    found = next(f for f in diagnose(PLANTED["bad_clients"]).findings if f.kind == "bad_clients")
    assert sorted(found.clients) == ["0", "1", "2", "3"]


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
