"""The HTTP connection of remote write is reused or reopened, bounded in time and size, and follows no redirect."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from receivers import dripping_receiver, receiving, silent_receiver

from clients.core.errors import UserError
from server.metrics.run_stream import Moment
from server.metrics.samples import Sample
from server.sinks.receiver import LONGEST_ANSWER, Receiver
from server.sinks.write_request import RequestEncoder

BODY = RequestEncoder(()).body([Moment(1, [Sample("a", (), 1.0)])])


@contextmanager
def answering(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Serve each answer on a connection of its own, closed afterwards; yield the URL and the requests received."""
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)

        def serve() -> None:
            for one in answers:
                connection, _ = server.accept()
                with connection:
                    request = b""
                    while not request.endswith(BODY):
                        request += connection.recv(1 << 16)
                    requests.append(request)
                    connection.sendall(one)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/api/v1/write", requests
        thread.join(10)


def test_receiver_opens_a_connection_again_where_the_other_side_closed_it() -> None:
    taken = b"HTTP/1.1 204 No Content\r\n\r\n"  # it closes without announcing it
    with answering(taken, taken, taken) as (url, requests):
        receiver = Receiver(url)
        assert [receiver.post(BODY).kind for _ in range(3)] == ["taken"] * 3
        receiver.close()
    assert len(requests) == 3


def test_redirect_gets_neither_samples_nor_token() -> None:
    with receiving() as other:
        moved = f"HTTP/1.1 307 Moved\r\nLocation: {other.url}\r\nContent-Length: 0\r\n\r\n".encode()
        with answering(moved) as (url, requests):
            receiver = Receiver(url, token="s3cret")
            found = receiver.post(BODY)
            receiver.close()
        assert (found.kind, found.words) == ("hopeless", "HTTP 307; the URL leads elsewhere")
        assert b"Bearer s3cret" in requests[0]
        assert other.requests == 0


def test_long_answer_is_read_to_its_limit_only() -> None:
    endless = b"HTTP/1.1 400 Bad\r\nContent-Length: 1000000000\r\n\r\n" + b"no " * LONGEST_ANSWER
    with answering(endless) as (url, _):
        receiver = Receiver(url, timeout=5.0)
        found = receiver.post(BODY)
        receiver.close()
    assert found.kind == "refused"
    assert found.words.startswith("HTTP 400: no no")
    assert len(found.words) < 220


def test_silent_receiver_is_given_up_after_the_timeout() -> None:
    with silent_receiver() as url:
        receiver = Receiver(url, timeout=0.2)
        found = receiver.post(BODY)
        receiver.close()
    assert (found.kind, found.words) == ("later", "no answer within 0.2 seconds")


HEAD = b"HTTP/1.1 %d Status\r\nContent-Length: 1000000\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "drip", "kind", "words"),
    [
        (b"HTTP/1.1 2", b"0", "later", "no answer within 0.3 seconds"),
        (b"HTTP/1.1 204 No Content\r\n", b"X-More: yes\r\n", "later", "no answer within 0.3 seconds"),
        (HEAD % 200, b"x", "taken", ""),
        (HEAD % 400 + b"out of ", b"bounds ", "refused", "HTTP 400: out of bounds"),
        (HEAD % 503 + b"later ", b"", "later", "HTTP 503: later"),
    ],
    ids=["a status without an end", "headers without an end", "taken", "refused", "a body that stops"],
)
def test_dripping_answer_ends_with_the_time_of_the_request(start: bytes, drip: bytes, kind: str, words: str) -> None:
    with dripping_receiver(start, drip) as url:
        receiver = Receiver(url, timeout=0.3)
        found = receiver.post(BODY)
        receiver.close()
    assert found.kind == kind
    assert found.words.startswith(words)


def test_receiver_that_does_not_read_is_given_up_after_the_timeout() -> None:
    with silent_receiver() as url:
        receiver = Receiver(url, timeout=0.3)
        assert receiver.post(bytes(1 << 25)).words == "no answer within 0.3 seconds"
        receiver.close()


def test_resolver_that_hangs_is_given_up_after_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(60) and [])
    receiver = Receiver("http://slow.invalid/", timeout=0.2)
    assert receiver.post(BODY).words == "no answer within 0.2 seconds"
    receiver.close()
    over.set()


def test_answer_cannot_act_on_a_terminal() -> None:
    with receiving(lambda series, before: (400, "\x1b[2J\u202egreen\x07\rred")) as other:
        receiver = Receiver(other.url)
        assert receiver.post(BODY).words == r"HTTP 400: \x1b[2J\u202egreen\x07 red"
        receiver.close()


def test_environment_sets_neither_proxy_nor_login(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with receiving() as other:
        receiver = Receiver(other.url)
        assert receiver.post(BODY).kind == "taken"
        receiver.close()
        assert "Authorization" not in other.headers[0]


@pytest.mark.parametrize("token", ["two\nlines", "tokén"])
def test_token_that_no_header_can_hold_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(UserError, match="FEDSCAPE_REMOTE_WRITE_TOKEN") as caught:
        Receiver("http://127.0.0.1:9/", token=token)
    assert token not in str(caught.value)


@pytest.mark.parametrize("url", ["htp://me:s3cret@host/x", "http://me:s3cret@host:port/x", "//me:s3cret@"])
def test_message_on_a_wrong_url_hides_the_password(url: str) -> None:
    with pytest.raises(UserError, match="remote-write") as caught:
        Receiver(url)
    assert "s3cret" not in str(caught.value)
