"""Records with one changed value: every reader gives its result or one line, whatever the value is."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from changed_values import DEEP, DROPPED, VALUES, Keys, changed, keys_of
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from made_probes import made_probe, write_probes
from made_records import make_record
from made_surfaces import made_surface
from run_folders import digits

from clients.core.errors import UserError
from dashboards.grafana.push import notes
from dashboards.report.report import report_page
from dashboards.report.run_data import read_run
from dashboards.report.run_text import rate_words
from dashboards.watch.runs import WatchedRuns
from server.record.checked.layouts import OUTCOME
from server.record.checked.parsing import parse_json
from server.record.checked.shapes import Misfit
from server.record.jsonlines import to_json
from server.sinks.export import read_recorded, to_openmetrics, to_tensorboard
from simulator.runs.record import open_run
from simulator.runs.run import resume, simulate

FILES = ("rounds.jsonl", "events.jsonl", "outcome.json", "surface.json", "probes.json", "environment.json",
         "partition.json")  # fmt: skip


def without_checksums(run: Path) -> dict[str, list[Any]]:
    """Write a run's files as an earlier version did; return the values in them."""
    found = {}
    for name in FILES:
        text = (run / name).read_text() if (run / name).exists() else ""
        values = (
            [json.loads(line) for line in text.splitlines()]
            if name.endswith("l")
            else [json.loads(text)]
            if text
            else []
        )
        for value in values:
            value.pop("chain", None)
            value.pop("checksum", None)
        found[name] = values
        (run / name).write_text("".join(json.dumps(value) + "\n" for value in values))
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made record of a city, and a real one, both without checksums, so that only their layouts protect readers."""
    root = tmp_path_factory.mktemp("runs")
    made = make_record(root / "made", rounds=6, clients=6, city=True)
    made.write_surface(made_surface(3))
    write_probes(made, made_probe(2), made_probe(4, predicts=False))
    simulate(digits("run.rounds=6", "evaluation.gradient_every=2", "convergence.gap={below=0.1}"), out=root / "real")
    return root


def readers(run: Path, other: Path, out: Path) -> dict[str, Callable[[], object]]:
    """Return everything that reads a run."""

    def opened() -> None:
        record = open_run(run)
        for name in record.rounds.columns:
            record.rounds[name]
        str(record.verdict), repr(record), len(record.clients)

    def listed() -> None:
        watched = WatchedRuns(run.parent)
        assert len(watched.rows()) == len(watched.paths())
        to_json(watched.rows()), to_json(watched.view(run.name))

    found: dict[str, Callable[[], object]] = {
        "report": lambda: report_page([read_run(run)]).encode(),
        "comparison": lambda: report_page([read_run(run), read_run(other)]).encode(),
        "watch": listed,
        "open_run": opened,
        "tensorboard": lambda: to_tensorboard(read_recorded(run), out),
        "notes": lambda: notes(run),
    }
    for clock in ("round", "simulated", "wall"):
        found[f"export, {clock}"] = lambda clock=clock: list(to_openmetrics(read_recorded(run), clock))  # type: ignore[misc]
    return found


@pytest.mark.parametrize("name", ["made", "real"])
def test_no_changed_value_breaks_a_reader(name: str, runs: Path, tmp_path: Path) -> None:
    run, other = tmp_path / "runs" / "run", tmp_path / "runs" / "other"
    shutil.copytree(runs / name, run)
    values = without_checksums(run)
    shutil.copytree(run, other)
    places = [(file, i, keys) for file, found in values.items() for i, v in enumerate(found) for keys in keys_of(v)]

    spread = next(((file, i, keys) for file, i, keys in places if keys == ("client_spread",)), places[0])

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(places), st.sampled_from(VALUES))
    @example(spread, {"a": "b"})
    def check(place: tuple[str, int, Keys], new: object) -> None:
        file, index, keys = place
        found = list(values[file])
        found[index] = changed(found[index], keys, new)
        (run / file).write_text("".join(json.dumps(value) + "\n" for value in found))
        try:
            for reader, read in readers(run, other, tmp_path / "tb").items():
                message = mistake_of(read)
                assert "\n" not in message, (reader, place, new)
        finally:
            (run / file).write_text("".join(json.dumps(value) + "\n" for value in values[file]))

    logging.disable(logging.CRITICAL)
    try:
        check()
    finally:
        logging.disable(logging.NOTSET)


FITTED = {"metric": "objective", "factor": 0.9, "low": 0.8, "high": 0.95, "limit": 0.2, "limit_low": 0.1,
          "limit_high": 0.3, "exponent": 1.0, "exponent_low": 0.9, "exponent_high": 1.1}  # fmt: skip


@pytest.mark.parametrize(
    "rate",
    [
        FITTED | {"family": "undecided"},
        {key: value for key, value in FITTED.items() if key not in ("factor", "low", "high")} | {"family": "power"},
        {"metric": "objective", "no_trend": "it rises", "iterates": {"factor": 0.9, "low": 0.8, "high": 0.95}},
    ],
    ids=["undecided", "power", "no trend"],
)
def test_no_changed_part_of_a_rate_breaks_its_words(rate: dict[str, Any]) -> None:
    assert rate_words({"rate": rate})
    for keys in keys_of(rate):
        for new in VALUES:
            outcome = parse_json(json.dumps({"round": 1, "rate": changed(rate, keys, new)}).encode())
            with suppress(Misfit):
                OUTCOME(outcome)
                assert "\n" not in rate_words(outcome), (keys, new)


@pytest.mark.parametrize("new", [DROPPED, "a text", 10**400, DEEP], ids=["dropped", "text", "huge", "deep"])
@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("rounds.jsonl", ("round",)),
        ("rounds.jsonl", ("bytes_total",)),
        ("rounds.jsonl", ("criteria",)),
        ("environment.json", ("run",)),
        ("environment.json", ("run", "engine_plan")),
        ("environment.json", ("run", "engine_plan", "tile")),
        ("outcome.json", ("outcome",)),
    ],
)
def test_resume_of_a_changed_record_continues_or_reports_one_line(
    file: str, keys: Keys, new: object, interrupted: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(interrupted, run)
    values = without_checksums(run)[file]
    values[-1] = changed(values[-1], keys, new)
    (run / file).write_text("".join(json.dumps(value) + "\n" for value in values))
    assert "\n" not in mistake_of(lambda: resume(run, stop_asked=lambda: True))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("interrupted") / "run"
    simulate(digits(), out=path, stop_asked=lambda: True)
    return path


def mistake_of(act: Callable[[], object]) -> str:
    """Return the message of the mistake that an act reports; empty where it reports none."""
    try:
        act()
    except UserError as error:
        return str(error)
    return ""
