"""Remote write to receivers that refuse, fail, stay silent or recover: losses are reported, and the run never waits."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from prometheus_servers import eventually
from receivers import STALE, Key, Point, dripping_receiver, receiving, silent_receiver
from run_folders import digits

import fedscape as fs
from clients.core.errors import UserError
from server.metrics.run_stream import recorded_moments
from server.metrics.timeline import EPOCH_MS
from server.rounds.loop import BY_THE_CLOCK
from server.sinks.receiver import Receiver, answer
from server.sinks.remote_write import RemoteWriter, send_recorded
from server.sinks.sender import BATCHES_IN_VAIN, MOST_PARTS

FACTS = {"run_id": "a", "rounds": 3, "label_emd": None}
Series = list[tuple[Key, list[Point]]]


def line(r: int, **more: Any) -> dict[str, Any]:
    return {"round": r, "simulated_seconds_total": 1.5 * r, "bytes_total": 8 * r, "train_loss": 1 / (1 + r), **more}


def lines(count: int) -> list[dict[str, Any]]:
    return [line(r) for r in range(count)]


class Events:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def event(self, event: dict[str, Any]) -> None:
        self.events.append(event)


def play(writer: RemoteWriter, rounds: Sequence[dict[str, Any]], *, before: int = 0) -> list[dict[str, Any]]:
    """Give a writer a whole run; return the events it announced."""
    events: list[dict[str, Any]] = []
    writer.attached(events.append)
    writer.run_started(FACTS)
    if before:
        writer.recorded_before(rounds[:before])
    for one in rounds[before:]:
        writer.round_finished(one)
    writer.run_finished({"outcome": "stopped", "round": len(rounds) - 1, "test_loss": 0.5})
    return events


def everything(rounds: Sequence[dict[str, Any]], *, ended: bool = True) -> dict[tuple[Key, int], bytes]:
    """Return the samples that a whole run should store."""
    outcome = {"outcome": "stopped", "round": len(rounds) - 1, "test_loss": 0.5} if ended else None
    stream, moments = recorded_moments(FACTS, rounds, outcome, "round")
    found: dict[tuple[Key, int], bytes] = {}
    for moment in moments:
        for name, labels, value in moment.samples:
            found[_key(name, labels, stream.labels), moment.at] = struct.pack("<d", value)
        for name, labels in moment.ends:
            found[_key(name, labels, stream.labels), moment.at] = STALE
    return found


def _key(name: str, labels: Key, shared: Key) -> Key:
    return tuple(sorted((("__name__", name), *((k, v) for k, v in (*labels, *shared) if v))))


def stored(receiver: Any) -> dict[tuple[Key, int], bytes]:
    return {(key, at): raw for key, points in receiver.stored.items() for at, raw in points.items()}


def test_writer_sends_every_round_with_its_time_and_the_ends() -> None:
    with receiving() as receiver:
        writer = RemoteWriter(receiver.url)
        assert play(writer, lines(120)) == []
        assert stored(receiver) == everything(lines(120))
        losses = receiver.values("fedscape_loss", split="train", run_id="a", clock="round")
        assert losses == {EPOCH_MS + 1000 * r: 1 / (1 + r) for r in range(120)}
        assert writer.tally.sent == len(stored(receiver))
        assert writer.tally.complete
        assert receiver.requests < 120, "queued rounds share a request"


def test_record_sends_the_same_as_the_live_run() -> None:
    with receiving() as live, receiving() as later:
        kept = _Facts()
        run = fs.simulate(digits(), record=False, observers=[RemoteWriter(live.url), kept])
        send_recorded(Receiver(later.url), kept.facts, run.rounds.lines, run.outcome, "round")
        assert stored(live) == stored(later)
        losses = live.values("fedscape_loss", split="validation")
        assert list(losses.values()) == run.rounds["validation_loss"].tolist()


class _Facts:
    def run_started(self, facts: dict[str, Any]) -> None:
        self.facts = facts


def test_resumed_run_continues_its_counters() -> None:
    rounds = [line(r, respondents=2, failures=1) if r else line(0) for r in range(10)]
    with receiving() as receiver:
        play(RemoteWriter(receiver.url), rounds, before=6)
        counted = receiver.values("fedscape_client_responses_total")
        assert counted == {EPOCH_MS + 1000 * r: 2.0 * r for r in range(6, 10)}
        whole = everything(rounds)
        assert stored(receiver) == {k: raw for k, raw in whole.items() if k[1] >= EPOCH_MS + 6000}


def test_receiver_that_is_down_for_a_while_loses_nothing() -> None:
    def away(series: Series, before: int) -> tuple[int, str]:
        return (503, "starting") if before < 3 else (204, "")

    with receiving(away) as receiver:
        writer = RemoteWriter(receiver.url)
        play(writer, lines(30))
        assert stored(receiver) == everything(lines(30))
        assert writer.tally.failed == 3
        assert writer.tally.complete


@pytest.mark.parametrize(("status", "text"), [(400, "duplicate sample for timestamp"), (500, "too old sample")])
def test_bad_series_costs_its_own_samples_only(status: int, text: str) -> None:
    def refuse(series: Series, before: int) -> tuple[int, str]:
        return (status, text) if any(dict(key)["__name__"] == "fedscape_round" for key, _ in series) else (204, "")

    with receiving(refuse) as receiver:
        writer = RemoteWriter(receiver.url)
        events = play(writer, lines(20))
        whole = everything(lines(20))
        good = {k: raw for k, raw in whole.items() if ("__name__", "fedscape_round") not in k[0]}
        assert stored(receiver) == good
        assert writer.tally.refused == len(whole) - len(good)
        assert text in events[-1]["message"]
        assert f"{writer.tally.refused} samples were refused" in events[-1]["message"]
        assert "fedscape export RUN --to remote-write" in events[-1]["message"]


def test_bad_moment_costs_its_own_samples_only() -> None:
    bad = EPOCH_MS + 7000

    def refuse(series: Series, before: int) -> tuple[int, str]:
        return (400, "out of order sample") if any(at == bad for _, p in series for at, _ in p) else (204, "")

    few = [{"round": r} for r in range(12)]
    whole = everything(few, ended=False)
    good = {k: raw for k, raw in whole.items() if k[1] != bad}
    with receiving(refuse) as receiver:
        tally = send_recorded(Receiver(receiver.url), FACTS, few, None, "round")
        assert stored(receiver) == good
        assert (tally.sent, tally.refused) == (len(good), len(whole) - len(good))


def test_refused_samples_are_not_sent_for_ever() -> None:
    with receiving(lambda series, before: (400, "out of bounds")) as receiver:
        writer = RemoteWriter(receiver.url)
        events = play(writer, lines(2000))
        assert receiver.requests <= (BATCHES_IN_VAIN + 2) * MOST_PARTS
        assert not receiver.stored
        assert not writer.tally.complete
        assert events[-1]["kind"] == "samples_not_sent"


@pytest.mark.parametrize(("status", "words"), [(404, "--web.enable-remote-write-receiver"), (401, "wants a login"),
                                               (403, "may not write"), (302, "leads elsewhere")])  # fmt: skip
def test_wrong_address_is_tried_once_and_reported(status: int, words: str) -> None:
    with receiving(lambda series, before: (status, "")) as receiver:
        writer = RemoteWriter(receiver.url)
        events = play(writer, lines(50))
        assert receiver.requests == 1
        assert writer.tally.dropped == 50
        assert "50 rounds were not sent" in events[-1]["message"]
        assert words in events[-1]["message"]


def test_silent_receiver_does_not_slow_the_run_and_costs_bounded_memory() -> None:
    plain = fs.simulate(digits("run.rounds=40"), record=False)
    seen = Events()
    with silent_receiver() as url:
        writer = RemoteWriter(url, timeout=0.4, patience=0.3, most_waiting=8)
        started = time.perf_counter()
        run = fs.simulate(digits("run.rounds=40"), record=False, observers=[seen, writer])
        spent = time.perf_counter() - started
    assert writer.waiting <= 8 + 50
    assert writer.tally.sent == 0
    assert writer.tally.dropped + writer.tally.waiting == 41
    assert spent < 30
    assert _numbers(run) == _numbers(plain)
    (last,) = [event for event in seen.events if event["kind"] == "samples_not_sent"]
    assert "41 rounds were not sent" in last["message"]


def test_end_of_a_run_does_not_wait_for_a_dripping_receiver() -> None:
    with dripping_receiver(b"HTTP/1.1 2", b"0") as url:
        writer = RemoteWriter(url, timeout=60.0, patience=0.2)
        events = play(writer, lines(10))
    assert writer.tally.waiting == 10
    assert "10 rounds were not sent (no answer yet). To send all again: fedscape export RUN" in events[-1]["message"]


@pytest.mark.parametrize("start", [b"HTTP/1.1 2", b"HTTP/1.1 503 Busy\r\nContent-Length: 99999\r\n\r\n"])
def test_export_to_a_dripping_receiver_ends_with_its_patience(start: bytes) -> None:
    with dripping_receiver(start, b"0") as url:
        tally = send_recorded(Receiver(url, timeout=0.2), FACTS, lines(100), None, "round", patience=0.5)
    assert (tally.sent, tally.dropped) == (0, 100)
    assert tally.failed >= 1


def test_export_to_a_slow_receiver_that_refuses_ends_with_its_patience() -> None:
    def refuse(series: Series, before: int) -> tuple[int, str]:
        time.sleep(0.1)
        return 400, "out of bounds"

    with receiving(refuse) as receiver:
        tally = send_recorded(Receiver(receiver.url), FACTS, lines(500), None, "round", patience=0.3)
        assert receiver.requests < 60
    assert tally.sent == 0
    assert not tally.complete


def _numbers(run: fs.Run) -> str:
    return repr([{k: v for k, v in one.items() if k not in BY_THE_CLOCK} for one in run.rounds.lines])


def test_writer_drops_the_oldest_rounds_first() -> None:
    with silent_receiver() as url:
        writer = RemoteWriter(url, timeout=5.0, patience=0.0, most_waiting=3)
        writer.run_started(FACTS)
        for one in lines(200):
            writer.round_finished(one)
            assert len(writer._queue) <= 3
        assert [waiting.line["round"] for waiting in writer._queue] == [197, 198, 199]
        writer.close()


def test_samples_in_the_future_are_not_sent() -> None:
    ahead = [line(r, finished_at=time.time() + (3600 if r == 2 else -10)) for r in range(3)]
    with receiving() as receiver:
        tally = send_recorded(Receiver(receiver.url), FACTS, ahead, None, "wall")
        assert len(receiver.values("fedscape_round")) == 2
        assert tally.refused > 0
        assert "future" in tally.words
    years = [line(0), line(1, simulated_seconds_total=40 * 365 * 86400.0)]
    with receiving() as receiver:
        tally = send_recorded(Receiver(receiver.url), FACTS, years, None, "simulated")
        assert receiver.values("fedscape_round") == {EPOCH_MS: 0.0}
        assert not tally.complete


def test_login_is_sent_and_never_shown() -> None:
    with receiving(lambda series, before: (400, "no")) as receiver:
        url = receiver.url.replace("//", "//me:s3cret%21@")
        events = play(RemoteWriter(url), lines(3))
        assert receiver.headers[0]["Authorization"] == "Basic bWU6czNjcmV0IQ=="
        assert "s3cret" not in events[-1]["message"]
        assert receiver.url in events[-1]["message"]
    with receiving() as receiver:
        play(RemoteWriter(receiver.url, token="t0ken"), lines(3))
        assert receiver.headers[0]["Authorization"] == "Bearer t0ken"
        assert receiver.headers[0]["X-Prometheus-Remote-Write-Version"] == "0.1.0"
        assert receiver.headers[0]["Content-Encoding"] == "snappy"


@pytest.mark.parametrize("url", ["localhost:9090", "ftp://x/y", "http://", "http://host:port/x", ""])
def test_invalid_url_is_refused_before_the_run(url: str) -> None:
    with pytest.raises(UserError, match="remote-write"):
        RemoteWriter(url)


def test_unknown_clock_is_refused_before_the_run() -> None:
    with pytest.raises(UserError, match="clock"):
        RemoteWriter("http://127.0.0.1:1/", clock="rounds")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [(200, "", "taken"), (204, "", "taken"), (429, "", "later"), (408, "", "later"), (502, "", "later"),
     (500, "out of order sample", "refused"), (413, "", "refused"), (422, "", "refused"), (405, "", "hopeless")],
)  # fmt: skip
def test_http_status_decides_what_becomes_of_the_samples(status: int, text: str, kind: str) -> None:
    assert answer(status, text).kind == kind


def test_failing_receiver_is_announced_once() -> None:
    seen = Events()
    writer = RemoteWriter("http://127.0.0.1:9/api/v1/write", patience=0.0)
    fs.simulate(digits("run.rounds=40"), record=False, observers=[seen, writer, _UntilFailed(writer)])
    kinds = [event["kind"] for event in seen.events]
    assert kinds.count("remote_write_failing") == 1
    assert kinds[-1] == "samples_not_sent"


class _UntilFailed:
    """Holds each round until the writer has failed once."""

    def __init__(self, writer: RemoteWriter) -> None:
        self._writer = writer

    def round_finished(self, line: dict[str, Any]) -> None:
        eventually(lambda: self._writer.tally.failed, seconds=60)


def test_nan_and_infinity_are_sent_unchanged() -> None:
    with receiving() as receiver:
        play(RemoteWriter(receiver.url), [line(0), line(1, train_loss=math.nan), line(2, train_loss=math.inf)])
        found = receiver.values("fedscape_loss", split="train")
        assert np.isnan(found[EPOCH_MS + 1000])
        assert found[EPOCH_MS + 2000] == math.inf


def test_writer_without_a_run_closes_twice() -> None:
    writer = RemoteWriter("http://127.0.0.1:9/")
    writer.close()
    writer.close()
