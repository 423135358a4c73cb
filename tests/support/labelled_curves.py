"""Records of made-up runs whose condition is known, for the error rates of the conditions.

`draw(kind, index)` makes the lines of a run of that kind from its parameters alone; its family, noise, length and tails
vary with the index. What counts as each kind is stated at its maker.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clients.core.arrays import F64
from clients.core.streams import generator
from server.convergence.criteria_options import TargetOptions
from server.convergence.monitor import ConvergenceOptions

Rng = np.random.Generator


@dataclass(frozen=True)
class Labelled:
    """A run with its true condition.

    Attributes:
        truth: the kind of its condition.
        lines: its record.
        convergence: the scenario's criteria.
        diverged: whether the run ended as diverged.
        facts: further truths, such as `period`, `best` and `subkind`.
        name: where it comes from.
    """

    truth: str
    lines: list[dict[str, Any]]
    convergence: ConvergenceOptions = field(default_factory=ConvergenceOptions)
    diverged: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""


def draw(kind: str, index: int) -> Labelled:
    """Return the labelled run of a kind with this index; the same one each time."""
    rng = generator(index, f"labelled {kind}")
    return MAKERS[kind](rng)


# Noise and falls


def noise(rng: Rng, n: int, scale: float) -> F64:
    """Return noise of this deviation: white, correlated (0.3 to 0.8 a round), heavy tails, or sparse outliers."""
    form = rng.choice(["white", "correlated", "heavy", "outliers"], p=[0.35, 0.3, 0.2, 0.15])
    if form == "heavy":
        return scale / math.sqrt(3.0) * rng.standard_t(3, n)
    values = rng.standard_normal(n)
    if form == "correlated":
        echo = rng.uniform(0.3, 0.8)
        for t in range(1, n):
            values[t] = echo * values[t - 1] + math.sqrt(1.0 - echo * echo) * values[t]
    if form == "outliers":
        values += 8.0 * (rng.random(n) < 0.03) * rng.choice([-1.0, 1.0], n)
    return scale * values


def fall(rng: Rng, n: int, remaining: float) -> F64:
    """Return a curve from 1 towards 0 that has this share left after n rounds: geometric, power law or two phases."""
    t, form = np.arange(n) / (n - 1), rng.choice(["geometric", "power", "phases"])
    if form == "power":
        p = rng.uniform(0.5, 2.0)
        c = 1.0 / (remaining ** (-1.0 / p) - 1.0)
        return (1.0 + t / c) ** -p
    if form == "phases":
        slow = rng.uniform(0.2, 0.6) if remaining < 0.2 else 0.8
        share = 1.0 - remaining / slow
        return share * 1e-6**t + (1.0 - share) * slow**t
    return remaining**t


def length(rng: Rng, low: int = 24, high: int = 400) -> int:
    """Return a number of measured rounds, even on a logarithmic scale."""
    return int(math.exp(rng.uniform(math.log(low), math.log(high))))


def record(
    rng: Rng, loss: F64, *, train: F64 | None = None, settles: bool | None = None, **more: Any
) -> list[dict[str, Any]]:
    """Return the lines of a run, in a random unit; steps shrink to nothing where the parameters settle."""
    n, unit, floor = len(loss), math.exp(rng.uniform(-3.0, 3.0)), rng.uniform(0.0, 2.0)
    train = 0.9 * loss if train is None else train
    steps = np.where(np.arange(n) < 1, 0.0, 1.0) * (0.8 ** np.arange(n) + (0.0 if settles else 0.01))
    lines: list[dict[str, Any]] = []
    for r in range(n):
        line: dict[str, Any] = {"round": r, "validation_loss": unit * (loss[r] + floor)}
        if r:
            line |= {
                "train_loss": unit * (train[r] + 0.9 * floor),
                "step_norm": steps[r],
                "relative_change": 0.1 * steps[r],
            }
        line |= {name: values[r] for name, values in more.items() if r or name.startswith("validation")}
        lines.append(line)
    return lines


def target_at(lines: list[dict[str, Any]], rng: Rng, share: float) -> ConvergenceOptions:
    """Return a target on the loss, `share` of the way from the first loss (0) to the lowest (1)."""
    values = [line["validation_loss"] for line in lines]
    return ConvergenceOptions(
        target=TargetOptions(metric="validation_loss", at_most=values[0] - share * (values[0] - min(values)))
    )


# The kinds


def converged(rng: Rng) -> Labelled:
    """At rest: less than 0.8% still to fall, and noise below 1% of the gain; a target, if any, is met.

    Among them are what must not be taken for something else: an oscillation that dies out, a rise at the start, and a
    concept drift that was made up for.
    """
    n = length(rng)
    loss = fall(rng, n, rng.uniform(1e-6, 0.008)) + noise(rng, n, rng.uniform(0.0, 0.01))
    form, t, more = rng.choice(["plain", "damped", "rise", "recovered"], p=[0.55, 0.15, 0.15, 0.15]), np.arange(n), {}
    if form == "damped":
        loss += 0.3 * np.cos(2.0 * np.pi * t / rng.uniform(3.0, max(n / 6, 4.0))) * 1e-3 ** (t / (0.6 * n))
    if form == "rise":
        loss += rng.uniform(0.2, 2.0) * np.exp(-((t - 0.1 * n) ** 2) / (0.05 * n) ** 2)
    if form == "recovered":
        at = int(0.3 * n)
        loss += np.where(t >= at, rng.uniform(0.1, 0.8) * 1e-3 ** ((t - at) / (0.4 * n)), 0.0)
        more["concept_drift"] = [{"swap": {"level": float(v), "clients": int(v)}} for v in t >= at]
    lines = record(rng, loss, settles=True, **more)
    options = target_at(lines, rng, rng.uniform(0.5, 0.95)) if rng.random() < 0.5 else ConvergenceOptions()
    return Labelled("converged", lines, options)


def plateaued(rng: Rng) -> Labelled:
    """At rest as `converged`, but 8% of the gain or more above the target; or at rest above its own best."""
    n = length(rng)
    quiet = noise(rng, n, rng.uniform(0.0, 0.01))
    if rng.random() < 0.25:
        rise = rng.uniform(0.15, 0.6) * (1.0 - 1e-4 ** np.clip(np.arange(n) / (n - 1) - 0.1, 0.0, None))
        loss = 1e-6 ** (np.arange(n) / (0.2 * n)) + rise
        lines = record(rng, loss + quiet, train=loss + noise(rng, n, 0.005), settles=True)
        return Labelled("plateaued", lines, facts={"subkind": "biased"})
    lines = record(rng, fall(rng, n, rng.uniform(1e-6, 0.008)) + quiet, settles=True)
    return Labelled("plateaued", lines, target_at(lines, rng, rng.uniform(1.08, 1.8)))


def improving(rng: Rng) -> Labelled:
    """6% of the first distance or more is still to fall, clear of noise; a target needs fewer rounds than played."""
    n = length(rng)
    remaining = rng.uniform(0.06, 0.6)
    clean = fall(rng, n, remaining)
    gone = clean[-n // 3] - clean[-1]
    loss = clean + noise(rng, n, rng.uniform(0.0, 0.2) * gone)
    lines = record(rng, loss)
    if rng.random() < 0.4:  # a straight line through the last step reaches it within half of the rounds played
        values = [line["validation_loss"] for line in lines]
        ahead = rng.uniform(0.05, 0.3) * (clean[-n // 3] - clean[-1]) / (loss[0] - min(loss))
        target = min(values) - ahead * (values[0] - min(values))
        return Labelled(
            "improving", lines, ConvergenceOptions(target=TargetOptions(metric="validation_loss", at_most=target))
        )
    return Labelled("improving", lines)


def too_short(rng: Rng) -> Labelled:
    """Fewer than eight rounds, or a geometric fall whose target needs twice the rounds played, or more, in addition."""
    if rng.random() < 0.3:
        n = int(rng.integers(3, 8))
        return Labelled("too_short", record(rng, 0.9 ** np.arange(n) + noise(rng, n, 0.005)))
    n = length(rng)
    remaining = rng.uniform(0.3, 0.75)
    ahead = remaining ** rng.uniform(2.0, 3.0)
    clean = remaining ** (np.arange(n) / (n - 1))
    loss = clean + noise(rng, n, rng.uniform(0.0, 0.1) * (clean[-n // 3] - clean[-1]))
    lines = record(rng, loss)
    first = lines[0]["validation_loss"]
    unit = (first - lines[-1]["validation_loss"]) / (loss[0] - loss[-1])
    options = ConvergenceOptions(
        target=TargetOptions(metric="validation_loss", at_most=first - unit * (loss[0] - remaining * ahead))
    )
    return Labelled("too_short", lines, options)


def noise_floor(rng: Rng) -> Labelled:
    """At rest with noise of 5% to 30% of the gain; in some a target is missed, by 15% of the gain or more."""
    n = length(rng)
    loss = fall(rng, n, rng.uniform(1e-6, 0.008)) + noise(rng, n, rng.uniform(0.05, 0.3))
    lines = record(rng, loss)
    options = ConvergenceOptions()
    if rng.random() < 0.3:
        first, unit = lines[0]["validation_loss"], lines[0]["validation_loss"] - lines[-1]["validation_loss"]
        unit /= loss[0] - loss[-1]
        at_most = first - unit * (loss[0] + rng.uniform(0.15, 0.5))
        options = ConvergenceOptions(target=TargetOptions(metric="validation_loss", at_most=at_most))
    return Labelled("noise_floor", lines, options)


def oscillating(rng: Rng) -> Labelled:
    """A cycle of 2 rounds to a tenth of the record, of 4% to 40% of the gain, with noise below 40% of that."""
    n = length(rng, 40)
    period, amplitude = math.exp(rng.uniform(math.log(2.0), math.log(n / 10))), rng.uniform(0.04, 0.4)
    form = rng.choice(["sine", "square", "saw"])
    period = float(round(period)) if form != "sine" or period < 4 else period
    phase = (np.arange(n) / period + rng.random()) % 1.0
    wave = {
        "sine": np.cos(2.0 * np.pi * (phase - phase[0])),
        "square": np.where(phase < 0.5, 1.0, -1.0),
        "saw": 2.0 * phase - 1.0,
    }[form]
    base = fall(rng, n, rng.uniform(1e-6, 0.05))
    loss = base + amplitude * wave * (1.0 - base) + noise(rng, n, rng.uniform(0.0, 0.4) * amplitude)
    return Labelled("oscillating", record(rng, loss), facts={"period": period})


def diverging(rng: Rng) -> Labelled:
    """A fall, or none, and then growth above the start, geometric or straight; or a loss that is not a number."""
    n, form = length(rng), rng.choice(["geometric", "straight", "nan", "flagged"])
    t = np.arange(n) / (n - 1)
    base = fall(rng, n, 0.05)
    if form == "nan":
        loss = base + noise(rng, n, 0.02)
        lines = record(rng, loss)
        lines[-1]["validation_loss"] = math.nan
        return Labelled("diverging", lines, diverged=True)
    growth = (
        (math.exp(rng.uniform(2.0, 8.0)) ** t - 1.0)
        if form != "straight"
        else rng.uniform(2.0, 10.0) * np.clip(t - 0.2, 0.0, None)
    )
    loss = base + growth + noise(rng, n, 0.02)
    return Labelled("diverging", record(rng, loss, train=loss), diverged=form == "flagged")


def overfitted(rng: Rng) -> Labelled:
    """Validation rises from its best by 8% of the gain or more, and four times its noise, while training falls."""
    n = length(rng)
    t, at = np.arange(n) / (n - 1), rng.uniform(0.15, 0.6)
    rise = rng.uniform(0.08, 0.8)
    base = 1e-3 ** (t / at)
    bend = np.clip(t - at, 0.0, None) / (1.0 - at)
    loss = (
        base
        + rise * (bend if rng.random() < 0.6 else 1.0 - np.exp(-4.0 * bend))
        + noise(rng, n, rng.uniform(0.0, 0.25) * rise)
    )
    train = 0.9 * fall(rng, n, rng.uniform(0.001, 0.05)) + noise(rng, n, 0.01)
    clean = base + rise * bend
    return Labelled("overfitted", record(rng, loss, train=train), facts={"best": int(np.argmin(clean)), "n": n})


def stuck(rng: Rng) -> Labelled:
    """Level from the start; layers tell vanishing gradients and dead units, a growing gradient a saddle."""
    n, kind = length(rng, 16), rng.choice(["vanishing_gradients", "dead_units", "saddle", "small_steps", ""])
    loss = 1.0 + noise(rng, n, rng.uniform(0.0005, 0.02))
    loss[0] = 1.0
    ones = np.ones(n) * np.exp(0.2 * rng.standard_normal(n))
    first = {"vanishing_gradients": 1e-5, "dead_units": 0.0}.get(str(kind), 0.3)
    layers = [
        {
            "0": {"aggregate_norm": first * v},
            "2": {"aggregate_norm": 0.5 * v if kind != "dead_units" else 0.0},
            "4": {"aggregate_norm": v},
        }
        for v in ones
    ]
    grows = 30.0 ** (np.arange(n) / (n - 1)) if kind == "saddle" else 1.0
    lines = record(
        rng, loss, train=1.0 + noise(rng, n, 0.01), by_layer=layers, pseudo_gradient_norm=0.01 * ones * grows
    )
    size = 1e-6 if kind == "small_steps" else 1e-2
    for line in lines[1:]:
        line["relative_change"] = size * float(ones[line["round"]])
    return Labelled("stuck", lines, facts={"subkind": str(kind)})


def forgetting(rng: Rng) -> Labelled:
    """A drift costs 20% of the gain or more, and at most half of that is regained."""
    n = length(rng, 40)
    at = int(n * rng.uniform(0.35, 0.75))
    cost = rng.uniform(0.2, 1.2)
    regained = rng.uniform(0.0, 0.5)
    loss = np.empty(n)
    loss[:at] = fall(rng, at, rng.uniform(0.001, 0.03))
    after = np.arange(n - at)
    loss[at:] = loss[at - 1] + cost * (1.0 - regained * (1.0 - np.exp(-3.0 * after / len(after))))
    loss += noise(rng, n, rng.uniform(0.0, 0.05) * cost)
    level = np.where(np.arange(n) >= at, 1.0, 0.0)
    drifts = [{"swap": {"level": float(v), "clients": int(10 * v)}} for v in level]
    return Labelled("forgetting", record(rng, loss, train=loss, concept_drift=drifts), facts={"drift": at})


MAKERS: Mapping[str, Callable[[Rng], Labelled]] = {
    maker.__name__: maker
    for maker in (
        converged, plateaued, improving, too_short, noise_floor, oscillating, diverging, overfitted, stuck, forgetting
    )
}  # fmt: skip
"""A maker for each kind but `unclear`, which is no truth."""
