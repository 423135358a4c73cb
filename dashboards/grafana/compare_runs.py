"""The dashboard Compare runs: by round, by bytes, by simulated time, and final results."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as board

from dashboards.grafana.convergence import COLUMNS, FOCUSED
from dashboards.grafana.frame import Row, runs_dashboard
from dashboards.grafana.panels import trend_panel
from dashboards.grafana.parts import Query
from dashboards.grafana.promql import GROUP, a_run, last, over_seeds, runs
from dashboards.grafana.tables import against_panel, table_panel


def compare_runs() -> board.Dashboard:
    """Return the dashboard."""
    why = (
        "The selected runs overlaid: loss, score and drift by round, bytes and simulated time, a table of results, and "
        "medians over seeds."
    )
    rows = [_by_round(), _by_cost(), _final(), _over_seeds(), _cost()]
    return runs_dashboard("fedscape-compare-runs", "Compare runs", why, rows, focus=False, annotated=False)


def _by_round() -> Row:
    x = runs("round")
    return Row("Round by round", (
        trend_panel("Validation loss", "Runs overlaid by round; a line ends where its run ended.",
                    [Query(runs("loss", split="validation"))], x=x, height=11),
        trend_panel("Validation accuracy", "Share of validation examples predicted right.",
                    [Query(runs("accuracy_ratio", split="validation"))], x=x, unit="percentunit", height=11),
        trend_panel("Client drift", "Mean over the clients of the round.", [Query(runs("client_drift_mean"))], x=x),
        trend_panel("Loss on the clients", "Mean loss on the clients' own examples, in the rounds that measure it.",
                    [Query(runs("loss", split="federated"))], x=x),
    ))  # fmt: skip


def _by_cost() -> Row:
    loss = Query(a_run(runs("loss", split="validation")), "validation loss")
    score = Query(a_run(runs("accuracy_ratio", split="validation")), "validation accuracy")
    sent = Query(a_run(runs("sent_bytes_total")), "bytes sent", "bytes")
    spent = Query(a_run(runs("simulated_seconds_total")), "simulated time", "s")
    return Row("By cost", (
        against_panel("Loss against bytes", "Validation loss by the total size of the arrays sent, both ways: lower is "
                      "better for the same traffic.", sent, loss, height=11),
        against_panel("Accuracy against bytes", "Validation accuracy by total bytes sent.", sent, score,
                      unit="percentunit", height=11),
        against_panel("Loss against simulated time", "By the fleet's compute speed and bandwidth.", spent, loss),
        against_panel("Accuracy against simulated time", "Validation accuracy by simulated time.", spent, score,
                      unit="percentunit"),
    ))  # fmt: skip


def _final() -> Row:
    def number(metric: str, heading: str, unit: str = "", decimals: int | None = None, **labels: str) -> Query:
        return Query(a_run(last(runs(metric, **labels))), heading, unit, decimals)

    queries = [
        Query(f"max by (run_id, {GROUP}, seed) ({last(runs('run_info'))})", ""),
        Query(f"max by (run_id, state) ({last(runs('run_state'))}) == 1", ""),
        number("round", "Rounds"),
        number("test_accuracy_ratio", "Test accuracy", "percentunit", 1),
        number("test_balanced_accuracy_ratio", "Balanced accuracy", "percentunit", 1),
        number("test_macro_f1", "Macro-F1", decimals=3),
        number("test_loss", "Test loss", decimals=4),
        number("test_error", "Test error", decimals=4),
        number("test_mean_absolute_error", "Test absolute error", decimals=4),
        number("test_frechet_distance", "Fréchet distance", decimals=3),
        number("test_sample_precision_ratio", "Precision of samples", "percentunit", 1),
        number("test_sample_coverage_ratio", "Coverage by samples", "percentunit", 1),
        number("test_sample_classes", "Classes of samples", decimals=0),
        number("final_worst_client_score", "Worst client", decimals=3),
        number("final_client_score_variance", "Variance over clients", decimals=4),
        number("target_rounds", "Rounds to target"),
        number("target_bytes", "Bytes to target", "bytes"),
        number("target_simulated_seconds", "Time to target", "s"),
        number("pooled_score", "Pooled training", decimals=3),
        number("alone_score", "Alone, mean", decimals=3, statistic="mean"),
        number("alone_score", "Alone, worst", decimals=3, statistic="worst"),
        number("weight_divergence", "Weight divergence", decimals=3),
        number("sent_bytes_total", "Bytes sent", "bytes"),
        number("simulated_seconds_total", "Simulated time", "s"),
    ]
    why = (
        "The results of each run: the final model on the test examples, its worst client, the cost to the target, "
        "beside pooled training and training alone. A run that ended without a cost to the target missed it, or had "
        "none. Click a run to see its details."
    )
    return Row("Results", (table_panel("Final results", why, queries, renamed=COLUMNS, links=FOCUSED, height=12),))


def _over_seeds() -> Row:
    x, group = runs("round"), "{{algorithm}} · {{scenario}} {{arm}}"
    loss, score = runs("loss", split="validation"), runs("accuracy_ratio", split="validation")

    def spread(selector: str) -> list[Query]:
        info = runs("run_info")
        return [Query(over_seeds(level, selector, info), f"{group} {level:.0%}") for level in (0.1, 0.9)]

    def final(level: float, metric: str, heading: str, unit: str = "", decimals: int | None = None) -> Query:
        return Query(over_seeds(level, last(runs(metric)), last(runs("run_info"))), heading, unit, decimals)

    why = (
        "The runs of an arm of a study are one row. Other runs are one row if scenario and algorithm are the same, "
        "whatever their other keys: choose runs above so that they differ in their seeds alone. A study's own page "
        "pairs runs by seed and counts runs that missed their target; these quantiles leave them out."
    )
    table = [
        Query(f"count by ({GROUP}) ({last(runs('run_info'))})", "Runs"),
        final(0.5, "test_accuracy_ratio", "Test accuracy, median", "percentunit", 1),
        final(0.1, "test_accuracy_ratio", "Test accuracy, 10%", "percentunit", 1),
        final(0.9, "test_accuracy_ratio", "Test accuracy, 90%", "percentunit", 1),
        final(0.5, "test_error", "Test error, median", decimals=4),
        final(0.5, "target_rounds", "Rounds to target, median", decimals=1),
        final(0.1, "target_rounds", "Rounds to target, 10%", decimals=1),
        final(0.9, "target_rounds", "Rounds to target, 90%", decimals=1),
        final(0.5, "target_bytes", "Bytes to target, median", "bytes"),
        final(0.5, "target_simulated_seconds", "Time to target, median", "s"),
    ]
    median = "Median over the runs of an arm of a study, or with the same scenario and algorithm."
    ends = "10% and 90% of the runs of an arm of a study, or with the same scenario and algorithm."
    return Row("Over seeds", (
        trend_panel("Validation loss, median", median, [Query(over_seeds(0.5, loss, runs("run_info")), group)], x=x),
        trend_panel("Validation accuracy, median", median, [Query(over_seeds(0.5, score, runs("run_info")), group)],
                    x=x, unit="percentunit"),
        trend_panel("Validation loss, 10% and 90%", ends, spread(loss), x=x),
        trend_panel("Validation accuracy, 10% and 90%", ends, spread(score), x=x, unit="percentunit"),
        table_panel("Results over seeds", why, table, key="algorithm", renamed=COLUMNS, height=8),
    ))  # fmt: skip


def _cost() -> Row:
    x = runs("round")
    return Row("Cost of a round", (
        trend_panel("Bytes per round, up", "Sent by the clients of the round.",
                    [Query(runs("round_bytes", direction="up"))], x=x, unit="bytes", width=8),
        trend_panel("Bytes per round, down", "Sent to the clients of the round.",
                    [Query(runs("round_bytes", direction="down"))], x=x, unit="bytes", width=8),
        trend_panel("Simulated seconds per round", "A round lasts as long as its slowest client.",
                    [Query(runs("round_simulated_seconds"))], x=x, unit="s", width=8),
        trend_panel("Local steps per round", "Optimiser steps of all clients of the round.",
                    [Query(runs("local_steps"))], x=x, width=12),
        trend_panel("Wall seconds per round", "Wall time of the simulation; depends on the machine and its load.",
                    [Query(runs("round_wall_seconds"))], x=x, unit="s", width=12),
    ))  # fmt: skip
