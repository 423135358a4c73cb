"""The dashboard Federation health: the progress, clients, machine and sinks of runs in progress."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as board

from dashboards.grafana.convergence import COLUMNS
from dashboards.grafana.frame import Row, live_dashboard
from dashboards.grafana.panels import series_panel
from dashboards.grafana.parts import Query
from dashboards.grafana.promql import a_run, live
from dashboards.grafana.tables import table_panel

BY_SINK = "{{sink}} of {{run_id}}"


def federation_health() -> board.Dashboard:
    """Return the dashboard."""
    why = "Runs in progress, on wall time: rounds per second, respondents, failures, memory, and the sinks."
    rows = [_now(), _progress(), _clients(), _machine(), _sinks()]
    return live_dashboard("fedscape-federation-health", "Federation health", why, rows)


def _now() -> Row:
    facts = "run_id, scenario, algorithm, seed"
    queries = [
        Query(f"max by ({facts}) ({live('run_info')})", ""),
        Query(f"max by (run_id, state) ({live('run_state')}) == 1", ""),
        Query(f"max by (run_id, engine, tile, compiled) ({live('engine_info')})", ""),
        Query(a_run(live("round")), "Round"),
        Query(a_run(live("rounds_budget")), "Budget"),
        Query(f"time() - {a_run(live('round_end_timestamp_seconds'))}", "Since the last round", "s", 0),
        Query(a_run(live("loss", split="validation")), "Validation loss", decimals=4),
        Query(f"min by (run_id) ({live('criterion_distance')})", "Nearest criterion", decimals=2),
    ]
    names = COLUMNS | {"engine": "Engine", "tile": "Tile", "compiled": "Compiled"}
    why = "Every run that is scraped, with its newest round. The nearest criterion is 0 where one is met."
    alerts = Query('max by (alertname, severity, run_id) (ALERTS{alertstate="firing"})', "")
    return Row("Now", (
        table_panel("Runs", why, queries, renamed=names, width=16),
        table_panel("Firing alerts", "From the rules in deploy/observability; empty where all is well.", [alerts],
                    key="alertname", renamed={"alertname": "Alert", "severity": "Severity", "run_id": "Run"}, width=8),
    ))  # fmt: skip


def _progress() -> Row:
    return Row("Progress", (
        series_panel("Round", "Newest finished round. A level line is a run without progress.", [Query(live("round"))],
                     width=8),
        series_panel("Rounds per second", "Slope of the round over the last scrapes.",
                     [Query(f"deriv({live('round')}[$__rate_interval])")], unit="ops", width=8, low=0),
        series_panel("Clients per second", "Clients trained per second in the newest round.",
                     [Query(live("clients_per_second"))], unit="ops", width=8, low=0),
        series_panel("Seconds per round", "Wall time of the newest round.", [Query(live("round_wall_seconds"))],
                     unit="s", width=8, low=0),
        series_panel("Validation loss", "As last measured.", [Query(live("loss", split="validation"))], width=8),
        series_panel("Distance to each criterion", "As last measured; 0 is met.",
                     [Query(live("criterion_distance"), "{{criterion}} of {{run_id}}")], width=8, low=0),
    ))  # fmt: skip


_OF_NODES = (("rejected", "rejected"), ("late_replies", "late"), ("repeats", "repeats"))


def _clients() -> Row:
    missing = f"1 - {live('respondents')} / {live('cohort')}"
    return Row("Clients", (
        series_panel("Cohort and respondents", "Clients in the cohort, and those whose update arrived.",
                     [Query(live("cohort"), "cohort of {{run_id}}"),
                      Query(live("respondents"), "respondents of {{run_id}}")],
                     width=8, low=0),
        series_panel("Missing share", "Share of the cohort without an update in the newest round.", [Query(missing)],
                     unit="percentunit", width=8, low=0, high=1),
        series_panel("Failures in the newest round",
                     "Clients that replied with an error; on nodes also rejected updates, late replies, repeats.",
                     [Query(live("failures")),
                      *(Query(live(name), f"{words} of {{{{run_id}}}}")
                        for name, words in _OF_NODES)],
                     width=8, low=0),
        series_panel("Updates per second", "Updates that arrived, over all cohorts.",
                     [Query(f"rate({live('client_responses_total')}[$__rate_interval])")], unit="ops", low=0),
        series_panel("Failures per second", "Clients that replied with an error.",
                     [Query(f"rate({live('client_failures_total')}[$__rate_interval])")], unit="ops", low=0),
        series_panel("Client drift, median and 0.95", "Exact quantiles over the newest cohort.",
                     [Query(live("client_drift", quantile="0.5"), "median of {{run_id}}"),
                      Query(live("client_drift", quantile="0.95"), "0.95 of {{run_id}}")], low=0),
        series_panel("Bytes per second", "Arrays sent, both ways.",
                     [Query(f"rate({live('sent_bytes_total')}[$__rate_interval])")], unit="Bps", low=0),
    ))  # fmt: skip


def _machine() -> Row:
    return Row("Machine", (
        series_panel("Memory", "Memory of the simulation's process.", [Query(live("exporter_resident_memory_bytes"))],
                     unit="bytes", width=6, low=0),
        series_panel("Busy time of workers", "Seconds of the newest round in which each worker process trained or "
                     "evaluated; a run of one process has none.",
                     [Query(live("worker_busy_seconds"), "worker {{worker}} of {{run_id}}")],
                     unit="s", width=6, low=0),
        series_panel("Imbalance of workers", "The busiest worker's seconds over their mean; 1 is balanced.",
                     [Query(live("worker_imbalance_ratio"))], width=6, low=1),
        series_panel("Scrape", "Whether the simulation's /metrics responds: 0 is down; absent: not configured.",
                     [Query('up{job="fedscape"}', "{{instance}}")], width=6, low=0, high=1),
    ))  # fmt: skip


def _sinks() -> Row:
    def speed(metric: str) -> list[Query]:
        return [Query(f"rate({live(metric)}[$__rate_interval])", BY_SINK)]

    return Row("Sinks", (
        series_panel("Samples sent per second", "Samples that each sink accepted.",
                     speed("exporter_samples_sent_total"), unit="ops",
                     width=8, low=0),
        series_panel("Samples refused per second", "Samples that a sink refused; `fedscape export` can send them "
                     "again.", speed("exporter_samples_refused_total"), unit="ops", width=8, low=0),
        series_panel("Rounds dropped per second", "Rounds dropped unsent; `fedscape export` sends them from the "
                     "record.", speed("exporter_rounds_dropped_total"), unit="ops", width=8, low=0),
        series_panel("Failed requests per second", "Requests without a response, or with an error.",
                     speed("exporter_failed_requests_total"), unit="ops", low=0),
        series_panel("Rounds waiting", "Rounds in the queue of a sink that is slow or unreachable.",
                     [Query(live("exporter_queue_rounds"), BY_SINK)], low=0),
    ))  # fmt: skip
