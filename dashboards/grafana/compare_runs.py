"""Which of several runs is better: by rounds, by bytes, by simulated time, and in the end?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as board

from dashboards.grafana.convergence import COLUMNS, FOCUSED
from dashboards.grafana.frame import Row, runs_dashboard
from dashboards.grafana.panels import trend_panel
from dashboards.grafana.parts import Ask
from dashboards.grafana.promql import a_run, last, runs
from dashboards.grafana.tables import against_panel, table_panel


def compare_runs() -> board.Dashboard:
    """Return the dashboard."""
    why = "Chosen runs over each other: loss, score and drift by round, bytes and simulated time, and a final table."
    rows = [_by_round(), _by_cost(), _final(), _cost()]
    return runs_dashboard("fedscape-compare-runs", "Compare runs", why, rows, focus=False, annotated=False)


def _by_round() -> Row:
    x = runs("round")
    return Row("Round by round", (
        trend_panel("Validation loss", "Runs overlaid on the round axis, whenever they ran; a line ends with its run.",
                    [Ask(runs("loss", split="validation"))], x=x, height=11),
        trend_panel("Validation accuracy", "Share of held-out examples predicted right.",
                    [Ask(runs("accuracy_ratio", split="validation"))], x=x, unit="percentunit", height=11),
        trend_panel("Client drift", "Mean over the clients of the round.", [Ask(runs("client_drift_mean"))], x=x),
        trend_panel("Loss on clients", "Mean loss on the clients' own examples; measured where a scenario asks for it.",
                    [Ask(runs("loss", split="federated"))], x=x),
    ))  # fmt: skip


def _by_cost() -> Row:
    loss = Ask(a_run(runs("loss", split="validation")), "validation loss")
    score = Ask(a_run(runs("accuracy_ratio", split="validation")), "validation accuracy")
    sent = Ask(a_run(runs("sent_bytes_total")), "bytes sent", "bytes")
    spent = Ask(a_run(runs("simulated_seconds_total")), "simulated time", "s")
    return Row("For the same cost", (
        against_panel("Loss against bytes", "Bytes of arrays sent both ways until then: the lower line got more out of "
                      "the same traffic.", sent, loss, height=11),
        against_panel("Accuracy against bytes", "The same for the score.", sent, score, unit="percentunit", height=11),
        against_panel("Loss against simulated time", "Until then, by the fleet's compute and bandwidth.", spent, loss),
        against_panel("Accuracy against simulated time", "The same for the score.", spent, score, unit="percentunit"),
    ))  # fmt: skip


def _final() -> Row:
    def number(metric: str, heading: str, unit: str = "", decimals: int | None = None, **labels: str) -> Ask:
        return Ask(a_run(last(runs(metric, **labels))), heading, unit, decimals)

    asks = [
        Ask(f"max by (run_id, scenario, algorithm, seed) ({last(runs('run_info'))})", ""),
        Ask(f"max by (run_id, state) ({last(runs('run_state'))}) == 1", ""),
        number("round", "Rounds"),
        number("test_accuracy_ratio", "Test accuracy", "percentunit", 1),
        number("test_balanced_accuracy_ratio", "Balanced accuracy", "percentunit", 1),
        number("test_macro_f1", "Macro-F1", decimals=3),
        number("test_loss", "Test loss", decimals=4),
        number("test_error", "Test error", decimals=4),
        number("test_mean_absolute_error", "Test absolute error", decimals=4),
        number("final_worst_client_score", "Worst client", decimals=3),
        number("final_client_score_variance", "Variance over clients", decimals=4),
        number("target_rounds", "Rounds to target"),
        number("target_bytes", "Bytes to target", "bytes"),
        number("target_simulated_seconds", "Time to target", "s"),
        number("pooled_score", "Pooled training", decimals=3),
        number("alone_score", "Alone, on average", decimals=3, statistic="mean"),
        number("alone_score", "Alone, worst", decimals=3, statistic="worst"),
        number("weight_divergence", "Weight divergence", decimals=3),
        number("sent_bytes_total", "Bytes sent", "bytes"),
        number("simulated_seconds_total", "Simulated time", "s"),
    ]
    why = (
        "What each run came to: the final model on the test examples, its worst client, what it took to the target, "
        "pooled training and training alone beside it. Click a run to look at it closely."
    )
    return Row("In the end", (table_panel("Results", why, asks, renamed=COLUMNS, links=FOCUSED, height=12),))


def _cost() -> Row:
    x = runs("round")
    return Row("What a round cost", (
        trend_panel("Bytes a round, up", "Sent by the clients of the round.",
                    [Ask(runs("round_bytes", direction="up"))], x=x, unit="bytes", width=8),
        trend_panel("Bytes a round, down", "Sent to the clients of the round.",
                    [Ask(runs("round_bytes", direction="down"))], x=x, unit="bytes", width=8),
        trend_panel("Simulated seconds a round", "A round lasts as long as its slowest client.",
                    [Ask(runs("round_simulated_seconds"))], x=x, unit="s", width=8),
        trend_panel("Local steps a round", "Optimiser steps of all clients of the round.", [Ask(runs("local_steps"))],
                    x=x, width=12),
        trend_panel("Wall seconds a round", "Time the simulation took here; depends on the machine and its load.",
                    [Ask(runs("round_wall_seconds"))], x=x, unit="s", width=12),
    ))  # fmt: skip
