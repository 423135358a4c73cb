"""A run and its outcome in words, for the console and the report alike."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any, NamedTuple

from dashboards.report.condition_text import HAPPENED, SIGNS_ROW, best_model_words, happened, sign_rows
from dashboards.report.formats import count, data_size, is_number, number, share, simulated
from server.convergence.criteria import CRITERIA
from server.convergence.facts import METRICS, label_of
from server.convergence.outcome import AMONG
from server.convergence.verdict import headline

Facts = Mapping[str, Any]


class Ending(NamedTuple):
    """How a run ended.

    Attributes:
        headline: in a few words.
        reasons: why, one clause each.
        hints: what usually helps, a sentence each.
    """

    headline: str
    reasons: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


WHERE = {"train": "training examples", "test": "held-out examples", "client": "own examples"}
"""Which of a client's examples it was evaluated on, in words."""
WIDEST = f"clients most often among a round's {AMONG} largest drifts"
"""Describes the clients of `server.convergence.outcome.widest`."""
UNEQUAL = 4.0
"""From this ratio of the largest class to the smallest on, scores over classes are shown beside the accuracy."""


def header(facts: Facts) -> list[str]:
    """Return the lines that open a run: scenario, clients, model, the engine with the reason for it, and notices.

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
        words = get("engine_words") or facts["engine"]
        lines.append(f"  engine {words}" + (f" ({get('engine_reason')})" if get("engine_reason") else ""))
    if "error" in facts:
        lines.append(f"  error: {facts['error']}")
    lines += [f"  {notice}" for notice in notices(facts)]
    return [line for line in lines if line.strip()]


def notices(facts: Facts) -> list[str]:
    """Return the sentences on what was guessed, filled or dropped when the data were read and the task was made.

    Example:
        >>> notices({"notices": ["12 values were filled."]}), notices({"notices": None})
        (['12 values were filled.'], [])
    """
    return [str(notice) for notice in facts.get("notices") or ()]


def criterion_label(name: str) -> str:
    """Return what people call a criterion; of another version perhaps, and then unknown here.

    Example:
        >>> criterion_label("gap"), criterion_label("of_another_version")
        ('loss gap', 'of another version')
    """
    return CRITERIA[name].label if name in CRITERIA else name.replace("_", " ")


def ending(outcome: Facts) -> Ending:
    """Return how a run ended. An outcome.json of before has one `reason`, or a sentence in `words` alone.

    Args:
        outcome: `run_finished`'s; any key may be missing.

    Example:
        >>> ending({"outcome": "stopped", "round": 9, "reason": "the budget is spent"})
        Ending(headline='Stopped at round 9', reasons=('the budget is spent',), hints=())
    """
    hints = tuple(str(outcome.get("hint") or "").splitlines())
    reasons = outcome.get("reasons") or ([outcome["reason"]] if outcome.get("reason") else [])
    if outcome.get("words") and not reasons and "headline" not in outcome:
        return Ending(str(outcome["words"]), (), hints)
    title = outcome.get("headline") or headline(str(outcome.get("outcome", "ended")), outcome.get("round", "?"))
    return Ending(str(title), tuple(map(str, reasons)), hints)


def reached(outcome: Facts) -> list[tuple[str, str]]:
    """Return what happened and what was reached, as rows of (name, value), without empty rows."""
    rows = [
        (HAPPENED, happened(outcome)),
        (SIGNS_ROW, "; ".join(f"{sign}: {says}" for sign, says, _ in sign_rows(outcome))),
        ("best model", best_model_words(outcome)),
        _test_row(outcome),
        _persistence_row(outcome.get("forecast")),
        ("samples", _samples(outcome)),
        ("anomalies", _anomalies(outcome.get("anomalies"))),
        _optimum_row(outcome),
        _target_row(outcome.get("to_target")),
        _spent_row(outcome),
        ("rate", rate_words(outcome)),
        ("client drift", _drift(outcome.get("drift"))),
    ]
    divergence = (outcome.get("baselines") or {}).get("weight_divergence")
    if divergence is not None:
        rows.append(("vs pooled", f"weight divergence {number(divergence)} at equal work"))
    rows.append(("record", str(outcome.get("record") or "")))
    return [(name, value) for name, value in rows if value]


def _samples(outcome: Facts) -> str:
    """Return how good samples of the final model are beside the test examples."""
    if not is_number(outcome.get("test_frechet_distance")):
        return ""
    parts = [f"Fréchet distance {number(outcome['test_frechet_distance'])}"]
    for key in ("precision", "coverage"):
        if is_number(outcome.get(f"test_sample_{key}")):
            parts.append(f"{key} {share(outcome[f'test_sample_{key}'])}")
    if is_number(outcome.get("test_sample_classes")):
        parts.append(f"classes {number(outcome['test_sample_classes'])}")
    return ", ".join(parts) + "   (beside the test examples)"


def _anomalies(found: Facts | None) -> str:
    """Return how well reconstruction errors find known anomalies."""
    if not found or found.get("relative_auc") is None:
        return ""
    words = f"{number(found['anomalies'])} of {count(found['examples'], 'test example')}; "
    return words + f"AUC of the error {number(found['auc'])}, of the relative error {number(found['relative_auc'])}"


def _test_row(outcome: Facts) -> tuple[str, str]:
    """Return the test score, with the scores of the clients and the baselines beside it."""
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
    forecast = outcome.get("forecast") if metric == "error" else None
    score = error_in_unit(forecast, forecast) if forecast else shown(outcome[f"test_{metric}"])
    return f"test {metric}", score + (f"   ({'; '.join(aside)})" if aside else "")


def error_in_unit(forecast: Facts, errors: Facts) -> str:
    """Return an error in deviations and in the readings' unit.

    Args:
        forecast: the outcome's `forecast`.
        errors: `error` and `error_in_unit`: the forecast's own, or persistence's.

    Example:
        >>> error_in_unit({"scaled_by": "client", "unit": "mph"}, {"error": 0.5, "error_in_unit": 6.25})
        '0.5 deviations = 6.25 mph'
    """
    unit = str(forecast.get("unit") or "")
    own = number(errors.get("error_in_unit"))
    if forecast.get("scaled_by") == "none":
        return f"{own} {unit}".rstrip()
    return f"{number(errors.get('error'))} deviations = {own} {unit or 'in the unit of the readings'}"


def _ratio_of_deviations(forecast: Facts, persistence: Facts) -> str:
    """Return the ratio of the errors in deviations where it is not that in the unit, since clients are unequal."""
    own, naive, ratio = forecast.get("error"), persistence.get("error"), forecast["ratio"]
    if forecast.get("scaled_by") == "none" or not is_number(own) or not is_number(naive) or naive <= 0:
        return ""
    if abs(own / naive - ratio) < 0.02 * ratio:
        return ""
    return f" in {forecast.get('unit') or 'the unit'} and {share(own / naive, 2)} times in deviations"


def _persistence_row(forecast: Facts | None) -> tuple[str, str]:
    """Return the error of repeating the last reading, and how the test error compares with it."""
    persistence = (forecast or {}).get("persistence") or {}
    if not forecast or not persistence:
        return "persistence", ""
    if "not_measured" in persistence:
        return "persistence", f"not measured: {persistence['not_measured']}"
    ratio = forecast.get("ratio")
    aside = "repeats the last reading"
    if is_number(ratio):
        aside += f"; the test error is {share(ratio, 2)} times this{_ratio_of_deviations(forecast, persistence)}"
    return "persistence", f"{error_in_unit(forecast, persistence)}   ({aside})"


def _optimum_row(outcome: Facts) -> tuple[str, str]:
    """Return how far the final model is from the known optimum; nothing where it is unknown."""
    names = {"optimality_gap": "gap", "distance_to_optimum": "distance"}
    parts = [f"{word} {number(outcome[key])}" for key, word in names.items() if outcome.get(key) is not None]
    return "to optimum", ", ".join(parts)


def _spent_row(outcome: Facts) -> tuple[str, str]:
    """Return the data sent and the time of the fleet that the whole run took; nothing where none is recorded."""
    seconds, sent = outcome.get("simulated_seconds_total"), outcome.get("bytes_total")
    if not is_number(seconds) or not seconds:
        return "in all", ""
    return "in all", ", ".join(([data_size(sent)] if is_number(sent) else []) + [simulated(seconds)])


def _target_row(target: Facts | None) -> tuple[str, str]:
    """Return what it took to reach the target, or that it was not reached; nothing without a target."""
    if not target or not is_number(target.get("value")):
        return "to target", ""
    metric = str(target.get("metric", ""))
    side = "at least" if METRICS.get(metric) else "at most"
    name = f"{label_of(metric)} {side} {number(target['value'])}"
    parts = [count(target["rounds"], "round")] if is_number(target.get("rounds")) else []
    parts += [data_size(target["bytes"])] if is_number(target.get("bytes")) else []
    parts += [simulated(target["simulated_seconds"])] if is_number(target.get("simulated_seconds")) else []
    unmet = "not reached"
    if is_number(target.get("met")) and is_number(target.get("hold")):
        unmet = f"met for {count(target['met'], 'measured round')} in a row, {target['hold']} are needed"
    return "to target", f"{', '.join(parts) or unmet}   ({name})"


def rate_words(outcome: Facts) -> str:
    """Return the fitted rate and the rounds still needed, or why there is no rate."""
    rate = outcome.get("rate") or {}
    metric = label_of(str(rate["metric"])) if rate.get("metric") else ""
    if "no_trend" in rate:
        steps = (rate.get("iterates") or {}).get("factor")
        words = f"{metric or 'loss'} has no single rate: {rate['no_trend']}"
        return words + (f"; the steps shrink by the factor {share(steps)} a round" if is_number(steps) else "")
    if rate.get("family") == "power" and "exponent" in rate:
        falls = 2.0 ** -rate["exponent"]
        words = f"{metric or 'loss'} falls {_power_law(rate)}{_limit(rate)}"
        return f"{words}: late in a run, twice the rounds leave {share(falls, 2)} of the distance"
    if "factor" not in rate:
        return ""
    words = f"{metric + ' ' if metric else ''}{share(rate['factor'])} a round"
    if "low" in rate and "high" in rate:
        words += f" ({share(rate['low'])} to {share(rate['high'])})"
    if rate.get("family") == "undecided" and "exponent" in rate:
        words += f" or {_power_law(rate)}, the record cannot tell which"
    words += _limit(rate)
    left = outcome.get("rounds_to_go")
    return words if left is None else f"{words}, {_to_go(left)}"


def _power_law(rate: Facts) -> str:
    """Return the fitted power law with the interval of its exponent."""
    words = f"as round^-{number(rate['exponent'])}"
    if "exponent_low" in rate and "exponent_high" in rate:
        words += f" ({number(rate['exponent_low'])} to {number(rate['exponent_high'])})"
    return words


def _limit(rate: Facts) -> str:
    """Return the fitted limit with its interval; nothing where no family of curves fits."""
    if not all(is_number(rate.get(key)) for key in ("limit", "limit_low", "limit_high")):
        return ""
    return f", towards {number(rate['limit'])} ({number(rate['limit_low'])} to {number(rate['limit_high'])})"


def _to_go(left: Any) -> str:
    """Return the rounds still needed: a number, or a mapping of `estimate` and the ends `low` and `high`."""
    if not isinstance(left, Mapping):
        return f"about {count(left, 'round')} to go" if is_number(left) else f"{left} rounds to go"
    words = _to_go(left.get("estimate"))
    if not is_number(left.get("low")):
        return words
    return f"{words} ({left['low']:,.0f} " + (f"to {left['high']:,.0f})" if is_number(left.get("high")) else "or more)")


def _drift(drift: object) -> str:
    """Return the course of client drift, and the clients that drift most."""
    if not isinstance(drift, Mapping):
        return str(drift or "")
    clients, rounds = drift.get("worst_clients") or (), drift.get("worst_rounds") or ()
    worst = ", ".join(widest_client(*pair) for pair in zip_longest(clients, rounds))
    words = str(drift.get("words") or "")
    return f"{words}   ({WIDEST}: {worst})".lstrip() if worst else words


def widest_client(name: object, rounds: int | None) -> str:
    """Return a client, and in how many rounds it was among the widest.

    Example:
        >>> widest_client("17", 9), widest_client("4", None)
        ('17 (9 rounds)', '4')
    """
    return f"{name} ({count(rounds, 'round')})" if rounds is not None else str(name)
