"""Is what runs now well: does it move, do clients answer, do the sinks take what they are sent?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as board

from dashboards.grafana.convergence import COLUMNS
from dashboards.grafana.frame import Row, live_dashboard
from dashboards.grafana.panels import series_panel
from dashboards.grafana.parts import Ask
from dashboards.grafana.promql import a_run, live
from dashboards.grafana.tables import table_panel

BY_SINK = "{{sink}} of {{run_id}}"


def federation_health() -> board.Dashboard:
    """Return the dashboard."""
    why = "Runs that are going on, on wall time: rounds a second, respondents, failures, memory, and the sinks."
    rows = [_now(), _progress(), _clients(), _machine(), _sinks()]
    return live_dashboard("fedscape-federation-health", "Federation health", why, rows)


def _now() -> Row:
    facts = "run_id, scenario, algorithm, seed"
    asks = [
        Ask(f"max by ({facts}) ({live('run_info')})", ""),
        Ask(f"max by (run_id, state) ({live('run_state')}) == 1", ""),
        Ask(f"max by (run_id, engine, tile, compiled) ({live('engine_info')})", ""),
        Ask(a_run(live("round")), "Round"),
        Ask(a_run(live("rounds_budget")), "Of at most"),
        Ask(f"time() - {a_run(live('round_end_timestamp_seconds'))}", "Since the last round", "s", 0),
        Ask(a_run(live("loss", split="validation")), "Validation loss", decimals=4),
        Ask(f"min by (run_id) ({live('criterion_distance')})", "Nearest criterion", decimals=2),
    ]
    names = COLUMNS | {"engine": "Engine", "tile": "Tile", "compiled": "Compiled"}
    why = "Every run that is scraped, with its newest round. The nearest criterion is 0 when one is met."
    alerts = Ask('max by (alertname, severity, run_id) (ALERTS{alertstate="firing"})', "")
    return Row("Now", (
        table_panel("Runs", why, asks, renamed=names, width=16),
        table_panel("Alerts that fire", "From deploy/observability's rules; empty is well.", [alerts], key="alertname",
                    renamed={"alertname": "Alert", "severity": "Severity", "run_id": "Run"}, width=8),
    ))  # fmt: skip


def _progress() -> Row:
    return Row("Progress", (
        series_panel("Round", "Newest finished round: a level line is a run that stands still.", [Ask(live("round"))],
                     width=8),
        series_panel("Rounds a second", "Slope of the round over the last scrapes.",
                     [Ask(f"deriv({live('round')}[$__rate_interval])")], unit="ops", width=8, low=0),
        series_panel("Clients a second", "Trained, in the newest round.", [Ask(live("clients_per_second"))],
                     unit="ops", width=8, low=0),
        series_panel("Seconds a round", "Wall time of the newest round.", [Ask(live("round_wall_seconds"))], unit="s",
                     width=8, low=0),
        series_panel("Validation loss", "As last measured.", [Ask(live("loss", split="validation"))], width=8),
        series_panel("Distance to each criterion", "As last measured; 0 is met.",
                     [Ask(live("criterion_distance"), "{{criterion}} of {{run_id}}")], width=8, low=0),
    ))  # fmt: skip


def _clients() -> Row:
    missing = f"1 - {live('respondents')} / {live('cohort')}"
    return Row("Clients", (
        series_panel("Cohort and respondents", "Clients asked, and those whose update came back.",
                     [Ask(live("cohort"), "cohort of {{run_id}}"),
                      Ask(live("respondents"), "respondents of {{run_id}}")],
                     width=8, low=0),
        series_panel("Share that did not answer", "Of the cohort, in the newest round.", [Ask(missing)],
                     unit="percentunit", width=8, low=0, high=1),
        series_panel("Failures in the newest round", "Clients that answered with an error.", [Ask(live("failures"))],
                     width=8, low=0),
        series_panel("Updates a second", "That came back, over all cohorts.",
                     [Ask(f"rate({live('client_responses_total')}[$__rate_interval])")], unit="ops", low=0),
        series_panel("Failures a second", "Errors that came back.",
                     [Ask(f"rate({live('client_failures_total')}[$__rate_interval])")], unit="ops", low=0),
        series_panel("Client drift, median and 0.95", "Exact quantiles over the newest cohort.",
                     [Ask(live("client_drift", quantile="0.5"), "median of {{run_id}}"),
                      Ask(live("client_drift", quantile="0.95"), "0.95 of {{run_id}}")], low=0),
        series_panel("Bytes a second", "Of arrays sent, both ways.",
                     [Ask(f"rate({live('sent_bytes_total')}[$__rate_interval])")], unit="Bps", low=0),
    ))  # fmt: skip


def _machine() -> Row:
    return Row("Machine", (
        series_panel("Memory", "Held by the simulation's process.", [Ask(live("exporter_resident_memory_bytes"))],
                     unit="bytes", low=0),
        series_panel("Scrape", "Whether the simulation's /metrics answers: 0 is down, absent is never configured.",
                     [Ask('up{job="fedscape"}', "{{instance}}")], low=0, high=1),
    ))  # fmt: skip


def _sinks() -> Row:
    def speed(metric: str) -> list[Ask]:
        return [Ask(f"rate({live(metric)}[$__rate_interval])", BY_SINK)]

    return Row("Sinks", (
        series_panel("Samples sent a second", "That each sink took.", speed("exporter_samples_sent_total"), unit="ops",
                     width=8, low=0),
        series_panel("Samples refused a second", "That a sink did not take; `fedscape export` can try again.",
                     speed("exporter_samples_refused_total"), unit="ops", width=8, low=0),
        series_panel("Rounds dropped a second", "Given up unsent; `fedscape export` sends them again from the record.",
                     speed("exporter_rounds_dropped_total"), unit="ops", width=8, low=0),
        series_panel("Failed requests a second", "Not answered, or answered with an error.",
                     speed("exporter_failed_requests_total"), unit="ops", low=0),
        series_panel("Rounds waiting", "In the queue: a sink that is slow or away.",
                     [Ask(live("exporter_queue_rounds"), BY_SINK)], low=0),
    ))  # fmt: skip
