"""Every round in a real Prometheus, by remote write and by backfill: all numbers of the record arrive unchanged."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from needs import needs_prometheus
from prometheus_servers import PrometheusServer, Stored, free_port
from receivers import silent_receiver
from run_folders import digits, recorded, stop_after
from waiting import eventually

import fedscape as fs
from dashboards.prometheus import runs
from server.metrics.run_stream import recorded_moments
from server.sinks.export import read_recorded, to_remote_write
from server.sinks.remote_write import RemoteWriter
from simulator.cli.main import main
from simulator.runs.run import resume
from simulator.scenario.sections import load_scenario

pytestmark = needs_prometheus
ROUND_0 = 946_684_800
QUADRATIC = load_scenario("quadratic-two-clients")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    server = PrometheusServer(runs(free_port()), tmp_path_factory.mktemp("runs")).start()
    yield server
    server.kill()


def expected(folder: Path) -> Stored:
    """Return the samples that should be stored of a recorded run, with numbers as Prometheus writes them."""
    kept = read_recorded(folder)
    stream, moments = recorded_moments(kept.facts, kept.lines, kept.outcome, "round")
    found: Stored = {}
    for moment in moments:
        for name, labels, value in moment.samples:
            key = frozenset({("__name__", name), *((k, v) for k, v in (*labels, *stream.labels) if v)})
            found.setdefault(key, {})[moment.at] = _spelled(value)
    return found


def _spelled(value: float) -> str:
    return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf") if math.isinf(value) else repr(value)


def numbers(stored: Stored) -> dict[Any, dict[int, str]]:
    """Return stored samples with all numbers in one notation."""
    return {key: {at: _spelled(float(word)) for at, word in points.items()} for key, points in stored.items()}


def run_id(folder: Path) -> str:
    return str(read_recorded(folder).facts["run_id"])


def test_two_runs_share_one_axis_and_have_the_values_of_their_records(server: PrometheusServer, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    fs.simulate(QUADRATIC, out=one, observers=[RemoteWriter(server.write_url)])
    fs.simulate(digits(), out=other, observers=[RemoteWriter(server.write_url)])
    assert run_id(one) != run_id(other)
    for folder in (one, other):
        assert numbers(server.stored(run_id(folder))) == expected(folder)
        table = fs.open_run(folder).rounds
        for r in (0, 3, 8):
            loss = f'fedscape_loss{{run_id="{run_id(folder)}",split="validation"}}'
            assert server.one(loss, ROUND_0 + r) == table["validation_loss"][r]
    at_3 = server.query('fedscape_loss{split="validation"} * on (run_id) group_left (scenario) fedscape_run_info',
                        ROUND_0 + 3)  # fmt: skip
    assert {labels["scenario"] for labels, _ in at_3} >= {"quadratic-two-clients", "digits-label-skew"}
    drift = fs.open_run(other).rounds["client_drift.p95"][5]
    name = f'fedscape_client_drift{{run_id="{run_id(other)}",quantile="0.95"}}'
    assert server.one(name, ROUND_0 + 5) == drift


def test_series_end_at_the_end_of_their_run(server: PrometheusServer, tmp_path: Path) -> None:
    run = fs.simulate(QUADRATIC, out=tmp_path / "run", observers=[RemoteWriter(server.write_url)])
    this, last = f'run_id="{run_id(tmp_path / "run")}"', ROUND_0 + run.verdict.round_index
    assert server.one(f"fedscape_round{{{this}}}", last) == run.verdict.round_index
    assert server.one(f'fedscape_run_state{{{this},state="running"}}', last) == 1
    assert server.query(f"fedscape_round{{{this}}}", last + 1) == []
    assert server.one(f'fedscape_run_state{{{this},state="converged"}}', last + 1) == 1
    assert server.one(f'fedscape_run_state{{{this},state="running"}}', last + 1) == 0
    assert server.query(f"{{{this}}}", last + 2) == []


def test_backfill_equals_remote_write_sample_by_sample(server: PrometheusServer, tmp_path: Path) -> None:
    folder, text = tmp_path / "run", tmp_path / "run.om"
    fs.simulate(digits(), out=folder, observers=[RemoteWriter(server.write_url)])
    assert main(["export", str(folder), "--to", "openmetrics", "--out", str(text)]) == 0
    backfilled = PrometheusServer(runs(free_port()), tmp_path / "backfilled")
    backfill = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(text), str(backfilled.data)]
    subprocess.run(backfill, check=True, capture_output=True)
    try:
        backfilled.start()
        found = backfilled.stored(run_id(folder))
    finally:
        backfilled.kill()
    assert len(found) > 200
    assert numbers(found) == numbers(server.stored(run_id(folder)))


def test_export_sent_twice_changes_nothing(server: PrometheusServer, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fs.simulate(QUADRATIC, out=folder, observers=[RemoteWriter(server.write_url)])
    before = server.stored(run_id(folder))
    for _ in range(2):
        assert main(["export", str(folder), "--to", "remote-write", "--url", server.write_url]) == 0
    assert server.stored(run_id(folder)) == before


@pytest.mark.parametrize("clock", ["simulated", "wall"])
def test_other_clocks_give_their_own_times(server: PrometheusServer, tmp_path: Path, clock: Any) -> None:
    folder = tmp_path / "run"
    fs.simulate(QUADRATIC, out=folder, observers=[RemoteWriter(server.write_url, clock=clock)])
    table = fs.open_run(folder).rounds
    seconds = ROUND_0 + table["simulated_seconds_total"] if clock == "simulated" else table["finished_at"]
    (points,) = [p for key, p in server.stored(run_id(folder)).items() if ("__name__", "fedscape_round") in key]
    assert list(points) == [round(1000 * s) for s in seconds]
    assert to_remote_write(read_recorded(folder), server.write_url, clock).complete


class At:
    """Calls a function after a round."""

    def __init__(self, **what: Callable[[], object]) -> None:
        self._what = {int(name.removeprefix("round_")): action for name, action in what.items()}

    def round_finished(self, line: dict[str, Any]) -> None:
        self._what.get(line["round"], lambda: None)()


def test_prometheus_restarted_during_a_run_gets_every_round(tmp_path: Path) -> None:
    server = PrometheusServer(runs(free_port()), tmp_path / "runs").start()
    scenario = digits("run.rounds=60")
    try:
        writer = RemoteWriter(server.write_url)

        def start_again() -> None:
            eventually(lambda: writer.tally.failed)
            server.start()

        mishap = At(round_15=server.kill, round_40=start_again)
        fs.simulate(scenario, out=tmp_path / "run", observers=[mishap, writer])
        assert writer.tally.complete
        assert numbers(server.stored(run_id(tmp_path / "run"))) == expected(tmp_path / "run")
    finally:
        server.kill()
    fs.simulate(scenario, out=tmp_path / "plain")
    assert recorded(tmp_path / "run") == recorded(tmp_path / "plain")


def test_interrupted_and_resumed_run_has_one_set_of_series(server: PrometheusServer, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fs.simulate(digits(), out=folder, observers=[RemoteWriter(server.write_url)], stop_asked=stop_after(4))
    first = run_id(folder)
    resume(folder, observers=[RemoteWriter(server.write_url)])
    assert run_id(folder) == first
    stored, whole = numbers(server.stored(first)), expected(folder)
    interrupted_at = 1000 * ROUND_0 + 4250  # the moment of the interrupted state
    for key, points in whole.items():
        assert {at: word for at, word in stored[key].items() if at != interrupted_at} == points
    state = {dict(key).get("state"): points.get(interrupted_at) for key, points in stored.items()
             if ("__name__", "fedscape_run_state") in key}  # fmt: skip
    assert state["interrupted"] == "1.0"
    assert server.one(f'fedscape_run_state{{run_id="{first}",state="stopped"}}', ROUND_0 + 9) == 1


def test_export_sends_rounds_that_an_unreachable_receiver_missed(server: PrometheusServer, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with silent_receiver() as url:
        run = fs.simulate(digits(), out=folder, observers=[RemoteWriter(url, timeout=1.0, patience=0.2)])
    events = (folder / "events.jsonl").read_text("utf-8")
    assert "9 rounds were not sent" in events
    fs.simulate(digits(), out=tmp_path / "plain")
    assert recorded(folder) == recorded(tmp_path / "plain")
    assert server.stored(run_id(folder)) == {}
    assert main(["export", str(folder), "--to", "remote-write", "--url", server.write_url]) == 0
    assert numbers(server.stored(run_id(folder))) == expected(folder)
    assert run.rounds["round"].tolist() == list(range(9))


def test_wrong_path_names_the_right_one(server: PrometheusServer, tmp_path: Path, capsys: Any) -> None:
    fs.simulate(QUADRATIC, out=tmp_path / "run")
    code = main(["export", str(tmp_path / "run"), "--to", "remote-write", "--url", f"{server.role.url}/api/v1/wrong"])
    assert code == 2
    assert "the path /api/v1/write" in capsys.readouterr().err


def test_command_sends_to_all_sinks_at_once(server: PrometheusServer, tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "run"
    sinks = ["--remote-write", server.write_url, "--metrics-port", "0", "--tensorboard-folder", str(tmp_path / "tb")]
    assert main(["run", "quadratic-two-clients", "--out", str(folder), *sinks]) == 0
    printed = capsys.readouterr()
    assert "/metrics is served while the run lasts" in printed.err
    assert "not sent" not in printed.out
    assert "refused" not in printed.out
    assert numbers(server.stored(run_id(folder))) == expected(folder)
    assert list((tmp_path / "tb" / run_id(folder)).glob("events.out.tfevents.*"))
