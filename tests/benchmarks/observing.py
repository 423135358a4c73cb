"""The cost of all sinks: a logreg run with every sink, compared with one that only writes its record; at most 15%.

python observing.py [ROUNDS [PAIRS]]

Both kinds run in turn in this process. The time of a round is the mean over a run, because sinks work in bursts; the
ratio is the median over pairs. A real Prometheus on the same machine scrapes every second and receives every round by
remote write. On a busy machine, compare processor time: it includes the sinks' threads and no other processes.
"""

from __future__ import annotations

import io
import json
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import fedscape as fs
from dashboards.prometheus import Role, live, running, runs
from server.sinks.prometheus import PrometheusExporter
from server.sinks.remote_write import RemoteWriter
from server.sinks.tensorboard import TensorBoardWriter
from simulator.cli.console import ConsoleObserver

ALLOWED = 1.15
SETTLE = 20
"""Rounds left out at the start of a run, which make data and warm up."""


class Stamps:
    """Records when rounds end, in wall time and in the process's processor time."""

    def __init__(self) -> None:
        self.at: list[tuple[float, float]] = []

    def round_finished(self, line: dict[str, Any]) -> None:
        """Note one."""
        self.at.append((time.perf_counter(), time.process_time()))

    @property
    def seconds(self) -> tuple[float, float]:
        """Return the mean seconds of a round, wall and processor."""
        count = len(self.at) - 1 - SETTLE
        wall, processor = ((self.at[-1][i] - self.at[SETTLE][i]) / count for i in range(2))
        return wall, processor


def scenario(rounds: int) -> fs.Scenario:
    """Return softmax regression on 60 features, 100 of 1000 clients, 20 local steps on batches of 10."""
    sets = [
        "data={kind='synthetic', clients=1000, sizes=200}",
        "partition=",
        "model={kind='softmax'}",
        "local={local_lr=0.01, batch_size=10, local_epochs=1}",
        "algorithm.cohort=100",
        "engine.kind=stacked",
        "evaluation={federated_every=0, baselines=false}",
        "convergence.stop=never",
        f"run.rounds={rounds}",
    ]
    return fs.load_scenario("digits-label-skew", sets=sets)


def run(rounds: int, sinks: list[Any]) -> tuple[float, float]:
    """Run once; return the mean seconds of a round, wall and processor."""
    stamps = Stamps()
    with tempfile.TemporaryDirectory() as folder:
        try:
            fs.simulate(scenario(rounds), out=Path(folder) / "run", observers=[*sinks, stamps])
        finally:
            for sink in sinks:
                sink.close()
    return stamps.seconds


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def every_sink(port: int, receiver: Role, folder: Path) -> list[Any]:
    """Return every sink."""
    remote = RemoteWriter(f"{receiver.url}/api/v1/write", patience=30.0)
    exporter = PrometheusExporter(port, sinks=[remote], linger=0.0)
    return [ConsoleObserver(io.StringIO()), TensorBoardWriter(folder), remote, exporter]


def main(rounds: int = 600, pairs: int = 5) -> int:
    """Time both kinds in turn and print the result; return 1 if the sinks cost more than allowed."""
    port = free_port()
    roles = (live(free_port(), scrape=port), runs(free_port()))
    found: list[tuple[tuple[float, float], tuple[float, float]]] = []
    with tempfile.TemporaryDirectory() as name, running(roles, Path(name)):
        run(SETTLE + 10, [])
        for _ in range(pairs):
            bare = run(rounds, [])
            sinks = every_sink(port, roles[1], Path(name) / "tensorboard")
            watched = run(rounds, sinks)
            assert sinks[2].tally.complete, sinks[2].tally
            found.append((bare, watched))
            print(f"{1e3 * bare[0]:.2f} ms a round, watched {1e3 * watched[0]:.2f} ms", file=sys.stderr)
    ratios = [statistics.median(watched[i] / bare[i] for bare, watched in found) for i in range(2)]
    print(json.dumps({"pairs": found, "wall": ratios[0], "processor": ratios[1], "allowed": ALLOWED}))
    return int(ratios[0] > ALLOWED)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
