"""The console: the header, some of the rounds as lines or a live display, and the verdict."""

import io
import math
import re
from typing import Any

import pytest

from simulator.cli.console import MOST_EVENTS, ConsoleObserver
from simulator.cli.console_text import nearing

FACTS = {
    "version": "0.1",
    "scenario": "digits-label-skew",
    "seed": 7,
    "clients": 100,
    "examples": 1437,
    "label_js": 0.42,
    "label_emd": 1.31,
    "cohort": 20,
    "model": "mlp 64-64-10",
    "parameters": 4810,
    "engine": "stacked, tile 20",
    "engine_reason": "probe: plain 41 ms a round, stacked 3 ms",
    "rounds": 200,
}
CRITERIA = {
    "settled": {"value": 8e-4, "threshold": 1e-3, "held": 0, "needed": 3, "holds": False, "words": ""},
    "plateau": {
        "value": 0.284,
        "threshold": 0.28,
        "held": 3,
        "needed": 5,
        "holds": False,
        "words": "validation loss did not improve",
    },
    "agreement": {
        "value": 0.991,
        "threshold": 0.99,
        "held": 0,
        "needed": 3,
        "words": "share of unchanged predictions 0.991",
    },
}
OUTCOME = {
    "outcome": "converged",
    "round": 61,
    "headline": "Converged at round 61",
    "reasons": ["validation loss did not beat its best by 0.001 in 5 rounds", "share of unchanged predictions 0.994"],
    "hint": "",
    "test_accuracy": 0.921,
    "test_loss": 0.3,
    "client_spread": {"worst": 0.71, "lowest_tenth": 0.8},
    "to_target": {"metric": "validation_accuracy", "value": 0.9, "rounds": 39, "bytes": 29e6, "simulated_seconds": 840},
    "rate": {"factor": 0.956, "low": 0.949, "high": 0.963},
    "drift": {"words": "rose to round 12, then fell", "worst_clients": ["17", "83", "4"], "worst_rounds": [9, 7, 1]},
    "baselines": {"pooled_accuracy": 0.957},
    "record": "runs/digits-label-skew-1121-0714-7f3a/",
}


def line(index: int, **more: Any) -> dict[str, Any]:
    return {
        "round": index,
        "train_loss": 0.5,
        "validation_loss": 0.284,
        "validation_accuracy": 0.913,
        "client_drift": {"mean": 0.021},
        "update_dispersion": 0.34,
        "respondents": 20,
        "clients_per_second": 1240.0,
        "criteria": CRITERIA,
    } | more


class Terminal(io.StringIO):
    """A terminal that counts its writes."""

    encoding = "utf-8"

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LINES", "40")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def plain(text: str) -> str:
    """Remove a terminal's control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_header_names_scenario_clients_model_and_engine() -> None:
    stream = io.StringIO()
    ConsoleObserver(stream).run_started(FACTS)
    assert stream.getvalue() == (
        "fedscape 0.1 · scenario digits-label-skew · seed 7\n"
        "  100 clients, 1,437 examples · label JS 0.42, EMD 1.31 · cohort 20 · mlp 64-64-10, 4,810 parameters\n"
        "  engine stacked, tile 20 (probe: plain 41 ms a round, stacked 3 ms)\n"
        "\n"
    )


def test_header_names_workers_and_tile_in_the_words_of_the_plan() -> None:
    stream = io.StringIO()
    ConsoleObserver(stream).run_started(FACTS | {"engine": "stacked", "engine_words": "stacked, 2 workers, tile 5"})
    assert "\n  engine stacked, 2 workers, tile 5 (probe: plain 41 ms a round, stacked 3 ms)\n" in stream.getvalue()


def test_header_explains_the_error_of_forecasts() -> None:
    stream = io.StringIO()
    ConsoleObserver(stream).run_started(FACTS | {"error": "root mean squared error, in deviations of the readings"})
    assert stream.getvalue().endswith("  error: root mean squared error, in deviations of the readings\n\n")


def test_verdict_is_a_headline_with_reasons_and_a_table() -> None:
    stream = io.StringIO()
    ConsoleObserver(stream).run_finished(OUTCOME)
    assert stream.getvalue() == (
        "\n"
        "Converged at round 61\n"
        "  - validation loss did not beat its best by 0.001 in 5 rounds\n"
        "  - share of unchanged predictions 0.994\n"
        "  test accuracy   0.921   (worst client 0.71, lowest tenth 0.80; pooled training reaches 0.957)\n"
        "  to target       39 rounds, 29 MB, 14 simulated minutes   (validation accuracy at least 0.9)\n"
        "  rate            0.956 a round (0.949 to 0.963)\n"
        "  client drift    rose to round 12, then fell   (clients most often among a round's 3 largest drifts: "
        "17 (9 rounds), 83 (7 rounds), 4 (1 round))\n"
        "  record          runs/digits-label-skew-1121-0714-7f3a/\n"
    )


def test_divergence_ends_with_hints() -> None:
    stream = io.StringIO()
    ConsoleObserver(stream).run_finished(
        {
            "outcome": "diverged",
            "headline": "Diverged at round 9",
            "reasons": ["training loss 14.2 is 31 times its best 0.458", "the limit is 20 times"],
            "hint": "the last finite parameters are kept (round 8).\nOften: local_lr too high [0.5 x 40 local steps].",
            "test_error": math.nan,
            "rate": {"no_trend": "only 9 rounds"},
            "to_target": None,
            "baselines": None,
        }
    )
    assert stream.getvalue() == (
        "\n"
        "Diverged at round 9\n"
        "  - training loss 14.2 is 31 times its best 0.458\n"
        "  - the limit is 20 times\n"
        "  the last finite parameters are kept (round 8).\n"
        "  Often: local_lr too high [0.5 x 40 local steps].\n"
        "  test error      nan\n"
        "  rate            loss has no single rate: only 9 rounds\n"
    )


def test_table_shows_errors_baselines_and_rounds_to_go() -> None:
    stream = io.StringIO()
    ConsoleObserver(stream).run_finished(
        {
            "outcome": "stopped",
            "round": 50,
            "test_error": 2.345,
            "client_spread": {"worst": 7.0, "highest_tenth": 5.25, "evaluated_on": "held-out examples"},
            "baselines": {"pooled_error": 1.5, "local_only_mean": 3.25, "weight_divergence": 0.31},
            "to_target": {"metric": "validation_error", "value": 2.5, "rounds": 1, "bytes": 1.5e9},
            "rate": {"factor": 0.9},
            "rounds_to_go": {"estimate": 12.2, "low": 8.4, "high": math.inf},
        }
    )
    assert stream.getvalue().splitlines()[1:] == [
        "Stopped at round 50",
        "  test error      2.35   (worst client 7, highest tenth 5.2 on their held-out examples; pooled training"
        " reaches 1.5; training alone 3.25 on average)",
        "  to target       1 round, 1.5 GB   (validation error at most 2.5)",
        "  rate            0.900 a round, about 12 rounds to go (8 or more)",
        "  vs pooled       weight divergence 0.31 at equal work",
    ]


def test_console_needs_no_key_of_a_line_or_outcome() -> None:
    stream = io.StringIO()
    console = ConsoleObserver(stream)
    console.run_started({})
    console.round_finished({})
    console.round_finished({"round": 1, "criteria": {"plateau": {}}, "client_drift": {}, "validation_loss": None})
    console.event({})
    console.run_finished({})
    assert stream.getvalue() == "fedscape\n\n  round 0\n  round 1  plateau 0/1\n  \n\nEnded at round ?\n"
    live = ConsoleObserver(Terminal())
    live.round_finished({})
    live.run_finished({"rate": {}, "client_spread": None})


def test_plain_lines_are_few_and_include_the_last_round() -> None:
    for rounds, last in ((200, 200), (200, 61), (1_000_003, 777_777), (7, 7), (21, 20)):
        stream = io.StringIO()
        console = ConsoleObserver(stream)
        console.run_started({"rounds": rounds})
        for index in range(last + 1) if last < 1000 else (*range(0, last, 997), last):
            console.round_finished(line(index))
        console.run_finished(OUTCOME)
        shown = [int(word.split("/")[0]) for word in re.findall(r"round +(\d+/\d+)", stream.getvalue())]
        assert shown[0] == 0
        assert shown[-1] == last
        assert shown == sorted(set(shown))
        assert len(shown) <= 22
        assert "\x1b" not in stream.getvalue()


def test_plain_line_shows_measures_pace_and_criteria() -> None:
    stream = io.StringIO()
    console = ConsoleObserver(stream)
    console.run_started(FACTS)
    console.round_finished(line(48))
    assert stream.getvalue().splitlines()[-1] == (
        "  round  48/200  loss 0.284  accuracy 0.913  drift 0.021  dispersion 0.34  1,240 clients/s  "
        "plateau 3/5 · settled parameters 8e-4 → 0.001 · agreement 0.991 → 0.99"
    )


def test_nearest_criterion_comes_first_and_one_not_yet_measured_last() -> None:
    criteria = {
        "gap": {"value": math.nan, "threshold": math.nan, "held": 0, "needed": 3, "distance": math.inf},
        "settled": {"value": 2e-3, "threshold": 1e-3, "held": 0, "needed": 3, "distance": 1.0},
        "pseudo_gradient": {"value": 1.1, "threshold": 1.0, "held": 0, "needed": 1, "distance": 0.1},
        "target": {"held": 4, "needed": 4, "holds": True, "distance": 0.0},
    }
    assert (
        nearing(criteria, 4)
        == "target holds · pseudo-gradient 1.1 → 1 · settled parameters 0.002 → 0.001 · loss gap not measured"
    )
    assert nearing(criteria, 1) == "target holds"


def test_live_display_shows_bar_criteria_and_time_left() -> None:
    stream, clock = Terminal(), Clock()
    console = ConsoleObserver(stream, clock=clock)
    console.run_started(FACTS)
    console.round_finished(line(0))
    clock.now = 4.8
    console.round_finished(line(48))
    shown = plain(stream.getvalue()).splitlines()
    assert shown[-2].endswith(
        "  round  48/200  ━━━━━━──────────────────  loss 0.284  accuracy 0.913  drift 0.021  dispersion 0.34"
    )
    near, aside = re.split(r"  +", shown[-1].strip())
    assert near == "plateau 3/5 · settled parameters 8e-4 → 0.001 · agreement 0.991 → 0.99"
    assert aside == "1,240 clients/s · at most 0:15 left"
    console.run_finished(OUTCOME)
    assert "Converged at round 61" in plain(stream.getvalue())
    assert "left" not in plain(stream.getvalue().rpartition("round  48/200")[2])
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 1  # the cursor is back


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
def test_live_display_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    stream, clock = Terminal(), Clock()
    console = ConsoleObserver(stream, clock=clock)
    console.run_started({"rounds": 200})
    console.round_finished(line(0))
    clock.now = 1.0
    console.round_finished(line(100))
    display = plain(stream.getvalue().rpartition("\x1b[2K")[2]).splitlines()
    assert len(display) == 2
    assert all(len(row.rstrip("\r")) <= width for row in display)
    assert ("━" in display[0]) == (width >= 100)
    if width >= 60:
        assert display[1].rstrip().endswith("0:01 left")


def test_live_display_is_updated_at_most_ten_times_a_second() -> None:
    stream, clock = Terminal(), Clock()
    console = ConsoleObserver(stream, clock=clock)
    console.run_started(FACTS)
    updates = 0
    for index in range(1000):
        clock.now = index * 0.005
        before = stream.writes
        console.round_finished(line(index))
        console.event({"round": index, "kind": "fault", "message": "a client left"})
        updates += stream.writes > before
    assert 45 <= updates <= 51
    console.close()


def test_round_that_is_not_due_writes_nothing() -> None:
    for stream in (Terminal(), io.StringIO()):
        console = ConsoleObserver(stream, clock=lambda: 1.0)
        console.run_started({"rounds": 10_000})
        console.round_finished({"round": 0})
        before = stream.getvalue()
        for index in range(1, 500):
            console.round_finished({"round": index})
        assert stream.getvalue() == before
        console.close()


def test_console_prints_events_up_to_a_number() -> None:
    stream = io.StringIO()
    console = ConsoleObserver(stream)
    for index in range(100):
        console.event({"round": index, "kind": "fault", "message": "client [17] sent /nan"})
    lines = stream.getvalue().splitlines()
    assert lines[0] == "  round 0: client [17] sent /nan"
    assert len(lines) == MOST_EVENTS + 1
    assert lines[-1] == "  more events are in events.jsonl"


def test_events_are_printed_above_the_live_display_and_none_is_lost() -> None:
    stream, clock = Terminal(), Clock()
    console = ConsoleObserver(stream, clock=clock)
    console.run_started(FACTS)
    console.round_finished(line(1))
    console.event({"round": 1, "message": "first"})
    clock.now = 1.0
    console.round_finished(line(2))
    console.event({"round": 2, "message": "second"})
    console.run_finished(OUTCOME)
    text = plain(stream.getvalue())
    assert text.count("round 1: first") == text.count("round 2: second") == 1
    assert text.index("round 1: first") < text.index("round 2: second") < text.index("Converged")


def test_console_uses_no_colour_where_the_terminal_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown() -> str:
        stream = Terminal()
        console = ConsoleObserver(stream)
        console.run_started(FACTS)
        console.round_finished(line(1))
        console.run_finished(OUTCOME)
        return stream.getvalue()

    coloured = r"\x1b\[(\d+;)*3\d(;\d+)*m"
    assert re.search(coloured, shown())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(coloured, shown())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in shown()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    piped = io.StringIO()
    ConsoleObserver(piped).run_finished(OUTCOME)
    assert "\x1b" not in piped.getvalue()


def test_ascii_stream_gets_replacement_characters() -> None:
    for terminal in (False, True):
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
        console = ConsoleObserver(stream, live=terminal)
        console.run_started(FACTS | {"scenario": "luft-güte"})
        console.round_finished(line(100))
        console.run_finished(OUTCOME)
        text = plain(raw.getvalue().decode("ascii"))
        assert text.startswith("fedscape 0.1 - scenario luft-g?te - seed 7")
        assert ("============------------" in text) == terminal


def inside(done: int, **more: Any) -> dict[str, Any]:
    return {"round": 2, "phase": "training", "done": done, "of": 100, "unit": "batches", "seconds": 10.0} | more


def test_long_round_without_a_terminal_prints_a_line_every_ten_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    console = ConsoleObserver(stream, clock=clock)
    console.run_started(FACTS)
    console.round_finished(line(1))
    stream.truncate(stream.seek(0))
    for second in range(1, 31):
        clock.now = float(second)
        console.progress(inside(second, seconds=float(second)))
    assert stream.getvalue().splitlines() == [
        "  round 2: training 10%, 10 of 100 batches, about 1:30 left",
        "  round 2: training 20%, 20 of 100 batches, about 1:20 left",
        "  round 2: training 30%, 30 of 100 batches, about 1:10 left",
    ]


def test_short_rounds_without_a_terminal_print_no_progress() -> None:
    stream, clock = io.StringIO(), Clock()
    console = ConsoleObserver(stream, clock=clock)
    console.run_started(FACTS | {"rounds": 3})
    for index in range(1, 4):
        clock.now += 6.0
        console.progress(inside(50))
        console.round_finished(line(index))
    assert "training" not in stream.getvalue()


def test_live_display_shows_progress_until_the_round_ends() -> None:
    terminal, clock = Terminal(), Clock()
    console = ConsoleObserver(terminal, clock=clock)
    console.run_started(FACTS)
    console.progress(inside(40, round=0, phase="evaluation", unit="examples"))  # before any line
    assert "round 0: evaluation 40%, 40 of 100 examples" in plain(terminal.getvalue())
    clock.now = 5.0
    console.round_finished(line(1))
    clock.now = 9.0
    console.progress(inside(75))
    assert "round 2: training 75%, 75 of 100 batches, about 0:03 left" in plain(terminal.getvalue())
    terminal.truncate(terminal.seek(0))
    clock.now = 12.0
    console.round_finished(line(2))
    assert "training 75%" not in plain(terminal.getvalue())
    console.close()


def test_progress_after_the_last_round_says_so() -> None:
    stream, clock = io.StringIO(), Clock()
    console = ConsoleObserver(stream, clock=clock)
    clock.now = 20.0
    console.progress(inside(50, round=None, phase="evaluation", unit="examples"))
    assert stream.getvalue().startswith("  after the last round: evaluation 50%, 50 of 100 examples")
