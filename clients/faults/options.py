"""Every kind of fault: its options, and what its effect is measured by."""

from __future__ import annotations

from typing import Any

from clients.faults.common import Fault, Fill, Schedule, SensorFault
from clients.faults.label_options import (
    LabelClassDependentOptions,
    LabelConcentratedOptions,
    LabelPairFlipOptions,
    LabelSymmetricOptions,
)
from clients.faults.packet_options import (
    ClockSkewOptions,
    DuplicatedOptions,
    GatewayOutageOptions,
    MissingBurstsOptions,
    MissingOptions,
    ReorderedOptions,
)
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

__all__ = [
    "EFFECTS",
    "FAULTS",
    "MEASURES",
    "Fault",
    "FaultOptions",
    "Fill",
    "LabelFaults",
    "Schedule",
    "SensorFault",
    "SensorFaults",
    "is_label_fault",
]

SensorFaults = (
    StuckAtOptions
    | SpikesOptions
    | BiasOptions
    | CalibrationDriftOptions
    | NoiseOptions
    | UnitMixupOptions
    | SaturationOptions
    | QuantisationOptions
    | MissingOptions
    | MissingBurstsOptions
    | ClockSkewOptions
    | DuplicatedOptions
    | ReorderedOptions
    | GatewayOutageOptions
)
LabelFaults = LabelSymmetricOptions | LabelPairFlipOptions | LabelClassDependentOptions | LabelConcentratedOptions
FaultOptions = SensorFaults | LabelFaults

FAULTS: dict[str, type[Any]] = {
    "stuck_at": StuckAtOptions,
    "spikes": SpikesOptions,
    "bias": BiasOptions,
    "calibration_drift": CalibrationDriftOptions,
    "noise": NoiseOptions,
    "unit_mixup": UnitMixupOptions,
    "saturation": SaturationOptions,
    "quantisation": QuantisationOptions,
    "missing": MissingOptions,
    "missing_bursts": MissingBurstsOptions,
    "clock_skew": ClockSkewOptions,
    "duplicated": DuplicatedOptions,
    "reordered": ReorderedOptions,
    "gateway_outage": GatewayOutageOptions,
    "label_symmetric": LabelSymmetricOptions,
    "label_pair_flip": LabelPairFlipOptions,
    "label_class_dependent": LabelClassDependentOptions,
    "label_concentrated": LabelConcentratedOptions,
}
"""Options by kind; kinds that start with `label_` are faults of labels, the others of readings."""

EFFECTS: dict[str, str] = {
    "rms": "root mean squared change of the readings, in deviations of their channel",
    "stuck": "share of the readings that are stuck",
    "missing": "share of the readings that are missing",
    "repeated": "share of the readings that a repeated packet replaced",
    "out_of_order": "share of the readings that another packet's replaced",
    "skew": "steps between a reading and where it belongs",
    "wrong_labels": "share of the labels that are wrong",
}
"""Measures of effect, over all of an affected client's readings of the fault's channels (or labels)."""

MEASURES: dict[str, str] = {
    "stuck_at": "stuck",
    "spikes": "rms",
    "bias": "rms",
    "calibration_drift": "rms",
    "noise": "rms",
    "unit_mixup": "rms",
    "saturation": "rms",
    "quantisation": "rms",
    "missing": "missing",
    "missing_bursts": "missing",
    "clock_skew": "skew",
    "duplicated": "repeated",
    "reordered": "out_of_order",
    "gateway_outage": "missing",
    "label_symmetric": "wrong_labels",
    "label_pair_flip": "wrong_labels",
    "label_class_dependent": "wrong_labels",
    "label_concentrated": "wrong_labels",
}
"""Which measure of `EFFECTS` each kind's effect is in."""


def is_label_fault(options: Fault) -> bool:
    """Say whether a fault is one of labels."""
    return options.kind.startswith("label_")
