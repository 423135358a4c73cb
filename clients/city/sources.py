"""The generated sources by name: their options, and what makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clients.city.activity import ActivityOptions, activity_source
from clients.city.air import AirOptions, air_source
from clients.city.bridge import BridgeOptions, bridge_source
from clients.city.intrusion import IntrusionOptions, intrusion_source
from clients.city.meters import MetersOptions, meters_source
from clients.city.source_types import SeriesSource, WindowSource
from clients.city.traffic import TrafficOptions, traffic_source
from clients.world.world import World

AnySource = SeriesSource | WindowSource


@dataclass(frozen=True)
class CitySource:
    """One generated source: its options, and (options, world, seed) -> source."""

    options: type[Any]
    source: Callable[[Any, World, int], AnySource]


CityOptions = TrafficOptions | MetersOptions | AirOptions | BridgeOptions | IntrusionOptions | ActivityOptions

CITY: dict[str, CitySource] = {
    "traffic": CitySource(TrafficOptions, traffic_source),
    "meters": CitySource(MetersOptions, meters_source),
    "air": CitySource(AirOptions, air_source),
    "bridge": CitySource(BridgeOptions, bridge_source),
    "intrusion": CitySource(IntrusionOptions, intrusion_source),
    "activity": CitySource(ActivityOptions, activity_source),
}
