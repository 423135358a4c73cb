"""The results of `make bench` as Markdown: one table a part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from federation import STEPS
from machine import BUSY
from workloads import WORKLOADS

BEGIN, END = "<!-- measured: written by {by} -->", "<!-- end of measured -->"
AIMS = {
    ("logreg", "Flower"): 200.0,
    ("logreg", "pfl-research"): 80.0,
    ("logreg", "FedJAX"): 30.0,
    ("mlp", "Flower"): 80.0,
    ("mlp", "pfl-research"): 40.0,
    ("mlp", "FedJAX"): 14.0,
    ("gru", "Flower"): 13.0,
    ("gru", "pfl-research"): 12.0,
    ("2nn", "Flower"): 6.0,
    ("2nn", "pfl-research"): 4.5,
    ("2nn", "FedJAX"): 2.0,
    ("cnn", "Flower"): 1.7,
    ("cnn", "pfl-research"): 1.4,
}
"""How many times faster than a peer fedscape is to be on two cores."""
RAGGED_AIM = 1.6
OBSERVING_AIM = 0.15
STUDY_AIM, PACKING_AIM = 0.05, 1.2
CITY_DATA_AIM, CITY_PEAK_AIM = 0.5, 2 * 2**30
START_UP_AIMS = {
    "import fedscape": 1.0,
    "fedscape --help": 0.5,
    "fedscape scenarios": 0.5,
    "fedscape show": 0.5,
    "fedscape run, to the first round": 2.5,
}
COMPETITORS = ("plain loop", "Flower", "pfl-research", "FedJAX")
MARK = "⚠"
LOADED = 0.5
"""A higher load average before a run shows other work."""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are numbers.

    Example:
        >>> print(table(["who", "ms"], [["a", "1"]]))
        | who | ms |
        |---|--:|
        | a | 1 |
    """
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)], *rows]
    head, rule, *rest = ["|".join(("", *(f" {cell} " for cell in line), "")) for line in lines]
    return "\n".join([head, rule.replace(" ", ""), *rest])


def duration(seconds: float) -> str:
    """Return a duration with three digits.

    Example:
        >>> duration(0.0041), duration(0.1234), duration(1.5)
        ('4.10 ms', '123 ms', '1.50 s')
    """
    if seconds >= 1:
        return f"{seconds:.2f} s"
    ms = 1e3 * seconds
    return f"{ms:.0f} ms" if ms >= 99.5 else f"{ms:.1f} ms" if ms >= 9.95 else f"{ms:.2f} ms"


def markdown(results: dict[str, dict[str, Any]]) -> str:
    """Return the parts as Markdown, each with its table and what else the machine did."""
    machines = dict.fromkeys(_machine(part["machine"]) for part in results.values())
    return "\n\n".join(machines) + "".join(
        f"\n\n### {WRITERS[name][0]}\n\n{_body(part, WRITERS[name][1])}\n\n{_run(part)}"
        for name, part in results.items()
    )


def write_between_marks(path: Path, text: str, by: str = "make bench") -> None:
    """Replace the text between the marks of a file; `by` is the command that writes it."""
    begin = BEGIN.format(by=by)
    before, mark, rest = path.read_text().partition(begin)
    assert mark, f"{path} has lost its mark {begin}"
    assert END in rest, f"{path} has lost its mark {END}"
    path.write_text(f"{before}{begin}\n{text}\n{END}{rest.partition(END)[2]}")


def _body(part: dict[str, Any], write: Callable[[dict[str, Any]], str]) -> str:
    if "problem" in part:
        return f"Failed: {part['problem']}"
    return f"Not available: {part['unavailable']}." if "unavailable" in part else write(part)


def _machine(m: dict[str, Any]) -> str:
    return (
        f"Measured on {m['cores']} cores of {m['processor']}, {m['memory_gb']} GB, {m['system']}, "
        f"Python {m['python']}, torch {m['torch']}, fedscape {m['fedscape']}."
    )


def _run(part: dict[str, Any]) -> str:
    """Return when a part ran, and a warning where other programs disturbed it."""
    before, after = part["load"]
    took = f"{part['took'] / 60:.0f} minutes" if part["took"] > 90 else f"{part['took']:.0f} seconds"
    text = f"*{part['date']}, {took}. Load average {before:.2f} at the start, {after:.2f} at the end.*"
    warnings = []
    if (load := part["load_before_run"]) > LOADED:
        warnings.append(f"**{MARK} The load average was {load:.2f} before the run: the machine had other work.**")
    if (busiest := disturbance(part)) > BUSY:
        share = f"**{MARK} Other programs used up to {busiest:.0%} of the machine during this part.**"
        warnings.append(f"{share} Rows with {MARK} were disturbed.")
    return "\n\n".join([" ".join(warnings), text]) if warnings else text


def disturbance(part: dict[str, Any]) -> float:
    """Return the largest share of the machine that other programs used before or during a part."""
    return max([part["busy_before"], *_others(part)])


def _others(found: Any) -> list[float]:
    if isinstance(found, dict):
        own = [found["others"]] if found.get("others") is not None else []
        return own + [share for value in found.values() for share in _others(value)]
    return [share for value in found for share in _others(value)] if isinstance(found, list) else []


def _marked(name: str, row: Any) -> str:
    return f"{name} {MARK}" if max(_others(row), default=0.0) > BUSY else name


def _against(value: float, aim: float | None, shown: str, *, at_most: bool = False) -> str:
    """Return a number with its aim, and whether it was missed."""
    if aim is None:
        return shown
    kept = value <= aim if at_most else value >= aim
    limit = f"{aim:.0%}" if shown.endswith("%") else f"{aim:g} s" if shown.endswith(" s") else f"{aim:g}x"
    return f"{shown} ({limit})" if kept else f"{shown} (**missed {limit}**)"


def _race(part: dict[str, Any]) -> str:
    rows = []
    for name, timed in part["rows"].items():
        ours, cells = timed["fedscape"], []
        for who in COMPETITORS:
            theirs = timed.get(who)
            if theirs is None:
                cells.append("")
            elif "problem" in theirs or "problem" in ours:
                cells.append("failed")
            else:
                cells.append(_against(theirs["ratio"], AIMS.get((name, who)), f"{theirs['ratio']:.3g}x"))
        rows.append([_marked(name, timed), duration(ours["seconds"]) if "seconds" in ours else "failed", *cells])
    versions = {
        who: f"{who} {version}" if version else f"{who}: not installed" for who, version in part["peers"].items()
    }
    heads = ["workload", "fedscape, a round", *(versions.get(who, who) for who in COMPETITORS)]
    work = "\n".join(
        f"- **{w.name}**: {w.words}; {w.cohort} of {w.clients} clients, {w.local_steps} steps of {w.batch} examples"
        + (f"; {timed['fedscape']['engine']}" if timed["fedscape"].get("engine") else "")
        + "."
        for name, timed in part["rows"].items()
        for w in [WORKLOADS[name]]
    )
    return (
        "How many times as long each takes for the same round; in brackets the aim. Medians over "
        f"{part['repeats']} processes of each, in turn. The others run with the faster of one and all threads "
        f"(Flower: processes).\n\n{table(heads, rows)}\n\n{work}"
    )


def _ragged(part: dict[str, Any]) -> str:
    rows = []
    for name, row in part["rows"].items():
        cells = [_against(r["ratio"], RAGGED_AIM, f"{r['ratio']:.2f}x", at_most=True)
                 for sigma, r in row.items() if sigma in ("0.5", "1.0")]  # fmt: skip
        rows.append([_marked(name, row), duration(row["0.0"]["seconds"]), *cells, str(row["1.0"]["longest"])])
    heads = ["workload", "equal sizes", "sigma 0.5", "sigma 1", "steps of the largest client"]
    return f"Log-normal sizes of the same total work, all clients in the cohort.\n\n{table(heads, rows)}"


def _workers(part: dict[str, Any]) -> str:
    rows = [
        [_marked(name, r), duration(r["one"]), duration(r["two"]), f"{r['ratio']:.2f}x"]
        for name, r in part["rows"].items()
    ]
    heads = ["workload", "1 worker", "2 workers", "faster by"]
    return f"`[engine] workers = n`, everything else as in the race.\n\n{table(heads, rows)}"


def _observing(part: dict[str, Any]) -> str:
    rows = [
        [_marked(name, r), duration(r["observed"]), duration(r["bare"]),
         _against(r["share"], OBSERVING_AIM, f"{r['share']:.0%}", at_most=True)]
        for name, r in part["rows"].items()
    ]  # fmt: skip
    heads = ["workload", "a round", "a bare round", "share"]
    return (
        "What drift, criteria, validation and record cost. A bare round samples, trains and aggregates."
        f"\n\n{table(heads, rows)}"
    )


def _growth(part: dict[str, Any]) -> str:
    rows = [
        [_marked(f"{r['clients']:,}", r), f"{r['cohort']:,}", r["kind"], str(r["rounds"]), duration(r["seconds"]),
         f"{r['late'] / r['early']:.2f}", duration(r["to_first_round"]), f"{r['peak'] / 1e6:.0f} MB",
         f"{r['own'][2] / 1e6:.0f}, {r['own'][4] / 1e6:.0f} MB"]
        for r in part["points"]
    ]  # fmt: skip
    heads = ["clients", "cohort", "algorithm", "rounds", "a round", "last fifth to first", "to the first round", "peak",
             "without files, at half and at the end"]  # fmt: skip
    r = part["rounds"]
    windows = ", ".join(f"{duration(seconds)} at round {int(at):,}" for at, seconds in r["beside_training"].items())
    return (
        "Softmax regression on synthetic clients of 50 examples, made on demand. The fifths are of processor time.\n\n"
        f"{table(heads, rows)}\n\n"
        f"A run of {r['rounds']:,} rounds of two quadratics keeps {r['bytes_a_round']:.0f} bytes a round in memory. "
        f"Beside training a round takes {windows} of processor time. Its report takes {r['report_seconds']:.1f} s."
    )


def _start_up(part: dict[str, Any]) -> str:
    rows = [
        [name, _against(r["wall"], START_UP_AIMS.get(name), f"{r['wall']:.2f} s", at_most=True),
         f"{r['processor']:.2f} s"]
        for name, r in part["rows"].items()
    ]  # fmt: skip
    return f"The default scenario; in brackets the aim.\n\n{table(['command', 'time', 'processor time'], rows)}"


MODE_NAMES = {
    "flower": "Flower's programs, no service",
    "service": "Flower's programs, local service",
    "forked": "fedscape federate",
}


def _federation(part: dict[str, Any]) -> str:
    rows = part["rows"]
    lines = [(STEPS[name], *(f"{row['steps'][name]:.2f}" for row in rows.values())) for name in STEPS]
    whole = {mode: sum(row["steps"][name] for name in STEPS) for mode, row in rows.items()}
    lines.append(("**a round**", *(f"**{seconds:.2f}**" for seconds in whole.values())))
    lines.append(("processor, of the ClientApp's process", *(f"{r['steps']['processor']:.2f}" for r in rows.values())))
    lines.append(("from the command to round 1", *(f"{row['before']:.1f}" for row in rows.values())))
    lines.append(("after the last round", *(f"{row['after']:.1f}" for row in rows.values())))
    about = "Seconds with 3 SuperNodes, 4 clients of digits each, TLS, on the loopback; means without the first round."
    steps = "A round takes as long as its slowest node: the steps are those of the node that replied last."
    return f"{about} {steps}\n\n{table(['step', *(MODE_NAMES[mode] for mode in rows)], lines)}"


def _city(part: dict[str, Any]) -> str:
    rows = []
    for r in part["rows"]:
        share = r["data"] / r["round"]
        peak = f"{r['peak'] / 2**30:.2f} GiB" + ("" if r["peak"] <= CITY_PEAK_AIM else " (**missed 2 GiB**)")
        rows.append([
            _marked(r["source"], r), r["model"], f"{r['build']:.2f} s", duration(r["round"]), duration(r["data"]),
            _against(share, CITY_DATA_AIM, f"{share:.0%}", at_most=True), f"{1e9 * r['data_cpu'] / r['made']:.1f} ns",
            peak,
        ])  # fmt: skip
    heads = ["source", "model", "built in", "a round", "of which data", "share", "a number made", "peak"]
    return (
        "A million sites with outages and noise, 1,000 of them a round, nearly all made anew; one local epoch.\n\n"
        + table(heads, rows)
    )


def _studies(part: dict[str, Any]) -> str:
    overhead, packing = part["study"] / part["alone"] - 1, part["study"] / part["packed"]
    row = [
        f"{part['runs']}", f"{part['processes']}", f"{part['study']:.1f} s", f"{part['alone']:.1f} s",
        _against(overhead, STUDY_AIM, f"{overhead:.1%}", at_most=True),
        _against(packing, PACKING_AIM, f"{packing:.2f}x", at_most=True),
    ]  # fmt: skip
    heads = ["runs", "processes", "fedscape study", "its runs alone", "overhead", "to the best packing"]
    return (
        "8 arms of the default scenario, 10 seeds, from the command to its end. The runs alone are played by warm "
        "processes with the engines that the study chose. The best packing is their seconds divided by the processes."
        "\n\n"
        f"{table(heads, [row])}"
    )


WRITERS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "race": ("Race", _race),
    "ragged": ("Ragged clients", _ragged),
    "workers": ("Workers", _workers),
    "observing": ("Observing", _observing),
    "growth": ("Growth", _growth),
    "start-up": ("Start-up", _start_up),
    "city": ("City", _city),
    "federation": ("Federation", _federation),
    "studies": ("Studies", _studies),
}
