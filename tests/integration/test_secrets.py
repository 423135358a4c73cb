"""No token, password or key of a URL is in any output: terminal, log, files of a run, report, errors and causes."""

from __future__ import annotations

import base64
import os
import re
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
from receivers import dripping_receiver, handling, silent_receiver

import fedscape as fs
from clients.core.errors import UserError
from clients.core.shown.secrets import login_of, token_of
from clients.core.shown.urls import bare_url
from clients.engines.native import build
from dashboards.prometheus import live, running
from server.record.environment import commit_of
from server.sinks.export import read_recorded, to_remote_write
from server.sinks.receiver import with_login
from server.sinks.remote_write import RemoteWriter
from simulator.cli.console import ConsoleObserver
from simulator.cli.main import main

TOKEN, PASSWORD, KEY, HUB = "t0ken/S3CRET+1", "p4ss/S3CRET@2", "k3y-S3CRET-3", "hf_S3CRET4"
LOGIN = f"me:{PASSWORD.replace('/', '%2F').replace('@', '%40')}@"
ENCODED = [base64.b64encode(word.encode()).decode().rstrip("=") for word in (f"me:{PASSWORD}", PASSWORD, TOKEN)]
Place = AbstractContextManager[str]


def assert_clean(text: str) -> None:
    """Assert that a text has no secret, also not encoded."""
    assert "S3CRET" not in text
    assert [word for word in ENCODED if word in text] == []


def echoing(status: int) -> Place:
    """Give the URL of a server that answers with all it was sent, in its text and in a header."""

    def handle(connection: socket.socket, over: threading.Event) -> None:
        head = b""
        while b"\r\n\r\n" not in head and not head.startswith(b"\x16"):  # how TLS begins
            head += _received(connection)
        head, _, body = head.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        while length is not None and len(body) < int(length[1]):
            body += _received(connection)
        sent = re.search(rb"Authorization: (\S+ \S+)", head)
        word = sent[1].decode() if sent is not None else ""
        if word.startswith("Basic "):
            word += " " + base64.b64decode(word[6:]).decode()
        text = f"you sent {word} to {head.decode('latin-1').splitlines()[0]}\x1b[2J".encode()
        location = f"Location: http://127.0.0.1:9/?token={TOKEN}\r\n".encode()
        start = f"HTTP/1.1 {status} Status\r\nConnection: close\r\nContent-Length: {len(text)}\r\n".encode()
        connection.sendall(start + location + b"\r\n" + text)

    return handling(handle)


def _received(connection: socket.socket) -> bytes:
    piece = connection.recv(1 << 16)
    if not piece:
        raise ConnectionError
    return piece


def encrypted(place: Callable[[], Place]) -> Callable[[], Place]:
    @contextmanager
    def https() -> Iterator[str]:
        with place() as url:
            yield url.replace("http://", "https://")

    return https


PLACES: dict[str, Callable[[], Place]] = {
    "refused": lambda: nullcontext("http://127.0.0.1:9/api/v1/write"),
    "no such host": lambda: nullcontext("http://no.such.host.invalid/api/v1/write"),
    "redirect": lambda: echoing(307),
    "400": lambda: echoing(400),
    "401": lambda: echoing(401),
    "500": lambda: echoing(500),
    "no TLS": encrypted(lambda: echoing(400)),
    "silent": silent_receiver,
    "dripping": lambda: dripping_receiver(b"HTTP/1.1 400 " + TOKEN.encode() + b"\r\n", b"X: y\r\n"),
}
every_place = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)


def in_files(folder: Path) -> str:
    return "\n".join(file.read_bytes().decode("latin-1") for file in sorted(folder.rglob("*")) if file.is_file())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "quadratic"
    fs.simulate("quadratic-two-clients", out=folder)
    return folder


@every_place
@pytest.mark.parametrize("login", ["token", "password"])
def test_run_shows_no_secret_of_its_receiver(
    place: Callable[[], Place],
    login: str,
    finished: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    token = f"{TOKEN}\n" if login == "token" else None
    with place() as bare:
        url = (bare if login == "token" else bare.replace("://", f"://{LOGIN}")) + f"?key={KEY}#{KEY}"
        writer = RemoteWriter(url, token=token, timeout=0.3, patience=0.1)
        fs.simulate("quadratic-two-clients", out=tmp_path / "run", observers=[ConsoleObserver(), writer])
        with pytest.raises(UserError) as caught:
            to_remote_write(read_recorded(finished), url, "round", token=token, timeout=0.3, patience=0.1)
    errors = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    printed = capfd.readouterr()
    for text in (errors, printed.out, printed.err, caplog.text, in_files(tmp_path), str(writer.tally)):
        assert_clean(text)
    assert not writer.tally.complete
    for text in (printed.out, (tmp_path / "run" / "events.jsonl").read_text(), errors):
        assert f"--url {bare} --clock round (complete the URL" in text, "the run must say where to send it again"
        assert "\x1b" not in text


MALFORMED = [
    f"http://me:{PASSWORD}@host/x", f"http://{LOGIN}host:port/x", f"htp://{LOGIN}host/x", f"//{LOGIN}host",
    f"me:{PASSWORD}@host",
    f"http:/{LOGIN}host/x", f"http:{LOGIN}host/x", f"http://me:{PASSWORD}", f"http://[{PASSWORD}]@host/x",
    f"http://{LOGIN}ho st/x", f"http://{LOGIN}[::1/x", f"http://me:x?{KEY}@host:port/", f"http://me:x#{KEY}@host:port/",
    f"http://me:{KEY}", f"http://host:port/?key={KEY}", f"host?key={KEY}", f"http://{LOGIN}", f"http://me:{KEY}%40host/x",
]  # fmt: skip


@pytest.mark.parametrize("url", MALFORMED)
def test_malformed_url_is_refused_without_its_secrets(
    url: str, finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDSCAPE_GRAFANA_TOKEN", TOKEN)
    assert_clean(bare_url(url))
    for command in (
        ["run", "quadratic-two-clients", "--out", str(tmp_path / "run"), "--remote-write", url],
        ["export", str(finished), "--to", "remote-write", "--url", url],
        ["dashboards", "push", "--url", url],
    ):
        assert main(command) == 2
    printed = capfd.readouterr()
    assert_clean(printed.out + printed.err)
    assert printed.err.count("\n") == 3
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("token", [f"{TOKEN}\n{KEY}", f"Bearer {TOKEN}", f"{TOKEN}\x00", f"{TOKEN}é", "", " \n"])
@pytest.mark.parametrize("variable", ["FEDSCAPE_REMOTE_WRITE_TOKEN", "FEDSCAPE_GRAFANA_TOKEN"])
@pytest.mark.parametrize("as_file", [False, True], ids=["variable", "file"])
def test_invalid_token_is_refused_before_the_run_and_not_shown(
    token: str,
    variable: str,
    as_file: bool,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if as_file:
        (tmp_path / "token").write_text(token)
        monkeypatch.setenv(f"{variable}_FILE", str(tmp_path / "token"))
    elif "\0" in token:
        return  # no environment holds it
    else:
        monkeypatch.setenv(variable, token)
    run = ["run", "quadratic-two-clients", "--out", str(tmp_path / "run"), "--remote-write", "http://127.0.0.1:9/"]
    assert main(["dashboards", "push"] if "GRAFANA" in variable else run) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"fedscape: {variable}{'_FILE' if as_file else ''}: ")
    assert error.count("\n") == 1
    assert_clean(error)
    assert not (tmp_path / "run").exists()


def test_token_is_read_without_white_space_from_a_variable_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert token_of("A_TOKEN") is None
    monkeypatch.setenv("A_TOKEN", f" {TOKEN}\r\n")
    assert token_of("A_TOKEN") == TOKEN
    monkeypatch.setenv("A_TOKEN_FILE", str(tmp_path / "token"))
    with pytest.raises(UserError, match="A_TOKEN: and A_TOKEN_FILE are both set"):
        token_of("A_TOKEN")
    monkeypatch.delenv("A_TOKEN")
    with pytest.raises(
        UserError, match=r"A_TOKEN_FILE: names a file that cannot be read \(No such file or directory\)"
    ):
        token_of("A_TOKEN")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert token_of("A_TOKEN") == TOKEN
    (tmp_path / "token").write_text("x" * 70_000)
    with pytest.raises(UserError, match="more than 65,536 bytes"):
        token_of("A_TOKEN")


@every_place
def test_push_shows_no_secret(
    place: Callable[[], Place], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDSCAPE_GRAFANA_TOKEN", f"{TOKEN}\n")
    with place() as url:
        assert main(["dashboards", "push", "--url", url, "--timeout", "0.3"]) == 2
    printed = capfd.readouterr()
    assert_clean(printed.out + printed.err)
    assert printed.err.startswith(f"fedscape: {url}: ")
    assert printed.err.count("\n") == 1
    assert "\x1b" not in printed.err


def test_scenario_with_a_password_in_a_url_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change = ["--set", f"title=data of http://{LOGIN}host/data?key={KEY}"]
    for command in (["run", "--out", str(tmp_path / "run")], ["show"], ["data", "--out", str(tmp_path)]):
        assert main([command[0], "quadratic-two-clients", *command[1:], *change]) == 2
    printed = capfd.readouterr()
    assert_clean(printed.out + printed.err)
    assert printed.err.count("title: has a URL with a login") == 3
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words",
    [[f"http://{LOGIN}host/x"], ["quadratic-two-clients", f"http://{LOGIN}host/x"],
     ["quadratic-two-clients", "--seed", f"http://{LOGIN}host/x"], ["--set", f"data.path=http://{LOGIN}host/x"]],
)  # fmt: skip
def test_mistake_on_the_command_line_shows_no_password(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *words]) == 2
    assert_clean(capfd.readouterr().err)


def test_failing_observer_shows_no_url_with_a_password(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Fails:
        def round_finished(self, line: dict[str, object]) -> None:
            raise OSError(f"cannot send to http://{LOGIN}host/x?key={KEY}\x1b[2J")

    fs.simulate("quadratic-two-clients", out=tmp_path / "run", observers=[ConsoleObserver(), Fails()])
    assert_clean(capfd.readouterr().out + in_files(tmp_path))
    assert r"OSError: cannot send to http://host/x" in (tmp_path / "run" / "events.jsonl").read_text()


def test_environment_of_a_run_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, HUB)
    assert main(["run", "quadratic-two-clients", "--out", str(tmp_path / "run")]) == 0
    assert_clean(in_files(tmp_path))


def test_login_is_read_from_a_variable_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert login_of("A_LOGIN") is None
    monkeypatch.setenv("A_LOGIN", f"me:{PASSWORD}\n")
    assert login_of("A_LOGIN") == LOGIN.rstrip("@")
    monkeypatch.delenv("A_LOGIN")
    (tmp_path / "login").write_text(f"me:{PASSWORD}\r\n")
    monkeypatch.setenv("A_LOGIN_FILE", str(tmp_path / "login"))
    assert with_login("http://host:1/x?a=b", login_of("A_LOGIN")) == f"http://{LOGIN}host:1/x?a=b"


@pytest.mark.parametrize("login", [PASSWORD, "me:", f":{PASSWORD}", f"me:{PASSWORD}\nmore", f"me:{PASSWORD}\x07", ""])
def test_invalid_login_is_refused_before_the_run_and_not_shown(
    login: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "login").write_text(login)
    monkeypatch.setenv("FEDSCAPE_REMOTE_WRITE_LOGIN_FILE", str(tmp_path / "login"))
    run = ["run", "quadratic-two-clients", "--out", str(tmp_path / "run"), "--remote-write", "http://127.0.0.1:9/"]
    assert main(run) == 2
    error = capfd.readouterr().err
    assert error.startswith("fedscape: FEDSCAPE_REMOTE_WRITE_LOGIN_FILE: must be user:password on one line")
    assert_clean(error)
    assert not (tmp_path / "run").exists()


def test_login_of_the_environment_reaches_the_receiver_and_no_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDSCAPE_REMOTE_WRITE_LOGIN", f"me:{PASSWORD}")
    with echoing(400) as url:
        assert main(["run", "quadratic-two-clients", "--out", str(tmp_path / "run"), "--remote-write", url]) == 0
    printed = capfd.readouterr()
    assert_clean(printed.out + printed.err + in_files(tmp_path))
    assert "you sent Basic (hidden) me:(hidden)" in printed.out + in_files(tmp_path)


def test_login_on_the_command_line_is_warned_of(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with echoing(400) as url:  # one that refuses at once: an unreachable one is tried for half a minute
        main(["export", str(finished), "--to", "remote-write", "--url", url.replace("://", f"://{LOGIN}")])
    error = capfd.readouterr().err
    assert "--url has a login, and every user of this machine can read it" in error
    assert_clean(error)


@pytest.mark.parametrize("option", ["--live-url", "--runs-url"])
def test_login_of_a_data_source_is_refused(
    option: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDSCAPE_GRAFANA_TOKEN", TOKEN)
    assert main(["dashboards", "push", option, f"http://{LOGIN}host:9090"]) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"fedscape: {option}: must not hold a login")
    assert_clean(error)


@pytest.mark.parametrize("program", ["compiler", "git", "prometheus"])
def test_child_process_gets_no_secret(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "FEDSCAPE_GRAFANA_TOKEN", "FEDSCAPE_REMOTE_WRITE_LOGIN",
                     "DB_PASSWORD", "SOME_API_KEY"):  # fmt: skip
        monkeypatch.setenv(variable, HUB)
    monkeypatch.setenv("KEPT", "kept")
    child = tmp_path / program
    child.write_text(f"#!/bin/sh\nenv > {tmp_path}/seen\nexit 1\n")
    child.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    if program == "compiler":
        build._run([str(child)])
    elif program == "git":
        (tmp_path / ".git").mkdir()
        assert commit_of(tmp_path) is None
    else:
        with pytest.raises(UserError), running([live(free_port())], tmp_path / "data", program="prometheus"):
            pass
    seen = (tmp_path / "seen").read_text()
    assert_clean(seen)
    assert "KEPT=kept" in seen


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
