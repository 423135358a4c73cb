"""Options of the faults of a sensor itself: it reads wrong values.

Deviations are the nominal standard deviations of a channel (`Channel.deviation`). A client's `part` of a channel is a
number of its own, of either sign, uniform in size from 1/2 to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from clients.core.errors import require
from clients.core.options import check_at_least, check_positive, check_range
from clients.faults.options import POSITIVE, SensorFaultOptions, SlottedFaultOptions


@dataclass(frozen=True, kw_only=True)
class StuckAtOptions(SlottedFaultOptions):
    """A channel stays at its last reading for stretches.

    Channels are stuck independently in each slot, so a stretch lasts steps / (1 - severity x share) on average. If a
    stretch began before the span, the span's first reading is used as the last one.
    """

    kind: Literal["stuck_at"] = "stuck_at"


@dataclass(frozen=True, kw_only=True)
class SpikesOptions(SensorFaultOptions):
    """Single readings jump: each with probability severity x share, up or down, by 1/2 to 1 times `deviations`.

    Attributes:
        share: share of the readings that jump at severity 1.
        deviations: the largest jump; readings stay within the channel's range.
    """

    kind: Literal["spikes"] = "spikes"
    share: float = 0.05
    deviations: float = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, 1, "share")
        check_positive(self, "deviations", words=POSITIVE)


@dataclass(frozen=True, kw_only=True)
class BiasOptions(SensorFaultOptions):
    """A channel is off by severity x part x deviations, always; readings stay within the channel's range.

    Attributes:
        deviations: the largest bias at severity 1.
    """

    kind: Literal["bias"] = "bias"
    deviations: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "deviations", words=POSITIVE)


@dataclass(frozen=True, kw_only=True)
class CalibrationDriftOptions(SensorFaultOptions):
    """A channel drifts by severity x part x deviations x min(step / steps, 1), from step 0 of the data.

    Attributes:
        deviations: the largest error at severity 1, once `steps` have passed.
        steps: steps until it stops growing.
    """

    kind: Literal["calibration_drift"] = "calibration_drift"
    deviations: float = 3.0
    steps: int = 672

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "deviations", words=POSITIVE)
        check_at_least(self, 1, "steps", words="at least {:g}")


@dataclass(frozen=True, kw_only=True)
class NoiseOptions(SensorFaultOptions):
    """White Gaussian noise of standard deviation severity x deviation x 10 ** (-snr_db / 20).

    The signal's power is the square of the channel's nominal deviation, so the ratio of signal to noise at severity s
    is snr_db - 20 log10(s) decibels: `snr_db` at 1, infinite at 0. Readings stay within the channel's range.

    Attributes:
        snr_db: ratio of signal to noise at severity 1, in dB.
    """

    kind: Literal["noise"] = "noise"
    snr_db: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(math.isfinite(self.snr_db), "snr_db", f"must be finite, got {self.snr_db}")
        check_range(self, -200, 200, "snr_db")


@dataclass(frozen=True, kw_only=True)
class UnitMixupOptions(SlottedFaultOptions):
    """Readings come in the channel's other unit: other_scale x reading + other_offset, whatever the channel's range.

    Channels are mixed up independently in each slot. A channel without another unit is not changed.
    """

    kind: Literal["unit_mixup"] = "unit_mixup"
    steps: int = 96
    share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SaturationOptions(SensorFaultOptions):
    """Readings are clipped to the channel's nominal mean -+ (limit / severity) deviations.

    Attributes:
        limit: deviations that remain on both sides at severity 1.
    """

    kind: Literal["saturation"] = "saturation"
    limit: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "limit", words=POSITIVE)


@dataclass(frozen=True, kw_only=True)
class QuantisationOptions(SensorFaultOptions):
    """Readings are rounded to a grid through the nominal mean, with 2 ** bits steps over 8 deviations.

    Bits at severity s are the integer nearest to finest - s (finest - bits): a coarser grid is part of every finer one.
    Readings stay within the channel's range.

    Attributes:
        bits: bits of resolution at severity 1.
        finest: bits of resolution just above severity 0.
    """

    kind: Literal["quantisation"] = "quantisation"
    bits: int = 2
    finest: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "bits", words="at least {:g}")
        require(self.bits <= self.finest <= 20, "finest", f"must be from bits ({self.bits}) to 20, got {self.finest}")
