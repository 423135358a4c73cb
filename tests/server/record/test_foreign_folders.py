"""Damaged and foreign run folders: one line for each problem, nothing that blocks, and no file outside the folder."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from made_records import make_record

from clients.core.errors import RunFolderError
from dashboards.report.report import report_page
from dashboards.report.run_data import read_run
from dashboards.watch.runs import WatchedRuns
from server.metrics.table import METRICS
from server.record.checked.layouts import LINE, OUTCOME, RUN
from server.record.checked.line_files import read_record, read_rounds
from server.record.checked.parsing import parse_json
from server.record.checked.regular_files import LARGEST_TEXT
from server.record.checked.shapes import Misfit, Shape
from server.record.client_table import read_clients
from server.record.jsonlines import RoundWriter
from server.record.records import RunFolder

FILES = ("environment.json", "outcome.json", "events.jsonl", "partition.json")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path has at most 107 bytes
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


def folder(path: Path) -> None:
    path.mkdir()


def ten_gigabytes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 << 30)


ODD: tuple[Callable[[Path], None], ...] = (pipe, device, loop, unix_socket, folder, ten_gigabytes)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", FILES)
def test_odd_file_is_named_and_the_rest_is_shown(name: str, odd: Callable[[Path], None], tmp_path: Path) -> None:
    run = make_record(tmp_path / "run", rounds=3)
    make_record(tmp_path / "other", rounds=3)
    (run.path / name).unlink(missing_ok=True)
    odd(run.path / name)
    found = read_run(run.path)
    assert [line["round"] for line in found.lines] == [0, 1, 2, 3]
    assert [problem for problem in found.problems if problem.startswith(f"{name}: ")]
    assert "made up" in report_page([found])
    runs = WatchedRuns(tmp_path)
    assert {row["name"] for row in runs.rows()} == {"run", "other"}
    assert runs.view("run")["view"]["round"] == 3


@pytest.mark.parametrize("odd", ODD)
def test_odd_record_leaves_other_runs_on_the_list(odd: Callable[[Path], None], tmp_path: Path) -> None:
    run = make_record(tmp_path / "run", rounds=3)
    make_record(tmp_path / "other", rounds=3)
    run.rounds.unlink()
    odd(run.rounds)
    with pytest.raises(RunFolderError) as error:
        read_run(run.path)
    assert "\n" not in str(error.value)
    runs = WatchedRuns(tmp_path)
    rows = {row["name"]: row for row in runs.rows()}
    assert rows["other"]["round"] == 3
    assert rows.get("run", {"state": "damaged"})["state"] == "damaged"
    assert runs.view("run").keys() <= {"gone", "problem"}


def test_link_to_a_private_file_is_not_read(tmp_path: Path) -> None:
    run = make_record(tmp_path / "run", rounds=3)
    (tmp_path / "private").write_text('title = "a secret"\n')
    run.scenario.unlink()
    run.scenario.symlink_to(tmp_path / "private")
    page = report_page([read_run(run.path)])
    assert "a secret" not in page
    assert "scenario.toml: is a symbolic link" in page


def test_linked_folder_of_client_rows_is_not_read(tmp_path: Path) -> None:
    run, other = make_record(tmp_path / "run", rounds=3), make_record(tmp_path / "other", rounds=3)
    for file in run.clients.iterdir():
        file.unlink()
    run.clients.rmdir()
    run.clients.symlink_to(other.clients)
    assert report_page([read_run(run.path)])
    with pytest.raises(RunFolderError, match="is a symbolic link"):
        read_clients(run.clients)


def test_writer_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "private").write_text("mine\n")
    (tmp_path / "events.jsonl").symlink_to(tmp_path / "private")
    with pytest.raises(RunFolderError):
        RoundWriter(tmp_path / "events.jsonl")
    assert (tmp_path / "private").read_text() == "mine\n"


def test_text_file_above_its_limit_is_refused_unread(tmp_path: Path) -> None:
    run = make_record(tmp_path / "run", rounds=1)
    with run.outcome.open("wb") as file:
        file.truncate(LARGEST_TEXT + 1)
    with pytest.raises(RunFolderError, match=r"has 16,777,217 bytes, and at most 16,777,216 are read"):
        run.read_outcome()


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, '{"loss": NaN}', '{"loss": Infinity}', '{"a": "\xff"}', '{"a": 1', "1" * 10_000],
)
def test_text_that_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_json(text.encode("latin-1"))


def test_values_that_break_readers_are_replaced() -> None:
    found = parse_json(b'{"half \\ud800": "\\udc00 pair", "large": 1' + b"0" * 400 + b', "pair": "\\ud83d\\ude00"}')
    assert found == {"half \ufffd": "\ufffd pair", "large": float("inf"), "pair": "\U0001f600"}


# The chain of lines


def record_of(path: Path, rounds: int = 5) -> list[bytes]:
    writer = RoundWriter(path)
    for r in range(rounds):
        writer.append({"round": r, "train_loss": 1 / (r + 1)})
    writer.close()
    return path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda lines: [*lines[:2], lines[2].replace(b"0.33", b"0.34"), *lines[3:]], 3),
        (lambda lines: [*lines[:2], *lines[3:]], 3),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], 3),
        (lambda lines: [lines[1], lines[0], *lines[2:]], 1),
        (lambda lines: lines[1:], 1),
        (lambda lines: [*lines[:4], b'{"round": 4, "train_loss": 0.1}\n'], 5),
    ],
)
def test_changed_removed_or_doubled_line_is_named(
    change: Callable[[list[bytes]], list[bytes]], line: int, tmp_path: Path
) -> None:
    path = tmp_path / "rounds.jsonl"
    path.write_bytes(b"".join(change(record_of(path))))
    found = read_record(path)
    assert found.damage.startswith(f"line {line} of ")
    assert len(found.values) == line - 1
    with pytest.raises(RunFolderError, match="checksum"):
        read_rounds(path)


def test_record_of_an_earlier_version_is_continued_with_a_chain_that_covers_it(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    path.write_text('{"round": 0}\n{"round": 1}\n')
    assert not read_record(path).has_links
    writer = RoundWriter(path)
    writer.append({"round": 2})
    writer.close()
    assert [line["round"] for line in read_rounds(path)[0]] == [0, 1, 2]
    path.write_bytes(path.read_bytes().replace(b'"round": 1', b'"round": 7'))
    assert read_record(path).damage.startswith("line 3 of 3 does not have its checksum")


def test_run_without_checksums_is_shown_and_says_that_it_has_none(tmp_path: Path) -> None:
    run = make_record(tmp_path / "run", rounds=3)
    lines = [json.loads(line) for line in run.rounds.read_text().splitlines()]
    run.rounds.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "chain"}) + "\n" for line in lines))
    run.outcome.write_text(json.dumps({"outcome": "stopped", "round": 3}))
    found = read_run(RunFolder(run.path).path)
    assert len(found.lines) == 4
    assert found.problems == (
        "An earlier version wrote this record without checksums, so a damaged number in it is not noticed.",
    )


@pytest.mark.parametrize(
    ("source", "layout", "needed"),
    [("run", RUN, {}), ("round", LINE, {"round": 1}), ("outcome", OUTCOME, {})],
)
def test_layout_checks_every_key_of_the_table_of_metrics(source: str, layout: Shape, needed: dict[str, int]) -> None:
    for metric in METRICS.values():
        path = metric.path[1:] if metric.path[:1] == ("so_far",) else metric.path
        if metric.source != source or not path or path == ("round",):
            continue
        wrong: object = [["a"]]
        for key in reversed(path):
            wrong = {key: wrong}
        assert isinstance(wrong, dict)
        with pytest.raises(Misfit):
            layout({**needed, **wrong})
