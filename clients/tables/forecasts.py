"""What forecasts of recorded series are: which quantity, in which unit, scaled by whose deviation."""

from __future__ import annotations

import numpy as np

from clients.core.arrays import F64, I64
from clients.core.population_parts import ForecastSpec, ScaledBy
from clients.tables.faults import HOUR, Recorded
from clients.tables.options import Scale, TableOptions

SCALED_BY: dict[Scale, ScaledBy] = {"client": "client", "global": "all clients", "none": "none"}


def forecast_spec(recorded: Recorded, options: TableOptions) -> ForecastSpec:
    """Return what the forecasts of recorded series are."""
    means = np.array([mean[0] for mean, _ in recorded.scales], np.float64)
    deviations = np.array([deviation[0] for _, deviation in recorded.scales], np.float64)

    def scale(clients: I64) -> tuple[F64, F64]:
        return means[clients], deviations[clients]

    first = recorded.midnight
    return ForecastSpec(
        quantity=recorded.quantity,
        unit=options.unit,
        scaled_by=SCALED_BY[options.scale_of_task],
        scale=scale,
        stride=options.stride,
        step_hours=_step_hours(recorded),
        origin="" if first is None else str(np.datetime64(first, "us").astype("datetime64[D]")),
    )


def _step_hours(recorded: Recorded) -> float | None:
    """Return the hours of the one step that all clients have; None without times, or where steps differ."""
    steps = {int(s.time[1] - s.time[0]) for s in recorded.clients if s.time is not None and len(s.time) > 1}
    return steps.pop() / HOUR if recorded.midnight is not None and len(steps) == 1 else None
