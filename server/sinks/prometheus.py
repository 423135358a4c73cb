"""Serves the newest numbers of a live run on `/metrics`, for Prometheus to scrape: health, progress, alerts.

A scrape sees the newest round only; remote write sends every round. The round loop only keeps a reference, and the
thread that answers a scrape formats the numbers, with prometheus_client (DESIGN.md says why).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.metrics_core import Metric as Family

from clients.core.errors import UserError
from server.metrics.samples import (
    Labels,
    RunFold,
    Sample,
    exporter_samples,
    held,
    outcome_samples,
    round_samples,
    run_samples,
)
from server.metrics.table import METRICS, Metric, series_names
from server.sinks.metrics_server import serve
from server.sinks.openmetrics import family
from server.sinks.sender import Sent

HOST = "127.0.0.1"
LINGER = 15.0
"""Seconds that the end waits for a last scrape: the default scrape interval of Prometheus."""
_SENT_AWAY = 0.2
_OF_SERIES: Mapping[str, Metric] = {name: metric for metric in METRICS.values() for name in series_names(metric)}


class Sink(Protocol):
    """A sink that counts its samples: `RemoteWriter`."""

    name: str
    tally: Sent

    @property
    def waiting(self) -> int:
        """Rounds queued or sent that have no answer yet."""


class PrometheusExporter:
    """The observer behind `/metrics`.

    Args:
        port: where to listen; 0 takes a free one.
        host: the address to listen on; the loopback by default, since there is no login.
        names: names of this machine under which it is scraped; addresses and `localhost` are always served.
        sinks: other sinks whose counts are shown.
        linger: seconds that `close` waits for a last scrape, if there were any.

    Attributes:
        url: the address of `/metrics`.

    Raises:
        UserError: the address cannot be listened on.
    """

    def __init__(
        self,
        port: int,
        *,
        host: str = HOST,
        names: Sequence[str] = (),
        sinks: Sequence[Sink] = (),
        linger: float = LINGER,
    ) -> None:
        self._sinks, self._linger = tuple(sinks), linger
        self._labels: Labels = ()
        self._facts: Mapping[str, Any] = {}
        self._newest: Mapping[str, Any] = {}
        self._outcome: Mapping[str, Any] | None = None
        self._fold = RunFold()
        self._scraped, self._scraped_outcome = threading.Event(), threading.Event()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            self._server, self._thread = serve(make_wsgi_app(registry), host, port, names)
        except (OSError, OverflowError) as error:
            fix = "Name another port with --metrics-port, or an address of this machine with --metrics-host."
            raise UserError("metrics-port", f"cannot listen on {host}:{port}: {error}", fix=fix) from None
        self.url = f"http://{host}:{self._server.server_port}/metrics"

    def run_started(self, facts: Mapping[str, Any]) -> None:
        """Begin a run, and forget the one before."""
        self._labels = (("run_id", str(facts.get("run_id", "run"))),)
        self._fold, self._newest, self._outcome = RunFold(), {}, None
        self._scraped_outcome.clear()
        self._facts = facts

    def recorded_before(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Add up what a resumed run recorded."""
        for line in lines:
            self.round_finished(line)

    def round_finished(self, line: Mapping[str, Any]) -> None:
        """Keep the newest round (about 10 us)."""
        self._newest = held(self._newest, self._fold.observe(line))

    def run_finished(self, outcome: Mapping[str, Any]) -> None:
        """Keep the outcome."""
        self._outcome = outcome

    def close(self) -> None:
        """Wait for a last scrape if there were any, then stop listening; a second call does nothing."""
        if self._thread.is_alive():
            if self._outcome is not None and self._scraped.is_set() and self._scraped_outcome.wait(self._linger):
                threading.Event().wait(_SENT_AWAY)  # its answer is made; let it be sent
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def collect(self) -> Iterator[Family]:
        """Yield every metric that has a value now; prometheus_client calls this for each scrape."""
        outcome = self._outcome
        found = {(sample.name, sample.labels): sample for sample in self._samples(outcome)}
        yield from _families(found.values(), self._labels)
        self._scraped.set()
        if outcome is not None:
            self._scraped_outcome.set()

    def _samples(self, outcome: Mapping[str, Any] | None) -> Iterator[Sample]:
        """Yield the newest samples; a later one replaces an earlier one of the same series."""
        newest = self._newest
        if self._facts:
            yield from run_samples(self._facts)
        if newest:
            yield from round_samples(newest)
        if outcome is not None:
            yield from outcome_samples(outcome)
        counted = ("sent", "refused", "dropped", "failed")
        state: dict[str, Any] = {
            what: {sink.name: getattr(sink.tally, what) for sink in self._sinks} for what in counted
        }
        state |= {"waiting": {sink.name: sink.waiting for sink in self._sinks}, "memory": resident_memory()}
        yield from exporter_samples(state)


def _families(samples: Iterable[Sample], shared: Labels) -> Iterator[Family]:
    """Group samples by metric, as the formats require; empty labels are left out."""
    grouped: dict[str, Family] = {}
    for name, labels, value in samples:
        metric = _OF_SERIES[name]
        if not metric.live:
            continue
        found = grouped.get(metric.full_name)
        if found is None:
            found = grouped[metric.full_name] = Family(family(metric), metric.help, metric.kind, metric.unit)
        found.add_sample(name, {label: word for label, word in (*labels, *shared) if word}, value)
    yield from grouped.values()


def resident_memory() -> int | None:
    """Return the bytes of memory this process holds; None on systems without /proc."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
