"""Readings of a series in a span of steps, with its windows, their hours and labels, and faults in both."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from clients.city.source_types import SeriesSource
from clients.core.arrays import F32, F64, I64, Bool
from clients.faults.apply import Block, LabelBlock, corrupt, corrupt_labels
from clients.faults.options import Faults
from clients.world.world import World


@dataclass(frozen=True)
class SeriesSpan:
    """Steps [begin, end) of a source, and the windows in them.

    Attributes:
        source: the series.
        begin: first step.
        end: the step after the last.
        starts: where windows start, counted from `begin`, int64 (W,).
    """

    source: SeriesSource
    begin: int
    end: int
    starts: I64

    @classmethod
    def of(cls, source: SeriesSource, begin: int, end: int) -> SeriesSpan:
        """Return a span with all its windows: they start at multiples of the stride, and end within the span."""
        first = -(-begin // source.stride) * source.stride - begin
        last = end - begin - source.window - source.horizon
        return cls(source, begin, end, np.arange(first, last + 1, source.stride, dtype=np.int64))

    @property
    def length(self) -> int:
        """Number of steps."""
        return self.end - self.begin

    def steps(self) -> I64:
        """Return the step of each window's last input, (W,), counted from the source's first."""
        return self.begin + self.starts + self.source.window - 1

    def hours(self) -> F64:
        """Return the hour of each window's last input, (W,)."""
        return np.asarray(self.steps() * self.source.step_hours, np.float64)

    def block(self, clients: I64, values: F32) -> Block:
        """Return readings (K, T, C) of the span in the form that faults take."""
        source = self.source
        hours = np.arange(self.begin, self.end) * source.step_hours
        return Block(
            values=values,
            lengths=np.full(len(clients), values.shape[1]),
            clients=clients,
            hours=np.broadcast_to(hours, values.shape[:2]),
            district=source.places(clients).district if source.places is not None else np.zeros(len(clients), np.int64),
            channels=source.channels,
            first=self.begin,
            districts=source.districts,
        )

    def labels(self, block: Block, faults: Faults, seed: int) -> tuple[I64, dict[str, Bool], dict[str, F64]]:
        """Return labels of readings in their units, and the changes of label faults.

        Args:
            block: the readings (K, T, C), sensor faults included.
            faults: by name; those of readings are ignored.
            seed: root seed.

        Returns:
            Labels by window start, int64 (K, T); without a labelled source (K, 0). By fault, its changes, bool
            (K, W), and its effect, float64 (K,).
        """
        source, clients, steps = self.source, block.clients, block.values.shape[1]
        labels = np.zeros((len(clients), steps if source.label is not None else 0), np.int64)
        if source.label is None or not len(self.starts):
            return labels, {}, {}
        ahead = self.starts[:, None] + source.window + np.arange(source.horizon)
        made = source.label(block.values[:, :, 0][:, ahead])
        all_labels = LabelBlock(
            made.reshape(-1),
            np.arange(len(clients) + 1) * made.shape[1],
            clients,
            source.outputs,
            district=block.district,
            districts=source.districts,
            hours=np.tile(self.hours(), len(clients)),
        )
        flat, found, effects = corrupt_labels(all_labels, faults, seed=seed)
        labels[:, self.starts] = flat.reshape(made.shape)
        return labels, {n: m.reshape(made.shape) for n, m in found.items()}, effects


def faulty_readings(
    span: SeriesSpan, clients: I64, faults: Faults, *, seed: int, world: World | None = None
) -> tuple[F32, dict[str, Bool]]:
    """Return readings (K, T, C) with their faults, and by fault its changes of readings or of labels (K, W)."""
    block = span.block(clients, span.source.read(clients, span.begin, span.end))
    values, masks, _ = corrupt(block, faults, seed=seed, world=world)
    _, wrong, _ = span.labels(replace(block, values=values), faults, seed)
    return values, masks | wrong
