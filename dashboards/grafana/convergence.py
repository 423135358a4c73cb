"""Has it converged, how fast, and what is still missing?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as board

from dashboards.grafana.frame import Row, runs_dashboard
from dashboards.grafana.panels import Band, number_panel, series_panel, states_panel, trend_panel
from dashboards.grafana.parts import Ask
from dashboards.grafana.promql import a_run, focus, last, runs
from dashboards.grafana.tables import table_panel

CRITERION_STATES = {
    0: ("not measured yet", "text"),
    1: ("not met", "red"),
    2: ("met, not yet for long enough", "yellow"),
    3: ("holds", "green"),
}
YES_NO = {0: ("no", "green"), 1: ("yes", "orange")}
COLUMNS = {"run_id": "Run", "scenario": "Scenario", "algorithm": "Algorithm", "seed": "Seed", "state": "State"}
FOCUSED = {"Run": "/d/fedscape-convergence?var-focus=${__value.raw}&var-run=${__value.raw}&${__url_time_range}"}


def convergence() -> board.Dashboard:
    """Return the dashboard."""
    why = (
        "How losses and scores go round by round, which criteria hold, how fast the loss nears its limit, the verdict."
    )
    rows = [_verdict(), _losses(), _criteria(), _rate(), _movement()]
    return runs_dashboard("fedscape-convergence", "Convergence", why, rows)


def _verdict() -> Row:
    asks = [
        Ask(f"max by (run_id, scenario, algorithm, seed) ({last(runs('run_info'))})", ""),
        Ask(f"max by (run_id, state) ({last(runs('run_state'))}) == 1", ""),
        Ask(a_run(last(runs("round"))), "Rounds"),
        Ask(a_run(last(runs("loss", split="validation"))), "Validation loss", decimals=4),
        Ask(a_run(last(runs("accuracy_ratio", split="validation"))), "Validation accuracy", "percentunit", 1),
        Ask(a_run(last(runs("target_rounds"))), "Rounds to target"),
    ]
    why = "How each chosen run ended, and where it stood. Click a run to look at it closely."
    return Row("Verdict", (table_panel("Verdicts", why, asks, renamed=COLUMNS, links=FOCUSED),))


def _losses() -> Row:
    x = runs("round")
    gap = "Distance of the training objective from its known optimum; drawn only where the scenario knows it."
    return Row("Loss and score", (
        trend_panel("Validation loss", "Mean loss on held-out examples after each round; round 0 is the initial model.",
                    [Ask(runs("loss", split="validation"))], x=x),
        trend_panel("Validation accuracy", "Share of held-out examples predicted right; absent for a regression.",
                    [Ask(runs("accuracy_ratio", split="validation"))], x=x, unit="percentunit", low=0, high=1),
        trend_panel("Training loss", "Mean loss of local training, over the clients of the round.",
                    [Ask(runs("loss", split="train"))], x=x),
        trend_panel("Optimality gap", gap, [Ask(runs("optimality_gap"))], x=x, scale="log"),
        series_panel("Loss with what happened", "Validation loss on a time axis (a second is a round), where verdicts, "
                     "jumps of drift and pushed words are marked.", [Ask(runs("loss", split="validation"))], width=24),
        trend_panel("Error", "Share predicted wrong, or a regression's root mean squared error, on held-out examples.",
                    [Ask(runs("error", split="validation"))], x=x),
        trend_panel("Mean absolute error", "Of a regression, on held-out examples.",
                    [Ask(runs("mean_absolute_error", split="validation"))], x=x),
    ))  # fmt: skip


def _criteria() -> Row:
    x = focus("round")
    named = "{{criterion}}"
    states = states_panel("Criteria of $focus", "When each criterion of the run looked at closely was met, and held.",
                          Ask(focus("criterion_state"), named), CRITERION_STATES)  # fmt: skip
    return Row("Criteria of the run looked at closely", (
        states,
        trend_panel("Distance to being met", "How far each criterion is from its threshold, relative to it; 0 is met.",
                    [Ask(focus("criterion_distance"), named)], x=x, low=0),
        trend_panel("Held", "Measured rounds in a row in which each was met, and (dots) how many it takes to hold.",
                    [Ask(focus("criterion_held_rounds"), named),
                     Ask(focus("criterion_needed_rounds"), "{{criterion}} needs")],
                    x=x, unit="none", points=(".* needs",), low=0),
        trend_panel("What each looks at", "A criterion's value, and (dots) the threshold it is compared with.",
                    [Ask(focus("criterion_value"), named),
                     Ask(focus("criterion_threshold"), "{{criterion}} threshold")],
                    x=x, points=(".* threshold",)),
        number_panel("Overfitting", "Whether the criterion `gap` sees validation loss part from training loss.",
                     Ask(focus("overfitting"), "overfitting"), states=YES_NO, width=6, height=9),
        number_panel("Round", "Newest round of the run looked at closely.", Ask(focus("round"), "round"),
                     width=3, height=9),
        number_panel("Budget", "Rounds it may take.", Ask(last(focus("rounds_budget")), "rounds"), width=3, height=9),
    ))  # fmt: skip


def _rate() -> Row:
    x = focus("round")
    bounds = "{{bound}}"
    return Row("Rate of the run looked at closely", (
        trend_panel("Factor a round", "By which factor the loss nears its limit each round, with its 90% interval; "
                    "a gap is a fit that found no trend.", [Ask(focus("rate_factor"), bounds)], x=x,
                    bands=(Band("high", "low"),), low=0, high=1),
        trend_panel("Rounds to go", "Rounds to the target by that rate, with the ends of the interval; absent "
                    "without a target.", [Ask(focus("rounds_to_go"), bounds)], x=x, bands=(Band("high", "low"),),
                    low=0),
        trend_panel("Loss and its fitted limit", "The limit that the newest fit expects the loss to approach.",
                    [Ask(focus("loss", split="validation"), "validation loss"), Ask(focus("rate_limit"), "limit")],
                    x=x),
        trend_panel("Factor of every run", "The estimate alone, so that runs compare: lower is faster.",
                    [Ask(runs("rate_factor", bound="estimate"))], x=runs("round"), low=0, high=1),
    ))  # fmt: skip


def _movement() -> Row:
    x = runs("round")
    return Row("Is it still moving?", (
        trend_panel("Relative change", "Norm of the parameters' change over their norm: what `settled` looks at.",
                    [Ask(runs("relative_change"))], x=x, scale="log"),
        trend_panel("Pseudo-gradient norm", "Norm of the aggregated update, server minus client.",
                    [Ask(runs("pseudo_gradient_norm"))], x=x, scale="log"),
        trend_panel("Gradient norm", "Of the true training loss at the broadcast model; measured where asked for.",
                    [Ask(runs("gradient_norm"))], x=x, scale="log"),
        trend_panel("Agreement", "Share of probe predictions unchanged since the round before.",
                    [Ask(runs("agreement_ratio"))], x=x, unit="percentunit", high=1),
        trend_panel("Largest local gradient", "Largest norm of any client's gradient in the round: it leaps before "
                    "a run diverges.", [Ask(runs("largest_gradient_norm"))], x=x, scale="log"),
        trend_panel("Training errors", "Examples of the cohort that local training predicted wrong.",
                    [Ask(runs("train_errors"))], x=x, low=0),
    ))  # fmt: skip
