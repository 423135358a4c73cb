"""The value of each metric in a run's record, read without the metric table: paths are written out by hand.

`Truth.at(metric, round)` gives label sets and values; rounds run from 0 to `over`, one after the last, which
has only the outcome. Distributions are counted from the rows by client and round.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

from server.dispersion.histograms import EDGES

Labels = frozenset[tuple[str, str]]
Values = dict[Labels, float]

LEVELS = {"min": "0", "p05": "0.05", "p10": "0.1", "p25": "0.25", "p50": "0.5", "p75": "0.75", "p90": "0.9",
          "p95": "0.95", "max": "1"}  # fmt: skip
STATES = ("running", "converged", "diverged", "stopped", "interrupted")
WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}

ONE_OF_THE_RUN = {
    "rounds_budget": "rounds", "population_clients": "clients", "population_examples": "examples",
    "model_parameters": "parameters", "label_emd": "label_emd", "label_js": "label_js",
}  # fmt: skip
ONE_A_ROUND = {
    "round": "round", "cohort": "cohort", "respondents": "respondents", "failures": "failures",
    "rejected": "rejected", "late_replies": "late_replies", "repeats": "repeats",
    "optimality_gap": "optimality_gap", "distance_to_optimum": "distance_to_optimum",
    "train_errors": "train_errors", "objective": "objective", "agreement_ratio": "agreement",
    "relative_change": "relative_change", "pseudo_gradient_norm": "pseudo_gradient_norm",
    "gradient_norm": "gradient_norm", "largest_gradient_norm": "largest_gradient_norm",
    "update_dispersion": "update_dispersion", "gradient_diversity": "gradient_diversity",
    "gradient_dissimilarity": "gradient_dissimilarity", "local_steps": "local_steps", "sent_bytes_total": "bytes_total",
    "round_simulated_seconds": "simulated_seconds", "simulated_seconds_total": "simulated_seconds_total",
    "round_wall_seconds": "wall_seconds", "clients_per_second": "clients_per_second",
    "worker_imbalance_ratio": "workers.imbalance",
    "round_end_timestamp_seconds": "finished_at", "client_drift_mean": "client_drift.mean",
    "update_norm_mean": "update_norm.mean", "update_cosine_mean": "cosine.mean",
    "update_distance_mean": "distance.mean",
    "client_score_variance": "client_spread.variance", "evaluated_clients": "client_spread.clients",
    "rate_limit": "rate.limit",
}  # fmt: skip
LABELLED = {
    "loss": ("split", {"train": "train_loss", "validation": "validation_loss", "federated": "federated_loss",
                       "test": "test_loss", "adapted": "adapted_loss"}),
    "accuracy_ratio": ("split", {"validation": "validation_accuracy", "federated": "federated_accuracy",
                                 "test": "test_accuracy", "adapted": "adapted_accuracy"}),
    "balanced_accuracy_ratio": ("split", {"validation": "validation_balanced_accuracy",
                                          "federated": "federated_balanced_accuracy",
                                          "test": "test_balanced_accuracy"}),
    "macro_f1": ("split", {"validation": "validation_macro_f1", "federated": "federated_macro_f1",
                           "test": "test_macro_f1"}),
    "error": ("split", {"validation": "validation_error", "federated": "federated_error", "test": "test_error",
                        "adapted": "adapted_error"}),
    "mean_absolute_error": ("split", {"validation": "validation_mae", "federated": "federated_mae",
                                      "test": "test_mae", "adapted": "adapted_mae"}),
    "frechet_distance": ("split", {"validation": "validation_frechet_distance", "test": "test_frechet_distance"}),
    "sample_precision_ratio": ("split", {"validation": "validation_sample_precision",
                                         "test": "test_sample_precision"}),
    "sample_coverage_ratio": ("split", {"validation": "validation_sample_coverage", "test": "test_sample_coverage"}),
    "sample_classes": ("split", {"validation": "validation_sample_classes", "test": "test_sample_classes"}),
    "round_bytes": ("direction", {"up": "bytes_up", "down": "bytes_down"}),
    "client_drift": ("quantile", {level: f"client_drift.{key}" for key, level in LEVELS.items()}),
    "update_norm": ("quantile", {level: f"update_norm.{key}" for key, level in LEVELS.items()}),
    "update_cosine": ("quantile", {level: f"cosine.{key}" for key, level in LEVELS.items()}),
    "update_distance": ("quantile", {level: f"distance.{key}" for key, level in LEVELS.items()}),
    "client_score": ("quantile", {level: f"client_spread.score.{key}" for key, level in LEVELS.items()}),
    "client_balanced_accuracy": ("quantile", {
        level: f"client_spread.balanced_accuracy.{key}" for key, level in LEVELS.items()}),
    "client_loss": ("quantile", {level: f"client_spread.loss.{key}" for key, level in LEVELS.items()}),
}  # fmt: skip
RANKED = {
    "top_client_drift": "worst_client_drift", "lowest_update_cosine": "worst.cosine",
    "top_update_distance": "worst.distance", "worst_client_score": "client_spread.worst",
}  # fmt: skip
CRITERIA = {"value": "value", "threshold": "threshold", "distance": "distance", "held_rounds": "held",
            "needed_rounds": "needed"}  # fmt: skip
DISTRIBUTIONS = {"client_drift": "client_drift", "update_cosine": "cosine", "update_distance": "distance"}
OF_THE_OUTCOME = {
    "test_loss": "test_loss", "test_accuracy_ratio": "test_accuracy", "test_error": "test_error",
    "test_balanced_accuracy_ratio": "test_balanced_accuracy", "test_macro_f1": "test_macro_f1",
    "test_mean_absolute_error": "test_mae", "test_frechet_distance": "test_frechet_distance",
    "test_sample_precision_ratio": "test_sample_precision", "test_sample_coverage_ratio": "test_sample_coverage",
    "test_sample_classes": "test_sample_classes", "final_worst_client_score": "client_spread.worst",
    "final_client_score_variance": "client_spread.variance", "target_rounds": "to_target.rounds",
    "target_bytes": "to_target.bytes", "target_simulated_seconds": "to_target.simulated_seconds",
    "weight_divergence": "baselines.weight_divergence", "best_round": "best_model.round",
    "best_validation_loss": "best_model.value",
}  # fmt: skip


def labels(**words: str) -> Labels:
    """Return a label set; Prometheus takes an empty label for none."""
    return frozenset((name, word) for name, word in words.items() if word)


def at(value: Any, path: str) -> float | None:
    """Return the number at a dotted path, None where there is none."""
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return number(value)


def number(value: Any) -> float | None:
    return None if value is None else WORDS[value] if isinstance(value, str) else float(value)


class Truth:
    """A run's folder."""

    def __init__(self, folder: Path) -> None:
        self.facts: dict[str, Any] = json.loads((folder / "environment.json").read_text())["run"]
        self.run_id: str = self.facts["run_id"]
        self.lines: list[dict[str, Any]] = [
            json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()
        ]
        self.outcome: dict[str, Any] = json.loads((folder / "outcome.json").read_text())
        self.rows = parquet.read_table(folder / "clients").to_pylist()
        self.over = len(self.lines)

    def at(self, metric: str, r: int) -> Values:
        """Return label sets and values of a metric in a round."""
        if r == self.over:
            found = self._outcome(metric)
        elif metric in ONE_OF_THE_RUN or metric in ("run_info", "engine_info", "client_examples"):
            found = self._run(metric)
        else:
            found = self._round(metric, r)
        return {key: value for key, value in found.items() if value is not None}

    def _run(self, metric: str) -> dict[Labels, float | None]:
        f = self.facts
        if metric == "run_info":
            keys = ("scenario", "algorithm", "version", "model", "engine", "data")
            words = {key: f[key] for key in keys} | {"seed": str(f["seed"])}
            study = f.get("study") or {}
            words |= {"study": study.get("name") or "", "arm": study.get("arm") or ""}
            return {labels(**words, partition=(f.get("data_facts") or {}).get("partition") or ""): 1.0}
        if metric == "engine_info":
            plan = f.get("engine_plan") or {}
            tile, compiled = plan.get("tile"), plan.get("compiled")
            words = {
                "tile": "" if tile is None else str(tile),
                "compiled": "" if compiled is None else str(compiled).lower(),
            }
            return {labels(engine=f["engine"], **words): 1.0}
        if metric == "client_examples":
            sizes = {"0": "smallest_client", "0.5": "median_client", "1": "largest_client"}
            return {labels(quantile=quantile): at(f, key) for quantile, key in sizes.items()}
        return {labels(): at(f, ONE_OF_THE_RUN[metric])}

    def _round(self, metric: str, r: int) -> dict[Labels, float | None]:
        line = self.lines[r]
        if metric in ONE_A_ROUND:
            fitted = metric == "rate_limit" and "rate" in line
            value = at(line, ONE_A_ROUND[metric])
            return {labels(): math.nan if fitted and value is None else value}
        if metric in LABELLED:
            label, paths = LABELLED[metric]
            return {labels(**{label: word}): at(line, path) for word, path in paths.items()}
        if metric.endswith("_distribution_bucket"):
            return self._counted(DISTRIBUTIONS[metric.removesuffix("_distribution_bucket")], r)
        if metric.removesuffix("_client") in RANKED:
            return self._ranked(metric, line)
        return {**OTHERWISE[metric](self, r)}

    def _ranked(self, metric: str, line: Mapping[str, Any]) -> dict[Labels, float | None]:
        what = "client" if metric.endswith("_client") else "value"
        found: Any = line
        for key in RANKED[metric.removesuffix("_client")].split("."):
            found = (found or {}).get(key)
        return {labels(rank=str(i)): number(one[what]) for i, one in enumerate(found or (), start=1)}

    def _counted(self, column: str, r: int) -> dict[Labels, float | None]:
        """Count clients so far at or below each edge, from their rows."""
        values = [row[column] for row in self.rows if row["round"] <= r]
        edges = EDGES[column]
        found: dict[Labels, float | None] = {
            labels(le=repr(edge)): float(sum(value <= edge for value in values)) for edge in edges
        }
        return found | {labels(le="+Inf"): float(len(values))}

    def _outcome(self, metric: str) -> dict[Labels, float | None]:
        if metric == "run_state":
            return {labels(state=state): float(state == self.outcome["outcome"]) for state in STATES}
        if metric == "run_condition":
            condition = self.outcome.get("condition")
            return {labels(condition=condition["kind"]): 1.0} if condition else {}
        baselines = self.outcome.get("baselines") or {}
        if metric == "pooled_score":
            return {labels(): number(baselines.get("pooled_accuracy", baselines.get("pooled_error")))}
        if metric == "alone_score":
            return {labels(statistic=s): number(baselines.get(f"local_only_{s}")) for s in ("mean", "worst")}
        best = self.outcome.get("best_model") or {}
        if metric == "best_validation_loss" and best.get("metric") != "validation_loss":
            return {}
        return {labels(): at(self.outcome, OF_THE_OUTCOME[metric])} if metric in OF_THE_OUTCOME else {}


def _so_far(key: str) -> Callable[[Truth, int], dict[Labels, float | None]]:
    return lambda x, r: {labels(): float(sum(line.get(key) or 0 for line in x.lines[: r + 1]))}


def _states(x: Truth, r: int) -> dict[Labels, float | None]:
    return {labels(state=state): float(state == "running") for state in STATES}


def _classes(x: Truth, r: int) -> dict[Labels, float | None]:
    return {labels(**{"class": str(i)}): number(v) for i, v in enumerate(x.lines[r].get("class_accuracy") or ())}


def _busy(x: Truth, r: int) -> dict[Labels, float | None]:
    seconds = (x.lines[r].get("workers") or {}).get("busy_seconds") or ()
    return {labels(worker=str(i)): number(v) for i, v in enumerate(seconds)}


def _criterion(key: str) -> Callable[[Truth, int], dict[Labels, float | None]]:
    return lambda x, r: {
        labels(criterion=name): number(status[key]) for name, status in (x.lines[r].get("criteria") or {}).items()
    }


def _criterion_state(x: Truth, r: int) -> dict[Labels, float | None]:
    found: dict[Labels, float | None] = {}
    for name, status in (x.lines[r].get("criteria") or {}).items():
        threshold = number(status["threshold"])
        measured = threshold is not None and math.isfinite(threshold)
        state = 3.0 if status["holds"] else 2.0 if status["held"] > 0 else 1.0 if measured else 0.0
        found[labels(criterion=name)] = state
    return found


def _overfitting(x: Truth, r: int) -> dict[Labels, float | None]:
    line = x.lines[r]
    return {labels(): float(bool(line.get("overfitting")))} if "gap" in (line.get("criteria") or {}) else {}


def _rate(x: Truth, r: int) -> dict[Labels, float | None]:
    rate = x.lines[r].get("rate")
    keys = {"low": "low", "estimate": "factor", "high": "high"}
    return {labels(bound=b): number(rate.get(key, "nan")) for b, key in keys.items()} if rate else {}


def _rounds_to_go(x: Truth, r: int) -> dict[Labels, float | None]:
    line = x.lines[r]
    if "rate" not in line:
        return {}
    left = line.get("rounds_to_go") or {}
    return {labels(bound=b): number(left.get(b, "nan")) for b in ("low", "estimate", "high")}


def _layers(key: str) -> Callable[[Truth, int], dict[Labels, float | None]]:
    return lambda x, r: {
        labels(layer=name): number(parts[key]) for name, parts in (x.lines[r].get("by_layer") or {}).items()
    }


def _by_name(section: str, label: str, key: str) -> Callable[[Truth, int], dict[Labels, float | None]]:
    return lambda x, r: {
        labels(**{label: name}): number(parts.get(key)) for name, parts in (x.lines[r].get(section) or {}).items()
    }


OF_THE_CITY = {
    "fault_changed_share": ("faults", "fault", "changed"), "fault_clients": ("faults", "fault", "clients"),
    "fault_effect": ("faults", "fault", "effect"), "concept_drift_level": ("concept_drift", "drift", "level"),
    "concept_drift_clients": ("concept_drift", "drift", "clients"),
    "district_respondents": ("districts", "district", "clients"),
    "district_train_loss": ("districts", "district", "train_loss"),
    "district_client_drift": ("districts", "district", "client_drift"),
    "district_changed_share": ("districts", "district", "changed"),
}  # fmt: skip
OTHERWISE: dict[str, Callable[[Truth, int], dict[Labels, float | None]]] = {
    "client_responses_total": _so_far("respondents"),
    "client_failures_total": _so_far("failures"),
    "run_state": _states,
    "class_accuracy_ratio": _classes,
    "worker_busy_seconds": _busy,
    "criterion_state": _criterion_state,
    **{f"criterion_{name}": _criterion(key) for name, key in CRITERIA.items()},
    "overfitting": _overfitting,
    **{name: _by_name(*where) for name, where in OF_THE_CITY.items()},
    "rate_factor": _rate,
    "rounds_to_go": _rounds_to_go,
    "layer_update_dispersion": _layers("update_dispersion"),
    "layer_pseudo_gradient_norm": _layers("aggregate_norm"),
    **{name: lambda x, r: {} for name in (*OF_THE_OUTCOME, "pooled_score", "alone_score", "run_condition")},
}
