"""Expected results of the dashboards' queries, computed from records, for the few shapes of PromQL that they use.

Deliberately not a PromQL engine: an expression of another shape fails, so that a new shape is added here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from record_truth import Labels, Truth, Values

Select = Callable[[Truth, str, int], Values]


class Answers:
    """Evaluates queries over some runs.

    Args:
        truths: the runs.
        select: (run, metric, round) -> its values; by default the record's.
    """

    def __init__(self, truths: Sequence[Truth], select: Select | None = None) -> None:
        self.truths = truths
        self._select = select or (lambda truth, metric, r: truth.at(metric, r))

    def of(self, expr: str, r: int) -> Values:
        """Return label sets (with run_id, without clock) and values of an expression in a round."""
        expr = expr.strip()
        if expr.endswith(" == 1"):
            return {key: value for key, value in self.of(expr.removesuffix(" == 1"), r).items() if value == 1}
        for pattern, handler in SHAPES.items():
            found = re.fullmatch(pattern, expr)
            if found and all(part.count("(") == part.count(")") for part in found.groups()):
                return handler(self, r, *found.groups())
        raise AssertionError(f"no truth for the shape of {expr}")

    def selected(self, r: int, metric: str, matchers: str) -> Values:
        """Return what a selector gives."""
        wanted = [(n, op, w.replace("\\\\", "\\")) for n, op, w in re.findall(r'(\w+)(=~|=)"([^"]*)"', matchers)]
        found: Values = {}
        for truth in self.truths:
            values = self._select(truth, metric, r) if 0 <= r <= truth.over else {}
            for own, value in values.items():
                words = dict(own) | {"run_id": truth.run_id, "clock": "round"}
                if all(re.fullmatch(w if op == "=~" else re.escape(w), words.get(n, "")) for n, op, w in wanted):
                    found[own | {("run_id", truth.run_id)}] = value
        return found

    def last(self, r: int, metric: str, matchers: str) -> Values:
        """Return the last value of each series up to a round, whatever the dashboard's range."""
        found: Values = {}
        for earlier in range(r + 1):
            found |= self.selected(earlier, metric, matchers)
        return found

    def by(self, r: int, aggregate: str, names: str, inner: str) -> Values:
        """Return one value for each set of some labels."""
        kept = {name.strip() for name in names.split(",")}
        groups: dict[Labels, list[float]] = {}
        for key, value in self.of(inner, r).items():
            groups.setdefault(frozenset((n, w) for n, w in key if n in kept), []).append(value)
        return {key: float(AGGREGATES[aggregate](values)) for key, values in groups.items()}

    def quantiles(self, r: int, names: str, level: str, value: str, more: str, info: str) -> Values:
        """Return a quantile over runs for each set of labels that facts of the runs give them."""
        given = {name.strip() for name in more.split(",")}
        facts = {_run(key): {pair for pair in key if pair[0] in given} for key in self.of(info, r)}
        kept = {name.strip() for name in names.split(",")}
        groups: dict[Labels, list[float]] = {}
        for key, found in self.of(value, r).items():
            if _run(key) in facts:
                own = {pair for pair in key if pair[0] not in given} | facts[_run(key)]
                groups.setdefault(frozenset(pair for pair in own if pair[0] in kept), []).append(found)
        return {key: _quantile(float(level), values) for key, values in groups.items()}

    def this_round(self, r: int, metric: str, matchers: str, *again: str) -> Values:
        """Return by how much a sum over rounds grew."""
        before = self.selected(r - 1, metric, matchers)
        return {key: value - before.get(key, 0.0) for key, value in self.selected(r, metric, matchers).items()}

    def quotient(self, r: int, above: str, below: str) -> Values:
        """Return a / b where labels match."""
        divisors = {_run(key): value for key, value in self.of(below, r).items()}
        return {frozenset({_run(key)}): value / divisors[_run(key)] for key, value in self.of(above, r).items()}

    def leaps(self, r: int, metric: str, matchers: str, *again: str) -> Values:
        """Return values above one and a half times their mean over the ten rounds before."""
        earlier: dict[Labels, list[float]] = {}
        for q in range(max(0, r - 10), r):
            for key, value in self.selected(q, metric, matchers).items():
                earlier.setdefault(key, []).append(value)
        now = self.selected(r, metric, matchers)
        return {k: v for k, v in now.items() if k in earlier and v > 1.5 * sum(earlier[k]) / len(earlier[k])}

    def begins(self, r: int, metric: str, matchers: str, *again: str) -> Values:
        """Return values above 0 that were not in any of the ten rounds before."""
        before = {
            key for q in range(max(0, r - 10), r) for key, v in self.selected(q, metric, matchers).items() if v > 0
        }
        return {k: v for k, v in self.selected(r, metric, matchers).items() if v > 0 and k not in before}


AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {"max": max, "min": min, "count": len}


def _quantile(level: float, values: Sequence[float]) -> float:
    """Return Prometheus' quantile: between neighbours in order, NaN below all numbers."""
    ordered = sorted(values, key=lambda value: (not math.isnan(value), value))
    place = level * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] * (1 - (place - below)) + ordered[above] * (place - below)


def _run(key: Labels) -> tuple[str, str]:
    return next(pair for pair in key if pair[0] == "run_id")


_SEL = r"fedscape_(\w+)\{([^}]*)\}"
SHAPES: dict[str, Callable[..., Values]] = {
    _SEL: Answers.selected,
    r"1 - (.*)": lambda x, r, share: {key: 1.0 - value for key, value in x.of(share, r).items()},
    rf"last_over_time\({_SEL}\[\$__range\]\)": Answers.last,
    rf"count\({_SEL}\) \* 0 \+ time\(\) - 946684800": lambda x, r, metric, matchers: (
        {frozenset(): float(r)} if x.selected(r, metric, matchers) else {}
    ),
    r"quantile by \(([\w, ]+)\) \(([\d.]+), (.*) \* on \(run_id\) group_left \(([\w, ]+)\) (.*)\)": Answers.quantiles,
    r"(max|min|count) by \(([\w, ]+)\) \((.*)\)": Answers.by,
    r"(max|min)\((.*)\)": lambda x, r, aggregate, inner: x.by(r, aggregate, "", inner),
    rf"{_SEL} - \({_SEL} offset 1s or {_SEL} \* 0\)": Answers.this_round,
    r"(.*) / (?:on \(run_id\) )?(.*)": Answers.quotient,
    rf"{_SEL} > 0 unless max_over_time\({_SEL}\[9500ms\] offset 1s\) > 0": Answers.begins,
    rf"{_SEL} > 1\.5 \* avg_over_time\({_SEL}\[9500ms\] offset 1s\)": Answers.leaps,
}
