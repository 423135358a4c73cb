"""The generated sources by name: their options, and what makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clients.city.world import World
from clients.sensing import SeriesSource, WindowSource

AnySource = SeriesSource | WindowSource


@dataclass(frozen=True)
class CitySource:
    """One generated source: its options, and (options, world, seed) -> source."""

    options: type[Any]
    source: Callable[[Any, World, int], AnySource]


CITY: dict[str, CitySource] = {}
