"""The table of metrics for Prometheus, OpenMetrics files, TensorBoard and dashboards.

Names follow Prometheus' conventions: one prefix, base units, `_total` for counters, `_info` for facts. Label values are
bounded: no client and no round is ever a label. Every series also has `run_id`, and series with their own timestamps
have `clock`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from server.dispersion.histograms import EDGES
from server.metrics import readers as read

PREFIX = "fedscape_"
Kind = Literal["gauge", "counter", "histogram", "info"]
Source = Literal["run", "round", "outcome", "exporter"]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: without the prefix; a counter's ends in `_total`, facts in `_info`.
        kind: gauge, counter, histogram (`series_names` has the suffixes of its series) or info.
        help: one sentence.
        source: `run` (environment.json's `run`), `round` (a line of rounds.jsonl, with sums over the lines so far under
            `so_far`), `outcome` (outcome.json) or `exporter` (the exporting process; never in a record).
        key: dotted path in the source; empty for the whole source.
        reader: the value at `key` -> (label values, value); yields nothing where it was not measured.
        labels: names of the reader's labels.
        unit: base unit, with which the name ends; empty for a pure number.
        wall: whether it depends on the machine's clock, so that two equal runs differ in it.
        live: whether `/metrics` has it, which stays small; the other exporters have all metrics.
    """

    name: str
    kind: Kind
    help: str
    source: Source
    key: str
    reader: read.Reader = read.scalar
    labels: tuple[str, ...] = ()
    unit: str = ""
    wall: bool = False
    live: bool = True

    @cached_property
    def full_name(self) -> str:
        """The name of its series; for a histogram, without their suffixes."""
        return PREFIX + self.name

    @cached_property
    def path(self) -> tuple[str, ...]:
        """The key's parts."""
        return tuple(self.key.split(".")) if self.key else ()

    @property
    def edges(self) -> tuple[float, ...]:
        """A histogram's upper edges."""
        assert self.kind == "histogram"
        return EDGES[self.key.rpartition(".")[2]]


def _quantiles(name: str, key: str, what: str, *, live: bool = True) -> Metric:
    text = f"{what}: exact quantiles over clients."
    return Metric(name, "gauge", text, "round", key, read.levels, ("quantile",), live=live)


def _over_clients(name: str, key: str, what: str, *, live: bool = True, counts_live: bool = True) -> tuple[Metric, ...]:
    """Return quantiles, mean and, where `EDGES` has buckets, histogram of one value for each client."""
    found = [
        _quantiles(name, key, what, live=live),
        Metric(f"{name}_mean", "gauge", f"Unweighted mean of {name} over clients.", "round", key, read.mean,
               live=live),
    ]  # fmt: skip
    if key in EDGES:
        text, source = f"Participations of clients so far, by {name}.", f"so_far.{key}"
        found.append(
            Metric(
                f"{name}_distribution", "histogram", text, "round", source, read.histogram, ("le",), live=counts_live
            )
        )
    return tuple(found)


def _worst(name: str, key: str, what: str, *, live: bool = False) -> tuple[Metric, Metric]:
    """Return the values and the client indices of the worst clients by rank; 1 is the worst."""
    text = f"{what}, by rank; 1 is the worst."
    value = Metric(name, "gauge", text, "round", key, read.ranked("value"), ("rank",), live=live)
    index = f"Index of the client with that rank in {PREFIX}{name}."
    return value, Metric(f"{name}_client", "gauge", index, "round", key, read.ranked("client"), ("rank",), live=False)


def _criterion(name: str, what: str, key: str, *, live: bool = False) -> Metric:
    reader = read.criterion(key)
    return Metric(f"criterion_{name}", "gauge", what, "round", "criteria", reader, ("criterion",), live=live)


def _named(name: str, key: str, what: str, *, live: bool = True) -> Metric:
    """Return a number of each fault, drift or district; `samples.MOST` bounds their number."""
    section, _, part = key.partition(".")
    label = {"faults": "fault", "concept_drift": "drift", "districts": "district"}[section]
    return Metric(name, "gauge", what, "round", f"so_far.{section}", read.by_name(part), (label,), live=live)


_SPLITS = ("split",)
_BOUNDS = {"low": "low", "estimate": "factor", "high": "high"}

RUN: tuple[Metric, ...] = (
    Metric("run_info", "info", "Facts of the run.", "run", "", read.facts(
        scenario="scenario", algorithm="algorithm", seed="seed", version="version", model="model", engine="engine",
        data="data", partition="data_facts.partition", study="study.name", arm="study.arm"),
        ("scenario", "algorithm", "seed", "version", "model", "engine", "data", "partition", "study", "arm")),
    Metric("engine_info", "info", "The engine that trains clients; an empty tile means the whole cohort.", "run", "",
           read.facts(engine="engine", tile="engine_plan.tile", compiled="engine_plan.compiled"),
           ("engine", "tile", "compiled")),
    Metric("rounds_budget", "gauge", "Most rounds of the run.", "run", "rounds"),
    Metric("population_clients", "gauge", "Clients of the population.", "run", "clients"),
    Metric("population_examples", "gauge", "Training examples of all clients.", "run", "examples"),
    Metric("model_parameters", "gauge", "Trained parameters of the model.", "run", "parameters"),
    Metric("label_emd", "gauge", "Label skew, sum |p_k - p| (Zhao et al. 2018): 0 to 2.", "run",
           "label_emd"),
    Metric("label_js", "gauge", "Label skew, Jensen-Shannon in bits: 0 to 1.", "run",
           "label_js"),
    Metric("client_examples", "gauge", "Training examples of the smallest, the median and the largest client.",
           "run", "", read.named(**{"0": "smallest_client", "0.5": "median_client", "1": "largest_client"}),
           ("quantile",)),
)  # fmt: skip
"""Facts of a run, known before its first round."""

ROUND: tuple[Metric, ...] = (
    Metric("round", "gauge", "Newest finished round; 0 is the initial model.", "round", "round"),
    Metric("run_state", "gauge", "1 for the state of the run, 0 for the others.", "round", "", read.running,
           ("state",)),
    Metric("cohort", "gauge", "Clients in the cohort of this round.", "round", "cohort"),
    Metric("respondents", "gauge", "Clients that returned an update this round.", "round", "respondents"),
    Metric("failures", "gauge", "Clients that returned an error this round.", "round", "failures"),
    Metric("rejected", "gauge", "Clients whose update a check rejected this round, on nodes.", "round", "rejected"),
    Metric("late_replies", "gauge", "Replies to earlier rounds that came during this round, on nodes.", "round",
           "late_replies"),
    Metric("repeats", "gauge", "Messages of this round that were sent again, on nodes.", "round", "repeats"),
    Metric("client_responses_total", "counter", "Updates returned so far.", "round", "so_far.respondents"),
    Metric("client_failures_total", "counter", "Errors returned so far.", "round", "so_far.failures"),
    # losses and scores
    Metric("loss", "gauge", "Mean loss.", "round", "",
           read.named(train="train_loss", validation="validation_loss", federated="federated_loss", test="test_loss",
                      adapted="adapted_loss"),
           _SPLITS),
    Metric("objective", "gauge", "f(w) = sum p_k F_k(w) on all clients' training data, with penalties.", "round",
           "objective"),
    Metric("accuracy_ratio", "gauge", "Share of examples predicted correctly.", "round", "",
           read.named(validation="validation_accuracy", federated="federated_accuracy", test="test_accuracy",
                      adapted="adapted_accuracy"), _SPLITS,
           "ratio"),
    Metric("balanced_accuracy_ratio", "gauge", "Mean over classes of the share predicted correctly.", "round", "",
           read.named(validation="validation_balanced_accuracy", federated="federated_balanced_accuracy",
                      test="test_balanced_accuracy"), _SPLITS, "ratio"),
    Metric("macro_f1", "gauge", "Mean F1 over classes that are held or guessed.", "round", "",
           read.named(validation="validation_macro_f1", federated="federated_macro_f1", test="test_macro_f1"), _SPLITS,
           live=False),
    Metric("error", "gauge", "Share predicted wrongly, or root mean squared error of a regression.", "round", "",
           read.named(validation="validation_error", federated="federated_error", test="test_error",
                      adapted="adapted_error"), _SPLITS,
           live=False),
    Metric("mean_absolute_error", "gauge", "Mean absolute error of a regression.", "round", "",
           read.named(validation="validation_mae", federated="federated_mae", test="test_mae",
                      adapted="adapted_mae"), _SPLITS),
    Metric("frechet_distance", "gauge", "Squared Fréchet distance between a model's samples and real examples.",
           "round", "", read.named(validation="validation_frechet_distance", test="test_frechet_distance"), _SPLITS),
    Metric("sample_precision_ratio", "gauge", "Share of a model's samples that lie among real examples.", "round", "",
           read.named(validation="validation_sample_precision", test="test_sample_precision"), _SPLITS, "ratio"),
    Metric("sample_coverage_ratio", "gauge", "Share of real examples that have a sample nearby.", "round", "",
           read.named(validation="validation_sample_coverage", test="test_sample_coverage"), _SPLITS, "ratio"),
    Metric("sample_classes", "gauge", "Number of classes that a model's samples have.", "round", "",
           read.named(validation="validation_sample_classes", test="test_sample_classes"), _SPLITS),
    Metric("class_accuracy_ratio", "gauge", "Share of a class's validation examples predicted correctly.",
           "round", "class_accuracy", read.by_class, ("class",), "ratio", live=False),
    Metric("optimality_gap", "gauge", "f(x) - f*, where f* is known; f = sum p_k F_k of the data.", "round",
           "optimality_gap"),
    Metric("distance_to_optimum", "gauge", "|x - x*|, where x* is known.", "round", "distance_to_optimum"),
    Metric("train_errors", "gauge", "Training examples of the cohort predicted wrongly.", "round", "train_errors"),
    Metric("agreement_ratio", "gauge", "Share of predictions that this round did not change.", "round",
           "agreement", unit="ratio"),
    _quantiles("client_score", "client_spread.score", "Accuracy, or the error of a regression"),
    _quantiles("client_balanced_accuracy", "client_spread.balanced_accuracy", "Mean recall of a client's classes",
               live=False),
    _quantiles("client_loss", "client_spread.loss", "Loss of the model on a client's examples", live=False),
    Metric("client_score_variance", "gauge", "Variance of client_score over clients.", "round",
           "client_spread.variance", live=False),
    Metric("evaluated_clients", "gauge", "Clients counted in client_score.", "round", "client_spread.clients",
           live=False),
    *_worst("worst_client_score", "client_spread.worst", "Worst client_score"),
    # convergence
    _criterion("value", "Value of a convergence criterion.", "value"),
    _criterion("threshold", "Threshold of a convergence criterion.", "threshold"),
    _criterion("distance", "Distance of a criterion from being met; 0 is met.", "distance", live=True),
    _criterion("held_rounds", "Measured rounds in a row in which a criterion was met.", "held"),
    _criterion("needed_rounds", "Measured rounds in a row that a criterion needs to hold.", "needed"),
    Metric("criterion_state", "gauge", "0 not measured, 1 not met, 2 met, 3 met long enough: holds.",
           "round", "criteria", read.criterion_state, ("criterion",)),
    Metric("overfitting", "gauge", "1 where the criterion gap detects overfitting, else 0.", "round", "",
           read.overfitting),
    Metric("rate_factor", "gauge", "Factor per round of the loss above its limit; NaN without a trend.",
           "round", "rate", read.rate(_BOUNDS), ("bound",)),
    Metric("rate_limit", "gauge", "Fitted limit of the loss; NaN without a trend.", "round", "rate",
           read.rate({"": "limit"}), live=False),
    Metric("rounds_to_go", "gauge", "Rounds to the target at the fitted rate; NaN where unknown.", "round", "",
           read.rounds_to_go, ("bound",)),
    Metric("relative_change", "gauge", "Norm of the parameters' change divided by their norm.", "round",
           "relative_change"),
    Metric("pseudo_gradient_norm", "gauge", "Norm of the aggregate, as the server receives it.", "round",
           "pseudo_gradient_norm"),
    Metric("gradient_norm", "gauge", "Norm of the full gradient of the objective that the run minimises.", "round",
           "gradient_norm"),
    Metric("largest_gradient_norm", "gauge", "Largest norm of a client's local gradient this round.", "round",
           "largest_gradient_norm"),
    # client drift and dispersion
    *_over_clients("client_drift", "client_drift", "Mean squared distance of local steps from the broadcast model"),
    *_worst("top_client_drift", "worst_client_drift", "Largest client_drift", live=True),
    *_over_clients("update_norm", "update_norm", "Norm of a client's update", live=False),
    *_over_clients("update_cosine", "cosine", "Cosine of an update with the aggregate", counts_live=False),
    *_worst("lowest_update_cosine", "worst.cosine", "Lowest update_cosine"),
    *_over_clients("update_distance", "distance", "Distance of an update from the mean update"),
    *_worst("top_update_distance", "worst.distance", "Largest update_distance"),
    Metric("update_dispersion", "gauge", "Weighted mean squared update_distance.", "round",
           "update_dispersion"),
    Metric("gradient_diversity", "gauge", "Gradient diversity (Yin et al. 2018) of the weighted updates.", "round",
           "gradient_diversity"),
    Metric("gradient_dissimilarity", "gauge", "Mean squared distance of clients' gradients from their mean.",
           "round", "gradient_dissimilarity"),
    Metric("layer_update_dispersion", "gauge", "Part of each layer in update_dispersion.", "round", "by_layer",
           read.by_layer("update_dispersion"), ("layer",), live=False),
    Metric("layer_pseudo_gradient_norm", "gauge", "pseudo_gradient_norm by layer.", "round", "by_layer",
           read.by_layer("aggregate_norm", squared=True), ("layer",), live=False),
    # the data of this round
    _named("fault_changed_share", "faults.changed", "Share of the cohort's readings or labels that a fault changed."),
    _named("fault_clients", "faults.clients", "Clients of the cohort whose data a fault changed."),
    _named("fault_effect", "faults.effect", "A fault's own measure of its effect, mean over these clients."),
    _named("concept_drift_level", "concept_drift.level", "Level of a concept drift, 0 to 1, mean over the cohort."),
    _named("concept_drift_clients", "concept_drift.clients", "Clients of the cohort with a level above 0."),
    _named("district_respondents", "districts.clients", "Clients of a district that returned an update.", live=False),
    _named("district_train_loss", "districts.train_loss", "Mean training loss of its respondents.", live=False),
    _named("district_client_drift", "districts.client_drift", "Mean client drift of its respondents.", live=False),
    _named("district_changed_share", "districts.changed", "Share of its readings that faults changed.", live=False),
    # cost
    Metric("local_steps", "gauge", "Local steps of the cohort this round.", "round", "local_steps"),
    Metric("round_bytes", "gauge", "Bytes of arrays sent this round.", "round", "",
           read.named(down="bytes_down", up="bytes_up"), ("direction",), "bytes"),
    Metric("sent_bytes_total", "counter", "Bytes of arrays sent so far, both ways.", "round", "bytes_total",
           unit="bytes"),
    Metric("round_simulated_seconds", "gauge", "Simulated duration of this round.", "round", "simulated_seconds",
           unit="seconds"),
    Metric("simulated_seconds_total", "counter", "Simulated time so far.", "round", "simulated_seconds_total",
           unit="seconds"),
    Metric("round_wall_seconds", "gauge", "Wall time of this round.", "round", "wall_seconds", unit="seconds",
           wall=True),
    Metric("clients_per_second", "gauge", "Clients trained per second in this round.", "round", "clients_per_second",
           wall=True),
    Metric("worker_busy_seconds", "gauge", "Seconds of this round in which a worker process trained or evaluated; "
           "absent where there is one process.", "round",
           "workers.busy_seconds", read.by_position, ("worker",), unit="seconds", wall=True),
    Metric("worker_imbalance_ratio", "gauge", "Busy seconds of the busiest worker over their mean; 1 is balanced.",
           "round", "workers.imbalance", unit="ratio", wall=True),
    Metric("round_end_timestamp_seconds", "gauge", "End time of the newest round.", "round", "finished_at",
           unit="seconds", wall=True),
)  # fmt: skip
"""Metrics of one round. On `/metrics` a value that this round did not measure is the last measured one."""

OUTCOME: tuple[Metric, ...] = (
    Metric("run_state", "gauge", "1 for the state of the run, 0 for the others.", "outcome", "outcome", read.state,
           ("state",)),
    Metric("run_condition", "gauge", "1 for what happened in the run: converged, plateaued, improving, noise_floor, "
           "oscillating, diverging, overfitted, stuck, forgetting, too_short or unclear.", "outcome", "condition",
           read.kind, ("condition",)),
    Metric("best_round", "gauge", "Round of the best model by validation.", "outcome", "best_model.round",
           live=False),
    Metric("best_validation_loss", "gauge", "Validation loss of the best model, where that chose it.", "outcome",
           "best_model", read.best_loss, live=False),
    Metric("test_loss", "gauge", "Loss of the final model on the test examples.", "outcome", "test_loss"),
    Metric("test_accuracy_ratio", "gauge", "Share of test examples predicted correctly.", "outcome", "test_accuracy",
           unit="ratio"),
    Metric("test_balanced_accuracy_ratio", "gauge", "Mean over classes of the test share predicted correctly.",
           "outcome", "test_balanced_accuracy", unit="ratio", live=False),
    Metric("test_macro_f1", "gauge", "Mean F1 over classes on the test examples.", "outcome", "test_macro_f1",
           live=False),
    Metric("test_error", "gauge", "Share of test examples predicted wrongly, or root mean squared error.", "outcome",
           "test_error", live=False),
    Metric("test_mean_absolute_error", "gauge", "Mean absolute error on the test examples.", "outcome", "test_mae",
           live=False),
    Metric("test_frechet_distance", "gauge", "Squared Fréchet distance between samples and test examples.", "outcome",
           "test_frechet_distance", live=False),
    Metric("test_sample_precision_ratio", "gauge", "Share of samples that lie among the test examples.", "outcome",
           "test_sample_precision", unit="ratio", live=False),
    Metric("test_sample_coverage_ratio", "gauge", "Share of test examples that have a sample nearby.", "outcome",
           "test_sample_coverage", unit="ratio", live=False),
    Metric("test_sample_classes", "gauge", "Number of classes that samples have.", "outcome", "test_sample_classes",
           live=False),
    Metric("final_worst_client_score", "gauge", "Scores of the worst clients of the final model.", "outcome",
           "client_spread.worst", live=False),
    Metric("final_client_score_variance", "gauge", "Variance of the final model's score over clients.", "outcome",
           "client_spread.variance", live=False),
    Metric("target_rounds", "gauge", "Rounds until the target was reached and held.", "outcome", "to_target.rounds",
           live=False),
    Metric("target_bytes", "gauge", "Bytes sent until the target was reached.", "outcome", "to_target.bytes",
           unit="bytes", live=False),
    Metric("target_simulated_seconds", "gauge", "Simulated time until the target was reached.", "outcome",
           "to_target.simulated_seconds", unit="seconds", live=False),
    Metric("pooled_score", "gauge", "Test accuracy of pooled training at equal work, or root mean squared error.",
           "outcome", "baselines", read.either("pooled_accuracy", "pooled_error"), live=False),
    Metric("alone_score", "gauge", "Test accuracy of clients that train alone, or root mean squared error.",
           "outcome", "baselines", read.named(mean="local_only_mean", worst="local_only_worst"), ("statistic",),
           live=False),
    Metric("weight_divergence", "gauge", "|w - w_pooled| / |w_pooled| (Zhao et al. 2018).", "outcome",
           "baselines.weight_divergence", live=False),
)  # fmt: skip
"""Metrics of the outcome of a run."""

EXPORTER: tuple[Metric, ...] = (
    Metric("exporter_samples_sent_total", "counter", "Samples that the sink accepted.", "exporter", "sent", read.each,
           ("sink",)),
    Metric("exporter_samples_refused_total", "counter", "Samples that the sink refused; the record still has them.",
           "exporter", "refused", read.each, ("sink",)),
    Metric("exporter_rounds_dropped_total", "counter", "Rounds dropped without being sent; the record still has them.",
           "exporter", "dropped", read.each, ("sink",)),
    Metric("exporter_failed_requests_total", "counter", "Requests without an answer, or answered with an error.",
           "exporter", "failed", read.each, ("sink",)),
    Metric("exporter_queue_rounds", "gauge", "Rounds waiting to be sent.", "exporter", "waiting", read.each,
           ("sink",)),
    Metric("exporter_resident_memory_bytes", "gauge", "Resident memory of the process.", "exporter", "memory",
           unit="bytes"),
)  # fmt: skip
"""Metrics of the exporters, on `/metrics` only."""

METRICS: Mapping[str, Metric] = {m.full_name: m for m in (*RUN, *ROUND, *OUTCOME, *EXPORTER)}
"""Every metric by its full name; `run_state` comes from the rounds, and at the end from the outcome."""


def series_names(metric: Metric) -> tuple[str, ...]:
    """Return the names of a metric's series, for queries.

    A histogram with buckets below 0 has no sum, which could decrease, and then OpenMetrics allows no count.

    Example:
        >>> series_names(METRICS["fedscape_update_distance_distribution"])[2]
        'fedscape_update_distance_distribution_count'
        >>> series_names(METRICS["fedscape_update_cosine_distribution"])
        ('fedscape_update_cosine_distribution_bucket',)
    """
    if metric.kind != "histogram":
        return (metric.full_name,)
    suffixes = ("_bucket", "_sum", "_count") if metric.edges[0] >= 0 else ("_bucket",)
    return tuple(metric.full_name + suffix for suffix in suffixes)
