"""Traffic: speeds at sensors on the main roads of a generated city.

`clients.city.roads.speeds` has the readings, `clients.city.roads.network` the roads and their incidents. This module
has the source and its tasks.
"""

from __future__ import annotations

import numpy as np

from clients.city.roads.network import make_incidents, place_sensors
from clients.city.roads.speeds import CHANNELS, read_speeds
from clients.city.series_options import TrafficOptions
from clients.city.source_types import MOST_LISTED, SeriesSource
from clients.core.arrays import F32, I64, Array
from clients.core.errors import require
from clients.core.population_parts import Places
from clients.world.world import World

CONGESTED_MPH = 40.0


def traffic_source(options: TrafficOptions, world: World, seed: int) -> SeriesSource:
    """Return the speeds of all sensors in `world`, from the seed.

    Raises:
        UserError: if the world is too short for one training window.

    Example:
        >>> from clients.world.world import make_world
        >>> from clients.world.options import WorldOptions
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
