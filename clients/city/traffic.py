"""Traffic: speeds at sensors on the main roads of a generated city.

What a sensor reads is in `clients.city.roads.speeds`, the roads and their incidents in
`clients.city.roads.network`; here are the options and the tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from clients.city.roads.network import make_incidents, place_sensors
from clients.city.roads.speeds import CHANNELS, read_speeds
from clients.city.source_types import MOST_LISTED, SeriesSource
from clients.core.arrays import F32, I64, Array
from clients.core.errors import require
from clients.core.options import STRICT
from clients.core.population import Places
from clients.world.world import World

CONGESTED_MPH = 40.0


@dataclass(frozen=True, kw_only=True)
class TrafficOptions:
    """Speeds at road sensors (`[data] kind = "traffic"`).

    Attributes:
        kind: "traffic".
        clients: sensors.
        task: "forecast" the speeds of the next `horizon` steps, or "congestion": is the last of them below 40 mph.
        step_minutes: 5, 15 or 60.
        window: past steps that a model sees.
        horizon: steps ahead.
        stride: steps from one window to the next.
        roads: main roads through the city, each with two carriageways.
        incidents_per_day: in the whole city on a weekday.
        validation_fraction: of the time, after the training part.
        test_fraction: of the time, at the end.
    """

    __pydantic_config__: ClassVar = STRICT

    kind: Literal["traffic"] = "traffic"
    clients: int = 207
    task: Literal["forecast", "congestion"] = "forecast"
    step_minutes: int = 15
    window: int = 12
    horizon: int = 4
    stride: int = 4
    roads: int = 6
    incidents_per_day: float = 14.0
    validation_fraction: float = 0.1
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        """Check the values."""
        require(self.task in ("forecast", "congestion"), "task", f"must be forecast or congestion, got {self.task!r}")
        require(self.step_minutes in (5, 15, 60), "step_minutes", f"must be 5, 15 or 60, got {self.step_minutes}")
        for name in ("clients", "window", "horizon", "stride", "roads"):
            require(getattr(self, name) >= 1, name, f"must be >= 1, got {getattr(self, name)}")
        require(self.roads <= 1000, "roads", f"must be <= 1000, got {self.roads}")
        crashes = f"must be from 0 to 1000, got {self.incidents_per_day}"
        require(0.0 <= self.incidents_per_day <= 1000.0, "incidents_per_day", crashes)
        for name in ("validation_fraction", "test_fraction"):
            require(0.0 <= getattr(self, name) < 1.0, name, f"must be from 0 to below 1, got {getattr(self, name)}")
        both = self.validation_fraction + self.test_fraction
        require(both < 1.0, "test_fraction", f"must leave some time to train on, got {both} with validation_fraction")


def traffic_source(options: TrafficOptions, world: World, seed: int) -> SeriesSource:
    """Return the speeds of all sensors in `world`, from the seed.

    Raises:
        UserError: if the world is too short for one training window.

    Example:
        >>> from clients.world.world import WorldOptions, make_world
        >>> source = traffic_source(TrafficOptions(clients=3), make_world(WorldOptions(days=7), 0), 0)
        >>> source.read(np.arange(3), 0, 96).shape
        (3, 96, 5)
    """
    per_hour = 60 // options.step_minutes
    steps = world.hours * per_hour
    train = int(steps * (1.0 - options.validation_fraction - options.test_fraction))
    ends = (train, max(int(steps * (1.0 - options.test_fraction)), train), steps)
    need = options.window + options.horizon
    problem = f"must leave a window of the {ends[0]} training steps, got {options.window} + horizon {options.horizon}"
    require(need <= ends[0], "window", problem, fix="Make the world longer (world.days) or the window shorter.")
    congestion = options.task == "congestion"
    incidents = make_incidents(world, options.roads, options.incidents_per_day)

    def read(clients: I64, start: int, stop: int) -> F32:
        return read_speeds(
            world, seed, options.roads, incidents, options.step_minutes, np.asarray(clients), start, stop
        )

    def places(clients: I64) -> Places:
        return place_sensors(world, options.roads, clients).places

    def client_name(client: int) -> str:
        sensor = place_sensors(world, options.roads, np.array([client]))
        return f"road {sensor.road[0]}{'+-'[sensor.direction[0]]} km {sensor.along[0]:.1f}"

    return SeriesSource(
        name="traffic congestion" if congestion else "traffic",
        num_clients=options.clients,
        channels=CHANNELS,
        step_hours=options.step_minutes / 60.0,
        ends=ends,
        read=read,
        window=options.window,
        horizon=options.horizon,
        stride=options.stride,
        label=_congested if congestion else None,
        outputs=2 if congestion else options.horizon,
        places=places,
        districts=world.names,
        client_name=client_name,
        facts={"sensors": options.clients, "roads": options.roads, "incidents": len(incidents.start)},
        ground_truth=lambda: {"incidents": len(incidents.start), "first_incidents": incidents.first(MOST_LISTED)},
    )


def _congested(future: Array) -> I64:
    """Whether the last of the future speeds is below CONGESTED_MPH: 1 or 0."""
    return np.asarray(future[..., -1] < CONGESTED_MPH).astype(np.int64)
