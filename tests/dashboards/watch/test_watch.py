"""The watch page shows runs that start, grow, stop, end and disappear, and opens only runs."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from clients.core.errors import RunFolderError, UserError
from dashboards.watch.runs import Lines, WatchedRuns
from dashboards.watch.server import LARGEST_HEAD, WatchServer, watch
from server.record.checked.line_files import truncate_rounds
from server.record.jsonlines import RoundWriter
from server.record.recorder import Recorder
from simulator.cli.main import main
from tests.support.made_records import columns_of, line_of, make_record

CLIENTS = np.arange(30)


def append(folder: Any, *rounds: int) -> None:
    writer = RoundWriter(folder.rounds)
    for r in rounds:
        writer.append(line_of(r, CLIENTS))
    writer.close()


# Lines


def test_lines_are_read_once_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    path.write_text('{"round": 0}\n{"round": 1}\n{"rou')
    lines = Lines(path)
    assert [line["round"] for line in lines.read()] == [0, 1]
    assert [line["round"] for line in lines.read()] == [0, 1]
    with path.open("a") as file:
        file.write('nd": 2}\n')
    assert [line["round"] for line in lines.read()] == [0, 1, 2]


def test_record_that_was_cut_back_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    path.write_text("".join(f'{{"round": {r}, "of": "first"}}\n' for r in range(6)))
    lines = Lines(path)
    assert len(lines.read()) == 6
    truncate_rounds(path, 2)
    with path.open("a") as file:
        file.write("".join(f'{{"round": {r}, "of": "again"}}\n' for r in range(3, 9)))
    assert [line["of"] for line in lines.read()] == ["first"] * 3 + ["again"] * 6
    path.write_text("")
    assert lines.read() == []
    path.unlink()
    with pytest.raises(RunFolderError, match="cannot be read: No such file"):
        lines.read()


def test_damaged_line_hides_only_the_lines_after_it(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    path.write_text('{"round": 0}\n{"round": 1\n{"round": 2}\n')
    lines = Lines(path)
    assert [line["round"] for line in lines.read()] == [0]
    path.write_text('{"round": 0}\n{"round": 1}\n{"round": 2}\n')
    assert [line["round"] for line in lines.read()] == [0, 1, 2]


# The runs


def test_list_shows_the_state_of_each_run_newest_first(tmp_path: Path) -> None:
    old, new = make_record(tmp_path / "old", rounds=12), make_record(tmp_path / "new", rounds=5, ended=False)
    (tmp_path / "no run").mkdir()
    (tmp_path / "a file").write_text("")
    os.utime(old.rounds, (1000.0, 1000.0))
    os.utime(new.rounds, (2000.0, 2000.0))
    runs = WatchedRuns(tmp_path, now=lambda: 2030.0)
    rows = runs.rows()
    assert [(row["name"], row["state"], row["round"], row["age"]) for row in rows] == [
        ("new", "running", 5, 30.0),
        ("old", "stopped", 12, 1030.0),
    ]
    assert rows[1]["loss"] == line_of(12, CLIENTS)["validation_loss"]
    assert rows[1]["score"] == line_of(12, CLIENTS)["validation_accuracy"]
    later = WatchedRuns(tmp_path, now=lambda: 2061.0)
    assert later.rows()[0]["state"] == "silent"
    assert later.view("new")["view"]["verdict"].startswith(
        "Silent at round 5 of at most 100: nothing was recorded for 1:01"
    )


def test_view_is_sent_again_only_when_its_run_has_changed(tmp_path: Path) -> None:
    folder = make_record(tmp_path / "run", rounds=5, ended=False)
    runs = WatchedRuns(tmp_path)
    first = runs.view("run")
    assert first["view"]["verdict"] == "Running: round 5 of at most 100"
    assert runs.view("run", first["version"]) == {"same": True}
    append(folder, 6, 7)
    second = runs.view("run", first["version"])
    assert second["view"]["round"] == 7
    assert "Client rows are written at checkpoints; the last one was at round 5." in second["view"]["notes"]
    recorder = Recorder(folder)
    recorder.clients.add(6, columns_of(6, CLIENTS))
    recorder.clients.flush()
    third = runs.view("run", second["version"])
    assert third["view"]["grid"]["rounds"] == 6
    recorder.run_finished({"outcome": "stopped", "words": "stopped at round 7: enough"})
    recorder.close()
    assert runs.view("run", third["version"])["view"]["verdict"] == "stopped at round 7: enough"


def test_list_follows_runs_that_appear_and_disappear(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    runs = WatchedRuns(root)
    assert runs.rows() == []
    make_record(root / "a", rounds=3)
    assert [row["name"] for row in runs.rows()] == ["a"]
    assert runs.view("a")["view"]["round"] == 3
    shutil.rmtree(root / "a")
    assert runs.rows() == []
    assert runs.view("a") == {"gone": True}
    make_record(root / "a", rounds=4, rows=False)  # another run under the same name
    assert runs.view("a")["view"]["round"] == 4


def test_folder_of_one_run_can_be_watched(tmp_path: Path) -> None:
    make_record(tmp_path / "run", rounds=3)
    assert [row["name"] for row in WatchedRuns(tmp_path / "run").rows()] == ["run"]


def test_folder_of_a_study_shows_its_runs(tmp_path: Path) -> None:
    make_record(tmp_path / "study" / "runs" / "0a1b")
    assert WatchedRuns(tmp_path / "study").paths() == {}
    (tmp_path / "study" / "study.toml").write_text("seeds = 1\n")
    assert list(WatchedRuns(tmp_path / "study").paths()) == ["0a1b"]


def test_unreadable_run_becomes_a_note_and_the_others_stay(tmp_path: Path) -> None:
    make_record(tmp_path / "good", rounds=3)
    bad = make_record(tmp_path / "bad", rounds=3)
    bad.outcome.write_text("{")
    bad.environment.write_text("[1]")
    runs = WatchedRuns(tmp_path)
    assert {row["name"] for row in runs.rows()} == {"good", "bad"}
    view = runs.view("bad")["view"]
    assert any(note.startswith("outcome.json") for note in view["notes"])


# The server


@contextmanager
def served(root: Path) -> Iterator[WatchServer]:
    with WatchServer(root, 0) as server:
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join()


def port_of(server: WatchServer) -> int:
    return int(server.url.rstrip("/").rpartition(":")[2])


def ask(server: WatchServer, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=60)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_server_answers_its_three_addresses(tmp_path: Path) -> None:
    make_record(tmp_path / "a run & more", rounds=3)
    with served(tmp_path) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert b"connect-src 'self'" in ask(server, "/")[1]
        listed = json.loads(ask(server, "/runs.json")[1])
        assert [row["name"] for row in listed["runs"]] == ["a run & more"]
        assert str(tmp_path) not in json.dumps(listed)
        assert json.loads(ask(server, f"/run.json?name={quote('a run & more')}")[1])["view"]["round"] == 3
        assert ask(server, "/elsewhere")[0] == 404
        assert ask(server, "/runs.json/")[0] == 404
        assert ask(server, "/", "POST")[0] == 405


@pytest.mark.parametrize(
    "name", ["../secret", "..", ".", "", "/etc", "a/../../secret", "..%2fsecret", "a\\..", "%00", "a%00"]
)
def test_name_cannot_open_a_file_outside_the_folder(name: str, tmp_path: Path) -> None:
    make_record(tmp_path / "secret", rounds=3)
    make_record(tmp_path / "runs" / "a", rounds=2)
    with served(tmp_path / "runs") as server:
        for path in (f"/run.json?name={quote(name)}", f"/run.json?name={name}"):
            assert ask(server, path) == (200, b'{"gone": true}'), path
        assert ask(server, f"/{name}/rounds.jsonl".replace("\\", "%5c"))[0] == 404


def test_page_of_another_host_cannot_read_runs(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        port = port_of(server)
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", "localhost", f"[::1]:{port}"):
            assert ask(server, "/runs.json", Host=host)[0] == 200, host
        for host in (f"evil.example:{port}", "evil.example", "127.0.0.1.evil.example", f"localhost.evil:{port}", ""):
            assert ask(server, "/runs.json", Host=host)[0] == 403, host


def test_polling_survives_runs_that_start_grow_and_vanish(tmp_path: Path) -> None:
    stop, problems = threading.Event(), []

    def live() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            folder = make_record(tmp_path / f"run-{number % 3}", rounds=3, ended=False)
            append(folder, 4, 5)
            with folder.rounds.open("a") as file:
                file.write('{"round": 6, "val')
                file.flush()
            truncate_rounds(folder.rounds, 2)
            shutil.rmtree(folder.path)

    thread = threading.Thread(target=live)
    with served(tmp_path) as server:
        thread.start()
        try:
            until, answers = time.monotonic() + 1.0, 0
            while time.monotonic() < until or not answers:
                names = [row["name"] for row in json.loads(ask(server, "/runs.json")[1])["runs"]]
                for name in names:
                    answer = json.loads(ask(server, f"/run.json?name={name}")[1])
                    answers += "view" in answer
                    if "problem" in answer:
                        problems.append(answer["problem"])
        finally:
            stop.set()
            thread.join()
    assert problems == []


def test_taken_port_and_file_are_refused(tmp_path: Path) -> None:
    with served(tmp_path) as server, pytest.raises(UserError, match=r"port: \d+ cannot be used: .*0 takes a free one"):
        WatchServer(tmp_path, port_of(server))
    with pytest.raises(UserError, match="port: 70000 cannot be used"):
        WatchServer(tmp_path, 70000)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="runs: must be a folder"):
        watch(tmp_path / "file", 0, print)


def test_missing_folder_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["watch", str(tmp_path / "rums"), "--port", "0"]) == 2
    message = capsys.readouterr().err
    assert message.startswith(
        f"fedscape: runs: must be a folder, and '{tmp_path / 'rums'}' does not exist. Name the fold"
    )
    assert not (tmp_path / "rums").exists()


@pytest.mark.parametrize("place", ["here", "default"])
def test_folder_without_a_run_is_announced(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(WatchServer, "serve", lambda self: None)
    root = tmp_path if place == "here" else None
    lines: list[str] = []
    watch(root, 0, lines.append)
    name = root or Path("runs")
    assert lines[0].startswith(f"{name} is served at http://127.0.0.1:")
    assert lines[1:] == [f"no run is in {name} yet; new runs appear on the page"]
    make_record(name / "run", rounds=2)
    lines.clear()
    watch(root, 0, lines.append)
    assert len(lines) == 1


@contextmanager
def command_watching(root: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run the command; yield its process and its port."""
    command = [sys.executable, "-m", "simulator.cli", "watch", str(root), "--port", "0"]
    # A background process of a shell without job control may have SIGINT ignored; the child must not inherit that.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/  \(Ctrl-C stops it\)", line)
        assert found, line
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("answered", [False, True])
def test_signal_ends_the_command_quietly(number: signal.Signals, answered: bool, tmp_path: Path) -> None:
    make_record(tmp_path / "run", rounds=2)
    with command_watching(tmp_path) as (process, port), socket.socket() as silent:
        if answered:  # with another connection that never sends its request
            silent.connect(("127.0.0.1", port))
            silent.send(b"GET / HT")
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/runs.json")
            assert connection.getresponse().read()
        process.send_signal(number)
        rest, errors = process.communicate(timeout=60)
        assert (process.returncode, rest, errors) == (0, "", "")
        if answered:
            connection.close()


def raw(server: WatchServer, request: bytes) -> bytes:
    """Send bytes and return the answer, up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=60) as connection:
        connection.sendall(request)
        answered = b""
        with suppress(ConnectionError):
            while part := connection.recv(1 << 16):
                answered += part
    return answered


def test_server_refuses_requests_without_one_host_and_requests_that_are_too_large(tmp_path: Path) -> None:
    local = b"Connection: close\r\nHost: localhost\r\n"
    with served(tmp_path) as server:
        assert b" 403 " in raw(server, b"GET /runs.json HTTP/1.0\r\n\r\n").splitlines()[0]
        assert b" 400 " in raw(server, b"GET /runs.json HTTP/1.1\r\n\r\n").splitlines()[0]
        two = b"GET /runs.json HTTP/1.1\r\n" + local + b"Host: evil.example\r\n\r\n"
        assert b" 400 " in raw(server, two).splitlines()[0]
        absolute = b"GET http://evil.example/runs.json HTTP/1.1\r\n" + local + b"\r\n"
        assert b" 404 " in raw(server, absolute).splitlines()[0]
        large = b"GET / HTTP/1.1\r\n" + local + b"X: " + bytes([97]) * LARGEST_HEAD
        assert b" 400 " in raw(server, large).splitlines()[0]
        assert ask(server, "/")[0] == 200


def test_every_answer_forbids_caching_and_content_sniffing(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        for path, host in (
            ("/", "localhost"),
            ("/runs.json", "localhost"),
            ("/no", "localhost"),
            ("/", "evil.example"),
        ):
            answered = raw(server, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            head = answered.partition(b"\r\n\r\n")[0].lower()
            for header in (b"cache-control: no-store", b"x-content-type-options: nosniff", b"referrer-policy: no-ref"):
                assert header in head, (path, host)
