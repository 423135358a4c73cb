"""The clients' data in words, for the terminal, the picture and the page alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clients.core.population import Population
from clients.heterogeneity.table import HeterogeneityMeasures
from dashboards.report.formats import count, number

MOST_EXTREMES = 3

NAMES = {
    "size": "examples",
    "label_emd": "label EMD",
    "label_js": "label JS",
    "label_hellinger": "label Hellinger",
    "feature_shift": "feature shift",
}
"""Names for people of the quantities in `Holdings.quantities`."""

MEANING = {
    "quantity_gini": "Gini coefficient of sizes: 0 where all are equal, near 1 where one client has everything",
    "label_emd": "sum of |p_k - p| over labels, mean over examples: 0 to 2",
    "label_js": "Jensen-Shannon divergence of p_k and p in bits (base 2), mean over examples: 0 to 1",
    "label_hellinger": "Hellinger distance of p_k and p, mean over examples: 0 to 1",
    "feature_shift": "energy distance of standardised features from all clients, mean over examples, ± 2 standard "
    "errors; 0: no shift",
    "label_noise": "share of training labels that faults changed",
    "gradient_dissimilarity": "mean |grad F_k - grad f|^2 at the initial model",
    "b_squared": "mean |grad F_k|^2 over |grad f|^2 at the initial model; 1 where clients agree",
}
"""One line per measure: p_k are the label frequencies of client k, p those of all clients."""


class Row(NamedTuple):
    """One line of the table: name, value, meaning."""

    name: str
    value: str
    meaning: str


def quantity_name(quantity: str) -> str:
    """Return the name of a quantity for people.

    Example:
        >>> quantity_name("label_js"), quantity_name("fault stuck")
        ('label JS', 'stuck')
    """
    return NAMES.get(quantity, quantity.removeprefix("fault "))


def rows(measures: HeterogeneityMeasures) -> list[Row]:
    """Return the table of measures, without those that these data do not have."""
    m = measures
    span = f"{m.smallest:,}" if m.smallest == m.largest else f"{m.smallest:,} to {m.largest:,}"
    found = [Row("sizes", span, f"training examples per client; median {number(m.median, 6)}")]
    found.append(Row("Gini of sizes", number(m.quantity_gini), MEANING["quantity_gini"]))
    for name in ("label_emd", "label_js", "label_hellinger"):
        value = getattr(m, name)
        found += [Row(NAMES[name], number(value), MEANING[name] + _seen(m, "labels"))] if value is not None else []
    if m.feature_shift is not None:
        found.append(Row("feature shift", _shift(m), MEANING["feature_shift"] + _seen(m, "features")))
    if m.label_noise is not None:
        found.append(Row("label noise", _percent(m.label_noise), MEANING["label_noise"] + _seen(m, "noise")))
    for name, rate in m.faults.items():
        meaning = f"of readings or labels changed, on {_percent(rate.clients)} of clients; effect {number(rate.effect)}"
        found.append(Row(f"fault {name}", _percent(rate.changed), meaning + _seen(m, "faults")))
    found += _spatial(m)
    if m.gradient_dissimilarity is not None:
        meaning = MEANING["gradient_dissimilarity"] + _seen(m, "gradients")
        found.append(Row("gradient dissimilarity", number(m.gradient_dissimilarity), meaning))
        found.append(Row("B² of gradients", number(m.b_squared), MEANING["b_squared"]))
    else:
        found.append(Row("gradient dissimilarity", "not measured", "needs a model, and clients with examples"))
    return found


def _shift(m: HeterogeneityMeasures) -> str:
    """Return the feature shift with twice its standard error; an estimate below that is 0 within its noise."""
    assert m.feature_shift is not None, "the features are measured"
    if m.feature_shift_error is None:
        value = number(m.feature_shift) if m.feature_shift > 0 else "0 (estimated below 0)"
        return f"{value} (coefficient {number(max(0.0, m.feature_coefficient or 0.0))})"
    noise = f"± {number(2 * m.feature_shift_error, 2)}"
    if m.feature_shift <= 2 * m.feature_shift_error:
        return f"0 within its noise, {noise}"
    return f"{number(m.feature_shift)} {noise} (coefficient {number(m.feature_coefficient)})"


def _spatial(measures: HeterogeneityMeasures) -> list[Row]:
    """Return Moran's I of sizes, of one label measure, of features and of faults; the first row has the meaning."""
    found: list[Row] = []
    for name, moran in measures.spatial.items():
        if name in ("label_emd", "label_hellinger"):
            continue
        chance = f"{number(moran.expected, 2)} ± {number(moran.deviation, 2)} expected by chance"
        meaning = f"similarity of near clients (8 neighbours, {moran.places:,} places): above 0 similar, {chance}"
        found.append(Row(f"Moran's I, {quantity_name(name)}", number(moran.value), "" if found else meaning))
    return found


def _seen(measures: HeterogeneityMeasures, what: str) -> str:
    """Return from how many clients a measure was estimated, where these are not all."""
    seen = measures.estimated_from.get(what, measures.clients)
    return f" (estimated from {seen:,} clients)" if seen < measures.clients else ""


def _percent(part: float) -> str:
    """Return a share in percent.

    Example:
        >>> _percent(0.0), _percent(0.251), _percent(0.0004)
        ('0%', '25.1%', '0.04%')
    """
    return f"{number(100 * part)}%"


def sentence(measures: HeterogeneityMeasures) -> str:
    """Return the clients' data in one sentence."""
    m = measures
    each = f"{m.smallest:,} each" if m.smallest == m.largest else f"{m.smallest:,} to {m.largest:,} each"
    words = f"{count(m.clients, 'client')} hold{'s' if m.clients == 1 else ''} {count(m.examples, 'example')}, {each}"
    if m.label_js is not None:
        words += f"; mean label divergence from all clients (Jensen-Shannon) {number(m.label_js, 2)} of at most 1"
    if m.faults:
        worst = max(m.faults, key=lambda name: m.faults[name].changed)
        words += f"; fault {worst} changed the most, {_percent(m.faults[worst].changed)} of readings or labels"
    return words + "."


def requests(population: Population) -> list[Row]:
    """Return what the partition was to reach, and what it reached."""
    facts = population.federation.record
    wanted = {name.removeprefix("requested_"): value for name, value in facts.items() if name.startswith("requested_")}
    return [
        Row(f"reached {name.replace('_', ' ')}", number(facts[f"reached_{name}"], 4), f"{value:g} was requested")
        for name, value in wanted.items()
        if isinstance(value, int | float)
    ]


def extremes(population: Population) -> list[Row]:
    """Return the smallest and the largest clients; none where all have the same size."""
    sizes = population.sizes
    if sizes.min() == sizes.max():
        return []

    def named(order: npt.NDArray[np.integer[Any]]) -> str:
        found = np.argsort(order, kind="stable")[:MOST_EXTREMES]
        return ", ".join(f"{population.federation.client_name(int(k))} ({sizes[k]:,})" for k in found)

    return [Row("smallest clients", named(sizes), ""), Row("largest clients", named(-sizes), "")]


def table(population: Population, measures: HeterogeneityMeasures) -> Iterator[str]:
    """Yield the lines for the terminal."""
    found = [*requests(population), *rows(measures)]
    name = max(len(row.name) for row in found)
    value = max(len(row.value) for row in found)
    yield sentence(measures)
    for notice in population.federation.notices:
        yield f"  {notice}"
    yield ""
    for row in found:
        yield f"  {row.name:<{name}}   {row.value:>{value}}   {row.meaning}".rstrip()
    for row in extremes(population):
        yield f"  {row.name:<{name}}   {row.value}"
