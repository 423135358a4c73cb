"""Checks that the faults of a scenario fit its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clients.core.channels import Channel
from clients.core.errors import UserError, unknown_name
from clients.core.examples import Task
from clients.faults.options import FaultOptions, LabelFaultOptions, SensorFaultOptions
from clients.faults.table import FAULTS, SensorFaultRow


def check_faults(
    faults: Mapping[str, FaultOptions],
    *,
    channels: Sequence[Channel],
    districts: Sequence[str],
    task: Task,
    classes: int,
    has_hours: bool,
) -> None:
    """Refuse faults that the data cannot have.

    Args:
        faults: by name.
        channels: of the data; empty where they have none.
        districts: names of the world's districts; empty without a world.
        task: of the data.
        classes: how many, for classification.
        has_hours: whether readings have an hour of the world's clock.

    Raises:
        UserError: its field is `<name of the fault>.<key>`.
    """
    for name, options in faults.items():
        _check_common(name, options, districts, has_hours)
        if isinstance(options, SensorFaultOptions):
            _check_channels(name, options, channels)
        elif isinstance(options, LabelFaultOptions):
            _check_labels(name, options, task, classes)


def _check_common(name: str, options: FaultOptions, districts: Sequence[str], has_hours: bool) -> None:
    if options.schedule.unit == "hours" and not has_hours:
        raise UserError(
            f"{name}.schedule.unit", "is 'hours', and these data have no clock", fix="Schedule it in rounds."
        )
    for district in options.districts:
        if not districts:
            problem = f"names {district!r}, and these data have no districts"
            raise UserError(f"{name}.districts", problem, fix="Leave it out, or add a [world], which has districts.")
        if district not in districts:
            raise UserError(f"{name}.districts", unknown_name(district, districts, "a district"))


def _check_channels(name: str, options: SensorFaultOptions, channels: Sequence[Channel]) -> None:
    measured = [c.name for c in channels if c.measured]
    if not measured:
        raise UserError(f"{name}.kind", f"is {options.kind!r}, and these data have no channels that a sensor measures")
    for channel in options.channels:
        if channel not in measured:
            raise UserError(f"{name}.channels", unknown_name(channel, measured, "a measured channel"))
    row = FAULTS.row_of(options)
    if isinstance(row, SensorFaultRow) and row.needs_other_unit:
        other = [c.name for c in channels if c.measured and c.other_unit]
        if not other:
            raise UserError(f"{name}.kind", f"is {options.kind!r}, and no channel of these data has another unit")
        if options.channels and not set(options.channels) & set(other):
            problem = f"names none that has another unit, got {', '.join(options.channels)}"
            raise UserError(f"{name}.channels", problem, fix=f"These have: {', '.join(other)}.")


def _check_labels(name: str, options: LabelFaultOptions, task: Task, classes: int) -> None:
    if task != "classification":
        raise UserError(
            f"{name}.kind",
            f"is {options.kind!r}, and these data have no labels (their task is {task})",
            fix="Faults of labels need classification.",
        )
    if classes < 2:
        raise UserError(f"{name}.kind", f"is {options.kind!r}, and these data have only one class")
    try:
        options.check_classes(classes)
    except UserError as error:
        raise error.inside(name) from None
