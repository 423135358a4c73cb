"""What a diagnosis may use: the scenario, the record, and what was looked at, under one set of names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from clients.core.arrays import F64, Array
from server.convergence.facts import facts_of, shown
from server.convergence.noise import deviation

Line = Mapping[str, Any]
_LOSSES = ("optimality_gap", "validation_loss", "train_loss")
LARGEST_COUNT = 2**40
"""Examples of a class that a client may hold: more are damage, and would overflow."""
CLEAR = 1.645
"""Standard errors of a gain that counts: where nothing is gained, 5% of normal ones are larger."""
NEWEST = 5
"""Rounds whose median stands for the end of a curve."""


@dataclass(frozen=True)
class Evidence:
    """What is known of a run.

    Attributes:
        scenario: the resolved scenario, section by section, as in scenario.toml.
        lines: the lines of the record, round 0 first.
        started: the facts of the start, as in environment.json under `run`.
        columns: values of each client in each round, one array a name, aligned with `client` and `round`.
        labels: examples of each class that clients hold, (clients, classes); None where there are no classes.
        outcome: the content of outcome.json; empty before the end.
        looks: what `fedscape explain` looked at; empty where only the record is known. It has `clients` and `sizes`
            of the sampled clients; `features` (deviations `low`, `middle`, `high`, `offset`); `targets`, where
            `constant_loss` is the loss of the best constant prediction; `reference_loss`; where the run ends above it
            also `pooled_loss`, which the run's model reaches on the pooled sample, with the `pooled_training_loss` of
            the sample itself, and `wider_loss`, which a wider one does; `parameters`; and for `start` and `end` the
            sampled clients' `losses` and the `trials` with the `change` of the loss, the `gain` over the unchanged
            round (positive where the loss ends lower) and its `error`; for `start` also the `gradients`; for `end` also
            the `tail`, the share of the loss in the largest 1% of the errors, and the `accuracy` on `training` and on
            `validation` examples, with the number of the latter as `examples`.
        names: name of a client by its index, where it is known.
    """

    scenario: Mapping[str, Any]
    lines: Sequence[Line]
    started: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Array] = field(default_factory=dict)
    labels: Array | None = None
    outcome: Mapping[str, Any] = field(default_factory=dict)
    looks: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)

    def name(self, client: int) -> str:
        """Return the name of a client; its index where no name is known."""
        return str(self.names.get(int(client), client))

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value of the scenario by its dotted key, such as `local.local_lr`."""
        found: Any = self.scenario
        for part in key.split("."):
            if not isinstance(found, Mapping) or part not in found:
                return default
            found = found[part]
        return found

    def series(self, name: str) -> tuple[F64, F64]:
        """Return the rounds and finite values of a fact of the record, both float64 (n,)."""
        found = [(line["round"], value) for line in self.lines if (value := _value(line, name)) is not None]
        pairs = [(r, v) for r, v in found if math.isfinite(v)]
        rounds, values = zip(*pairs, strict=True) if pairs else ((), ())
        return np.array(rounds, np.float64), np.array(values, np.float64)

    @cached_property
    def rounds(self) -> int:
        """The number of rounds played."""
        return int(self.lines[-1]["round"]) if self.lines else 0

    @cached_property
    def loss_name(self) -> str:
        """The loss by which the run is judged: the optimality gap, else validation loss, else training loss."""
        return next((name for name in _LOSSES if len(self.series(name)[1]) >= 2), "train_loss")

    @cached_property
    def loss(self) -> F64:
        """Its values, float64 (n,), finite ones alone."""
        return self.series(self.loss_name)[1]

    @cached_property
    def gained(self) -> float:
        """How far the loss fell from its first value to its best one, >= 0."""
        return float(self.loss[0] - self.loss.min()) if len(self.loss) else 0.0

    @cached_property
    def last(self) -> float:
        """The median of the newest losses; nan without any."""
        return float(np.median(self.loss[-NEWEST:])) if len(self.loss) else math.nan

    @cached_property
    def noise(self) -> float:
        """The standard deviation of the newest losses around a line; of fewer in a short run, whose curve is bent."""
        newest = min(16, max(6, len(self.loss) // 3))
        return deviation(self.loss[-newest:].tolist()) if len(self.loss) >= 4 else 0.0

    @cached_property
    def diverged(self) -> bool:
        """Whether the run diverged, or its loss stopped being finite."""
        values = [_value(line, self.loss_name) for line in self.lines]
        return self.outcome.get("outcome") == "diverged" or any(v is not None and not math.isfinite(v) for v in values)

    @cached_property
    def ruined(self) -> bool:
        """Whether the run diverged, or ends above its start."""
        return self.diverged or (len(self.loss) > 0 and self.last > float(self.loss[0]))

    @cached_property
    def learnt_by_heart(self) -> bool:
        """Whether the training loss fell to less than half of its start; validation loss may have risen meanwhile.

        It is the objective where the models were looked at, and the loss during local steps otherwise.
        """
        first, last = self.objective("start"), self.objective("end")
        if math.isnan(first) or math.isnan(last):
            training = self.series("train_loss")[1]
            first, last = (float(training[0]), self.local_loss) if len(training) else (math.nan, math.nan)
        return last < abs(first) / 2

    @cached_property
    def emd(self) -> float:
        """How much further clients' labels are from those of all than a random deal of these sizes would put them.

        The mean L1 distance (Zhao et al. 2018) minus that of a simulated random deal; 0 without classes.
        """
        if self.labels is None or self.labels.sum() == 0:
            return 0.0
        counts = np.asarray(self.labels, np.float64)
        sizes, shares = counts.sum(1), counts.sum(0) / counts.sum()
        busy = sizes > 0
        dealt = np.random.default_rng(0).multinomial(sizes[busy].astype(np.int64), shares)
        return max(0.0, _distance(counts[busy], shares) - _distance(dealt, shares))

    @cached_property
    def scale(self) -> float:
        """What a change of the loss is compared with: the fall so far, or the loss itself where it hardly fell, > 0."""
        first = abs(float(self.loss[0])) if len(self.loss) else 0.0
        return max(self.gained, 0.02 * first, 1e-12)

    @cached_property
    def shortfall(self) -> float:
        """The share of the way from the first validation loss to the reference's that is left; 0 where unknown."""
        reference, losses = self.looks.get("reference_loss"), self.series("validation_loss")[1]
        if reference is None or not len(losses) or losses[0] <= reference:
            return 0.0
        return float(max(0.0, (np.median(losses[-NEWEST:]) - reference) / (losses[0] - reference)))

    @cached_property
    def pooled_shortfall(self) -> float | None:
        """How far the run's model, trained on the pooled sample, is from the best that others reach there.

        As a share of the way from the first validation loss to that best; None where it was not trained.
        """
        reference, pooled = self.looks.get("reference_loss"), self.looks.get("pooled_loss")
        losses = self.series("validation_loss")[1]
        if reference is None or pooled is None or not len(losses):
            return None
        wider = self.looks.get("wider_loss")
        best = min(reference, wider) if wider is not None else reference
        return float(max(0.0, (pooled - best) / (losses[0] - best))) if losses[0] > best else None

    @property
    def short_words(self) -> tuple[str, ...]:
        """A clause on how far the run is from the reference; none where it reaches it."""
        if self.shortfall <= 0:
            return ()
        here, there = float(np.median(self.series("validation_loss")[1][-NEWEST:])), self.looks["reference_loss"]
        return (f"validation loss is {shown(here)}, and other models reach {shown(there)} on a pooled sample",)

    def trial(self, place: str, name: str) -> Mapping[str, float] | None:
        """Return a trial from the start or the end of the run; None where it was not played."""
        found: Mapping[str, float] | None = self.looks.get(place, {}).get("trials", {}).get(name)
        return found

    def gain(self, place: str, name: str) -> float:
        """Return the gain of a trial as a share of `scale`, where it is clear of its error; 0 otherwise."""
        found = self.trial(place, name)
        if found is None or not math.isfinite(found["gain"]) or abs(found["gain"]) < CLEAR * found["error"]:
            return 0.0
        return found["gain"] / self.scale

    def objective(self, place: str) -> float:
        """Return the training objective over the sampled clients at the first or last model; nan where unknown."""
        found = self.looks.get(place)
        if found is None:
            return math.nan
        return float(np.average(found["losses"], weights=self.looks["sizes"]))

    @cached_property
    def local_loss(self) -> float:
        """The mean training loss during local steps in the newest rounds; nan without rounds."""
        values = self.series("train_loss")[1][-NEWEST:]
        return float(np.median(values)) if len(values) else math.nan


def labels_of(partition: Mapping[str, Any] | None) -> Array | None:
    """Return the examples of each class that the clients of a partition.json hold, float64 (clients, classes).

    None without classes, and where a damaged file has rows of different lengths, or numbers that count nothing.
    """
    rows = (partition or {}).get("label_counts")
    if not rows or len({len(row) for row in rows}) > 1:
        return None
    counts = np.asarray(rows, np.float64)
    return counts if bool(((counts >= 0) & (counts <= LARGEST_COUNT)).all()) else None


def _distance(counts: Array, shares: F64) -> float:
    own = counts / counts.sum(1, keepdims=True)
    return float(np.abs(own - shares).sum(1).mean())


def _value(line: Line, name: str) -> float | None:
    """Return a number of a line; a fact of a round without an aggregate is none."""
    facts = facts_of(line)
    if name in facts:
        found: Any = facts[name]
    else:
        found = line
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) else None
