"""The dashboard Convergence: losses, scores, criteria, rate, verdicts."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as board

from dashboards.grafana.frame import Row, runs_dashboard
from dashboards.grafana.panels import Band, number_panel, series_panel, states_panel, trend_panel
from dashboards.grafana.parts import Query
from dashboards.grafana.promql import GROUP, a_run, focus, last, runs
from dashboards.grafana.tables import table_panel

CRITERION_STATES = {
    0: ("not measured yet", "text"),
    1: ("not met", "red"),
    2: ("met, not yet for long enough", "yellow"),
    3: ("holds", "green"),
}
YES_NO = {0: ("no", "green"), 1: ("yes", "orange")}
COLUMNS = {"run_id": "Run", "scenario": "Scenario", "algorithm": "Algorithm", "study": "Study", "arm": "Arm",
           "seed": "Seed", "state": "State", "condition": "Condition"}  # fmt: skip
FOCUSED = {"Run": "/d/fedscape-convergence?var-focus=${__value.raw}&var-run=${__value.raw}&${__url_time_range}"}


def convergence() -> board.Dashboard:
    """Return the dashboard."""
    why = (
        "Losses and scores by round, the state of each criterion, the rate of convergence, and the verdict of each run."
    )
    rows = [_verdict(), _losses(), _criteria(), _rate(), _movement()]
    return runs_dashboard("fedscape-convergence", "Convergence", why, rows)


def _verdict() -> Row:
    queries = [
        Query(f"max by (run_id, {GROUP}, seed) ({last(runs('run_info'))})", ""),
        Query(f"max by (run_id, state) ({last(runs('run_state'))}) == 1", ""),
        Query(f"max by (run_id, condition) ({last(runs('run_condition'))})", ""),
        Query(a_run(last(runs("round"))), "Rounds"),
        Query(a_run(last(runs("best_round"))), "Best round"),
        Query(a_run(last(runs("best_validation_loss"))), "Best validation loss", decimals=4),
        Query(a_run(last(runs("loss", split="validation"))), "Validation loss", decimals=4),
        Query(a_run(last(runs("accuracy_ratio", split="validation"))), "Validation accuracy", "percentunit", 1),
        Query(a_run(last(runs("target_rounds"))), "Rounds to target"),
    ]
    why = (
        "How each selected run ended, what happened in it, and its last values. A run that ended without rounds to the "
        "target missed it, or had none. Click a run to see its details."
    )
    return Row("Verdict", (table_panel("Verdicts", why, queries, renamed=COLUMNS, links=FOCUSED),))


def _losses() -> Row:
    x = runs("round")
    gap = "Distance of the data's objective from its optimum, where the optimum is known."
    return Row("Loss and score", (
        trend_panel("Validation loss", "Mean loss on the validation examples after each round; round 0 is the initial "
                    "model.", [Query(runs("loss", split="validation"))], x=x),
        trend_panel("Validation accuracy", "Share of validation examples predicted right; absent for a regression.",
                    [Query(runs("accuracy_ratio", split="validation"))], x=x, unit="percentunit", low=0, high=1),
        trend_panel("Training loss", "Mean loss during local training over the clients of the round.",
                    [Query(runs("loss", split="train"))], x=x),
        trend_panel("Global objective", "Weighted training loss of all clients with penalties, in the rounds that "
                    "measure it.", [Query(runs("objective"))], x=x),
        trend_panel("Test loss", "Mean loss on the central test examples, in the rounds that measure it. No criterion "
                    "looks at it.", [Query(runs("loss", split="test"))], x=x),
        trend_panel("Optimality gap", gap, [Query(runs("optimality_gap"))], x=x, scale="log"),
        series_panel("Loss with events", "Validation loss on a time axis (one second is one round), with marks for "
                     "verdicts, "
                     "jumps of client drift and pushed notes.", [Query(runs("loss", split="validation"))], width=24),
        trend_panel("Error", "Share of validation examples predicted wrong, or the root mean squared error of a "
                    "regression.", [Query(runs("error", split="validation"))], x=x),
        trend_panel("Mean absolute error", "Of a regression, on the validation examples.",
                    [Query(runs("mean_absolute_error", split="validation"))], x=x),
        trend_panel("Fréchet distance of samples", "Squared distance between the Gaussians of a generator's samples "
                    "and of validation examples.", [Query(runs("frechet_distance", split="validation"))], x=x,
                    scale="log"),
        trend_panel("Precision of samples", "Share of a generator's samples that lie among validation examples.",
                    [Query(runs("sample_precision_ratio", split="validation"))], x=x, unit="percentunit", low=0,
                    high=1),
        trend_panel("Coverage by samples", "Share of validation examples that have a sample nearby.",
                    [Query(runs("sample_coverage_ratio", split="validation"))], x=x, unit="percentunit", low=0,
                    high=1),
        trend_panel("Classes among samples", "Number of classes that a generator's samples have.",
                    [Query(runs("sample_classes", split="validation"))], x=x, low=0),
        trend_panel("Distance to the optimum", "Distance of the parameters from the minimiser, where it is known.",
                    [Query(runs("distance_to_optimum"))], x=x, scale="log"),
    ))  # fmt: skip


def _criteria() -> Row:
    x = focus("round")
    named = "{{criterion}}"
    states = states_panel("Criteria of $focus", "The state of each criterion of the selected run by round.",
                          Query(focus("criterion_state"), named), CRITERION_STATES)  # fmt: skip
    return Row("Criteria of the selected run", (
        states,
        trend_panel("Distance of each criterion", "Distance of a criterion from its condition, relative to its "
                    "threshold; 0: met.", [Query(focus("criterion_distance"), named)], x=x, low=0),
        trend_panel("Rounds held", "Measured rounds in a row in which each criterion was met, and (dots) the number "
                    "it needs.", [Query(focus("criterion_held_rounds"), named),
                     Query(focus("criterion_needed_rounds"), "{{criterion}} needs")],
                    x=x, unit="none", points=(".* needs",), low=0),
        trend_panel("Value and threshold", "A criterion's value, and (dots) the threshold it is compared with.",
                    [Query(focus("criterion_value"), named),
                     Query(focus("criterion_threshold"), "{{criterion}} threshold")],
                    x=x, points=(".* threshold",)),
        number_panel("Overfitting", "Whether validation loss rises while training loss falls, by the criterion `gap`.",
                     Query(focus("overfitting"), "overfitting"), states=YES_NO, width=6, height=9),
        number_panel("Round", "Newest round of the selected run.", Query(focus("round"), "round"),
                     width=3, height=9),
        number_panel("Budget", "Most rounds of the run.", Query(last(focus("rounds_budget")), "rounds"), width=3,
                     height=9),
    ))  # fmt: skip


def _rate() -> Row:
    x = focus("round")
    bounds = "{{bound}}"
    return Row("Rate of the selected run", (
        trend_panel("Factor per round", "The factor by which a round shrinks the loss's distance to its limit, with "
                    "its 90% interval; a gap is a fit without a trend.", [Query(focus("rate_factor"), bounds)], x=x,
                    bands=(Band("high", "low"),), low=0, high=1),
        trend_panel("Rounds to go", "Rounds to the target at that rate, with the ends of the interval; absent "
                    "without a target.", [Query(focus("rounds_to_go"), bounds)], x=x, bands=(Band("high", "low"),),
                    low=0),
        trend_panel("Loss and its fitted limit", "Validation loss, and the limit of the newest fit.",
                    [Query(focus("loss", split="validation"), "validation loss"), Query(focus("rate_limit"), "limit")],
                    x=x),
        trend_panel("Factor of every run", "The estimate of each run: lower is faster.",
                    [Query(runs("rate_factor", bound="estimate"))], x=runs("round"), low=0, high=1),
    ))  # fmt: skip


def _movement() -> Row:
    x = runs("round")
    return Row("Movement of the parameters", (
        trend_panel("Relative change", "Norm of the parameters' change over their norm, which the criterion `settled` "
                    "uses.", [Query(runs("relative_change"))], x=x, scale="log"),
        trend_panel("Pseudo-gradient norm", "Norm of the aggregated update, server minus client.",
                    [Query(runs("pseudo_gradient_norm"))], x=x, scale="log"),
        trend_panel("Gradient norm", "Of the objective that the run minimises, at the broadcast model, in the rounds "
                    "that measure it.",
                    [Query(runs("gradient_norm"))], x=x, scale="log"),
        trend_panel("Agreement", "Share of probe predictions unchanged since the round before.",
                    [Query(runs("agreement_ratio"))], x=x, unit="percentunit", high=1),
        trend_panel("Largest local gradient", "Largest norm of a client's gradient in the round. It jumps before "
                    "a run diverges.", [Query(runs("largest_gradient_norm"))], x=x, scale="log"),
        trend_panel("Training errors", "Number of the cohort's training examples that are predicted wrong.",
                    [Query(runs("train_errors"))], x=x, low=0),
    ))  # fmt: skip
