"""The results of a benchmark as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import BUSY
from workloads import WORKLOADS

BEGIN, END = "<!-- measured: written by make bench -->", "<!-- end of measured -->"
TARGETS = {
    ("logreg", "Flower"): 100.0,
    ("logreg", "pfl-research"): 40.0,
    ("2nn", "Flower"): 1.5,
    ("2nn", "pfl-research"): 1.2,
    ("cnn", "Flower"): 0.8,
}
"""The aim: how many times faster than a peer fedscape is on two cores."""


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
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


def milliseconds(seconds: float) -> str:
    """Return a duration with three digits.

    Example:
        >>> milliseconds(0.0041), milliseconds(0.1234), milliseconds(1.5)
        ('4.10 ms', '123 ms', '1.50 s')
    """
    if seconds >= 1:
        return f"{seconds:.2f} s"
    ms = 1e3 * seconds
    return f"{ms:.0f} ms" if ms >= 99.5 else f"{ms:.1f} ms" if ms >= 9.95 else f"{ms:.2f} ms"


def markdown(results: dict[str, Any]) -> str:
    """Return all measurements as Markdown."""
    parts = [_header(results)]
    parts += [_workload(name, timed) for name, timed in results["workloads"].items()]
    for name, write in (("observing", _observing), ("ragged", _ragged), ("growth", _growth),
                        ("first_round", _first_round), ("generator", _generator), ("city", _city)):  # fmt: skip
        found = results.get(name)
        if found is not None:
            parts.append(
                f"**{name.replace('_', ' ')}**: failed: {found['problem']}" if "problem" in found else write(found)
            )
    return "\n\n".join(parts)


def write_between_marks(path: Path, text: str) -> None:
    """Replace the text between the marks of a file; the file is created if missing."""
    old = path.read_text() if path.exists() else f"# Benchmarks\n\n{BEGIN}\n{END}\n"
    before, _, rest = old.partition(BEGIN)
    assert END in rest, f"{path} has lost its mark {END}"
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def _header(results: dict[str, Any]) -> str:
    m = results["machine"]
    lines = [
        f"Measured on {results['date']}, in {results['took'] / 60:.0f} minutes: {m['processor']}, {m['cores']} cores, "
        f"{m['memory_gb']} GB, {m['system']}, Python {m['python']}, "
        f"torch {m['torch']} ({m['torch_threads']} threads by default). Load before the start: {results['load']:.2f}.",
    ]
    if results["patience"]:
        lines.append(
            "The machine was shared: every process waited for quiet (up to "
            f"{results['patience'] / 60:.0f} minutes in all), and "
            f"{results['repeated']} that others disturbed were repeated."
        )
    lines += [f"{name}: not installed (`make bench-peers`)." for name in results["missing"]]
    return "\n".join(lines)


def _workload(name: str, timed: dict[str, dict[str, Any]]) -> str:
    w, ours = WORKLOADS[name], timed["fedscape"].get("seconds")
    rows = []
    for who, t in timed.items():
        if "problem" in t:
            rows.append([who, f"failed: {t['problem'][:80]}", "", "", "", "", ""])
            continue
        target = TARGETS.get((name, who))
        ratio = t["seconds"] / ours if ours and who != "fedscape" else None
        busy = f"{t['others']:.0%}" + (" (busy)" if t["others"] > BUSY else "")
        rows.append([
            who,
            milliseconds(t["seconds"]),
            f"{milliseconds(t['low'])} to {milliseconds(t['high'])}",
            "" if ratio is None else f"{ratio:.3g}x",
            "" if target is None or ratio is None else f"{target:g}x {'met' if ratio >= target else 'MISSED'}",
            f"{t['peak'] / 1e6:.0f} MB",
            busy if who != "Flower" else "",
        ])  # fmt: skip
    words = f"{w.words}; {w.cohort} of {w.clients} clients, {w.local_steps} steps of {w.batch} examples each"
    engine = timed["fedscape"].get("engine")
    heads = [
        name,
        "a round",
        "medians of processes",
        "fedscape is faster by",
        "aim",
        "peak memory",
        "others on the machine",
    ]
    text = f"### {name}\n\n{words}.\n\n{table(heads, rows)}"
    return text + (f"\n\nfedscape's engine: {engine}." if engine else "")


def _observing(o: dict[str, Any]) -> str:
    verdict = "met" if o["share"] <= 0.15 else "MISSED"
    return (
        "### Observing\n\nDrift, criteria, validation and record, of a logreg round: with all of it "
        f"{milliseconds(o['observed'])}, without {milliseconds(o['bare'])}: {o['share']:.0%} of the round "
        f"(aim: at most 15%, {verdict})."
    )


def _ragged(r: dict[str, dict[str, Any]]) -> str:
    rows = [
        [name.replace(" ", ", sigma "), milliseconds(x["equal"]), milliseconds(x["ragged"]), f"{x['loss']:+.0%}",
         "met" if x["loss"] <= 0.3 else "MISSED", f"{x['shortest']} to {x['longest']}, mean {x['mean']:.0f}"]
        for name, x in r.items()
    ]  # fmt: skip
    heads = ["log-normal sizes", "equal", "ragged", "lost", "aim 30%", "local steps"]
    return f"### Ragged clients\n\nThe same total work, a bare round.\n\n{table(heads, rows)}"


def _growth(g: dict[str, list[dict[str, Any]]]) -> str:
    heads = ["", "a round", "a client of the cohort", "start to first round", "peak memory", "above import"]
    text = "### Growth\n\nSoftmax regression on synthetic clients of 50 examples, made on demand."
    for what, rows in g.items():
        cells = [
            [f"{what} {r[{'cohort': 'cohort', 'population': 'clients'}[what]]:,}", milliseconds(r["seconds"]),
             f"{1e6 * r['seconds'] / r['cohort']:.0f} us", milliseconds(r["to_first_round"]),
             f"{r['peak'] / 1e6:.0f} MB", f"{(r['peak'] - r['imported']) / 1e6:.0f} MB"]
            for r in rows
        ]  # fmt: skip
        text += f"\n\n{table(heads, cells)}"
    first, last = (next(r for r in g["population"] if r["clients"] == n) for n in (100_000, 1_000_000))
    each = (last["peak"] - first["peak"]) / (last["clients"] - first["clients"])
    return (
        f"{text}\n\nFrom 100,000 to 1,000,000 clients the peak grows by {each:.1f} bytes a client, set-up included "
        f"(aim: at most 16, {'met' if each <= 16 else 'MISSED'}); smaller populations "
        "are kept in memory once made, up to 512 MB."
    )


def _first_round(f: dict[str, float]) -> str:
    return (
        "### From the command to the first round\n\n`fedscape run`, the default scenario: "
        f"{f['again']:.1f} s ({f['first']:.1f} s the first time; aim: under 5 s)."
    )


def _generator(g: dict[str, Any]) -> str:
    return "### Random numbers\n\n" + "\n".join(f"- {name}: {value}" for name, value in g.items())


def _city(c: dict[str, Any]) -> str:
    rows = []
    for r in c["rows"]:
        share, small = r["data"] / r["round"], r["peak"] <= 2 * 2**30
        rows.append([
            r["source"],
            r["model"],
            f"{r['build']:.2f} s",
            milliseconds(r["round"]),
            milliseconds(r["data"]),
            f"{share:.0%}" + ("" if share < 0.5 else " (MISSED)"),
            f"{milliseconds(r['round_cpu'])}, {milliseconds(r['data_cpu'])}",
            f"{1e9 * r['data_cpu'] / r['made']:.1f} ns",
            f"{r['peak'] / 2**30:.2f} GiB" + ("" if small else " (MISSED)"),
        ])  # fmt: skip
    heads = ["source", "model", "built in", "a round", "of which data", "share, aim under 50%",
             "processor: round, data", "a number made", "peak memory, aim 2 GiB"]  # fmt: skip
    return (
        "### City\n\nOne million sites of every generated source with outages and noise, 1,000 of them a round, nearly "
        "all made anew; one local epoch of the model of the source's scenario. Medians of "
        f"{c['rows'][0]['rounds']} rounds, measured on {c['date']}.\n\n{table(heads, rows)}"
    )
