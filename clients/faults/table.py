"""The table of faults: a row has a kind's options, its function and the measure of its effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from clients.core.arrays import F64, I64, U64
from clients.core.rows import Row, Table
from clients.faults import labels, packets, sensors
from clients.faults.label_options import (
    LabelClassDependentOptions,
    LabelConcentratedOptions,
    LabelPairFlipOptions,
    LabelSymmetricOptions,
)
from clients.faults.outages import Outage, outages
from clients.faults.packet_options import (
    ClockSkewOptions,
    DuplicatedOptions,
    GatewayOutageOptions,
    MissingBurstsOptions,
    MissingOptions,
    ReorderedOptions,
)
from clients.faults.readings import Changed, Patch, Readings
from clients.faults.sensor_options import (
    BiasOptions,
    CalibrationDriftOptions,
    NoiseOptions,
    QuantisationOptions,
    SaturationOptions,
    SpikesOptions,
    StuckAtOptions,
    UnitMixupOptions,
)

Measure = Literal["rms", "stuck", "missing", "repeated", "out_of_order", "skew", "wrong_labels"]

EFFECTS: dict[Measure, str] = {
    "rms": "root mean squared change of the readings, in deviations of their channel",
    "stuck": "share of the readings that are stuck",
    "missing": "share of the readings that are missing",
    "repeated": "share of the readings that a repeated packet replaced",
    "out_of_order": "share of the readings that another packet's replaced",
    "skew": "steps between a reading and where it belongs",
    "wrong_labels": "share of the labels that are wrong",
}
"""Measures of effect, over all readings of an affected client in the fault's channels (or all its labels)."""


@dataclass(frozen=True, kw_only=True)
class FaultRow(Row):
    """A kind of fault.

    Attributes:
        measure: the measure of its effect, one of `EFFECTS`.
    """

    measure: Measure


@dataclass(frozen=True, kw_only=True)
class SensorFaultRow(FaultRow):
    """A kind of fault of readings.

    Attributes:
        apply: (options, readings) -> the readings after the fault.
        needs_other_unit: whether it acts only on channels that have another unit.
        outages: finds the outages of whole districts, for the record; None for kinds without any.
    """

    apply: Callable[[Any, Readings], Changed | Patch]
    needs_other_unit: bool = False
    outages: Callable[..., list[Outage]] | None = None


@dataclass(frozen=True, kw_only=True)
class LabelFaultRow(FaultRow):
    """A kind of fault of labels.

    Attributes:
        rate: (options, labels) -> the probability with which each becomes wrong.
        new_label: (options, wrong labels, classes, keys) -> the labels that replace them.
    """

    measure: Measure = "wrong_labels"
    rate: Callable[[Any, I64], F64] = labels.same_rate
    new_label: Callable[[Any, I64, int, U64], I64] = labels.any_other


FAULTS: Table[FaultRow] = Table(
    "a fault",
    SensorFaultRow(kind="stuck_at", options=StuckAtOptions, apply=sensors.stuck_at, measure="stuck"),
    SensorFaultRow(kind="spikes", options=SpikesOptions, apply=sensors.spikes, measure="rms"),
    SensorFaultRow(kind="bias", options=BiasOptions, apply=sensors.bias, measure="rms"),
    SensorFaultRow(
        kind="calibration_drift", options=CalibrationDriftOptions, apply=sensors.calibration_drift, measure="rms"
    ),
    SensorFaultRow(kind="noise", options=NoiseOptions, apply=sensors.noise, measure="rms"),
    SensorFaultRow(
        kind="unit_mixup", options=UnitMixupOptions, apply=sensors.unit_mixup, measure="rms", needs_other_unit=True
    ),
    SensorFaultRow(kind="saturation", options=SaturationOptions, apply=sensors.saturation, measure="rms"),
    SensorFaultRow(kind="quantisation", options=QuantisationOptions, apply=sensors.quantisation, measure="rms"),
    SensorFaultRow(kind="missing", options=MissingOptions, apply=packets.missing, measure="missing"),
    SensorFaultRow(
        kind="missing_bursts", options=MissingBurstsOptions, apply=packets.missing_bursts, measure="missing"
    ),
    SensorFaultRow(kind="clock_skew", options=ClockSkewOptions, apply=packets.clock_skew, measure="skew"),
    SensorFaultRow(kind="duplicated", options=DuplicatedOptions, apply=packets.duplicated, measure="repeated"),
    SensorFaultRow(kind="reordered", options=ReorderedOptions, apply=packets.reordered, measure="out_of_order"),
    SensorFaultRow(
        kind="gateway_outage",
        options=GatewayOutageOptions,
        apply=packets.gateway_outage,
        measure="missing",
        outages=outages,
    ),
    LabelFaultRow(kind="label_symmetric", options=LabelSymmetricOptions),
    LabelFaultRow(kind="label_pair_flip", options=LabelPairFlipOptions, new_label=labels.next_class),
    LabelFaultRow(
        kind="label_class_dependent",
        options=LabelClassDependentOptions,
        rate=labels.class_rate,
        new_label=labels.given_class,
    ),
    LabelFaultRow(kind="label_concentrated", options=LabelConcentratedOptions),
)
