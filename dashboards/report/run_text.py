"""What a run is and what it came to, in words: the console and the report say the same."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from dashboards.report.formats import count, data_size, is_number, number, share, simulated
from server.convergence.outcome import AMONG

Facts = Mapping[str, Any]


WHERE = {"train": "training examples", "test": "held-out examples", "client": "own examples"}
"""Which of a client's examples it was evaluated on, in words."""
WIDEST = f"most often among a round's {AMONG} widest"
"""What is said of the clients in `server.convergence.outcome.widest`."""
UNEQUAL = 4.0
"""From this ratio of the largest class to the smallest on, scores over classes are said beside the accuracy."""


def header(facts: Facts) -> list[str]:
    """Return the lines that open a run: what runs, on whom, with which engine and why.

    Args:
        facts: `run_started`'s; any may be missing.
    """
    get = facts.get
    title = [f"fedscape {get('version', '')}".rstrip()]
    title += [f"{word} {facts[key]}" for key, word in (("scenario", "scenario"), ("seed", "seed")) if key in facts]
    people = [count(facts[key], word) for key, word in (("clients", "client"), ("examples", "example")) if key in facts]
    skew = [
        f"{name} {facts[key]:.2f}" for key, name in (("label_js", "JS"), ("label_emd", "EMD")) if is_number(get(key))
    ]
    model = [str(facts["model"])] if "model" in facts else []
    model += [count(facts["parameters"], "parameter")] if "parameters" in facts else []
    groups = [", ".join(people), "label " + ", ".join(skew) if skew else ""]
    groups += [
        f"cohort {get('cohort'):,}" if is_number(get("cohort")) else "",
        str(get("algorithm", "")),
        ", ".join(model),
    ]
    lines = [" · ".join(title), "  " + " · ".join(group for group in groups if group)]
    if "engine" in facts:
        lines.append(f"  engine {facts['engine']}" + (f" ({get('engine_reason')})" if get("engine_reason") else ""))
    if "error" in facts:
        lines.append(f"  error: {facts['error']}")
    return [line for line in lines if line.strip()]


def verdict(outcome: Facts) -> list[str]:
    """Return the sentence that says how the run ended, and what often helps where it ended badly.

    Args:
        outcome: `run_finished`'s; any key may be missing.
    """
    words = outcome.get("words") or f"{outcome.get('outcome', 'ended')} at round {outcome.get('round', '?')}"
    return [str(words), *(f"  {line}" for line in str(outcome.get("hint") or "").splitlines())]


def reached(outcome: Facts) -> list[tuple[str, str]]:
    """Return what was reached, as rows of (name, value); rows without anything to say are left out."""
    rows = [_test_row(outcome), _target_row(outcome.get("to_target")), ("rate", rate_words(outcome))]
    rows += [("drift", _drift(outcome.get("drift")))]
    divergence = (outcome.get("baselines") or {}).get("weight_divergence")
    if divergence is not None:
        rows.append(("from pooled", f"weight divergence {number(divergence)} at equal work"))
    rows.append(("record", str(outcome.get("record") or "")))
    return [(name, value) for name, value in rows if value]


def _test_row(outcome: Facts) -> tuple[str, str]:
    """Return the test score, and beside it what the clients and the baselines have."""
    metric = next((name for name in ("accuracy", "error", "loss") if outcome.get(f"test_{name}") is not None), None)
    if metric is None:
        return "test", ""
    shown = share if metric == "accuracy" else number
    spread, baselines = outcome.get("client_spread") or {}, outcome.get("baselines") or {}
    names = {"worst": "worst client", "lowest_tenth": "lowest tenth", "highest_tenth": "highest tenth"}
    clients = ", ".join(f"{name} {shown(spread[k], 2)}" for k, name in names.items() if spread.get(k) is not None)
    if clients and spread.get("evaluated_on"):
        clients += f" on their {WHERE.get(spread['evaluated_on'], spread['evaluated_on'])}"
    aside = [clients] if clients else []
    pooled, alone = baselines.get(f"pooled_{metric}"), baselines.get("local_only_mean")
    aside += [f"pooled training reaches {shown(pooled)}"] if pooled is not None else []
    aside += [f"training alone {shown(alone)} on average"] if alone is not None else []
    balanced = outcome.get("test_balanced_accuracy")
    if metric == "accuracy" and balanced is not None and (outcome.get("test_imbalance") or 1.0) >= UNEQUAL:
        aside.insert(0, f"balanced {shown(balanced)}, macro-F1 {number(outcome.get('test_macro_f1'))}")
    return f"test {metric}", shown(outcome[f"test_{metric}"]) + (f"   ({'; '.join(aside)})" if aside else "")


def _target_row(target: Facts | None) -> tuple[str, str]:
    """Return what it took to reach the target, or nothing where none was set or reached."""
    if not target or not is_number(target.get("value")):
        return "to target", ""
    metric = str(target.get("metric", "")).removeprefix("validation_")
    name = f"to {target['value']:.2f}" if metric == "accuracy" else f"to {metric} {number(target['value'])}"
    parts = [count(target["rounds"], "round")] if is_number(target.get("rounds")) else []
    parts += [data_size(target["bytes"])] if is_number(target.get("bytes")) else []
    parts += [simulated(target["simulated_seconds"])] if is_number(target.get("simulated_seconds")) else []
    return name, ", ".join(parts)


def rate_words(outcome: Facts) -> str:
    """Return the fitted rate and how many rounds it leaves to go, or why there is none."""
    rate = outcome.get("rate") or {}
    if "no_trend" in rate:
        return f"no trend: {rate['no_trend']}"
    if "factor" not in rate:
        return ""
    words = f"{share(rate['factor'])} a round"
    if "low" in rate and "high" in rate:
        words += f" ({share(rate['low'])} to {share(rate['high'])})"
    left = outcome.get("rounds_to_go")
    return words if left is None else f"{words}, {_to_go(left)}"


def _to_go(left: Any) -> str:
    """Return the rounds still needed: a number, or a mapping of `estimate` and the ends `low` and `high`."""
    if not isinstance(left, Mapping):
        return f"about {count(left, 'round')} to go" if is_number(left) else f"{left} rounds to go"
    words = _to_go(left.get("estimate"))
    if not is_number(left.get("low")):
        return words
    return f"{words} ({left['low']:,.0f} " + (f"to {left['high']:,.0f})" if is_number(left.get("high")) else "or more)")


def _drift(drift: object) -> str:
    """Return the drift's course and the clients that drift most."""
    if not isinstance(drift, Mapping):
        return str(drift or "")
    clients, rounds = drift.get("worst_clients") or (), drift.get("worst_rounds") or ()
    worst = ", ".join(widest_client(*pair) for pair in zip_longest(clients, rounds))
    most = f"{WIDEST}: {worst}" if worst else ""
    return "; ".join(part for part in (str(drift.get("words") or ""), most) if part)


def widest_client(name: object, rounds: int | None) -> str:
    """Return a client and in how many rounds it was among the widest.

    Example:
        >>> widest_client("17", 9), widest_client("4", None)
        ('17 (9 rounds)', '4')
    """
    return f"{name} ({count(rounds, 'round')})" if rounds is not None else str(name)
