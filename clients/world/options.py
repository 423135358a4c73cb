"""Options of the generated world."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from clients.core.errors import require
from clients.core.options import check_range

MOST_DISTRICTS = 240


@dataclass(frozen=True, kw_only=True)
class WorldOptions:
    """A generated world (section `[world]`).

    Attributes:
        districts: how many.
        radius_km: of the city.
        start: first day, an ISO date; its midnight is hour 0.
        days: how many days the world has.
        mean_temperature: of a year, degrees Celsius.
        seasonal_swing: warmest minus coldest time of year, degrees.
        rain_share: share of hours with rain outside storms, 0 to 0.5.
        storms_per_month: expected number; 0 for none.
        events_per_week: expected number of public events in the whole city; 0 for none.
        power_cuts_per_month: expected number in the whole city in fair weather; storms add to it in proportion.
    """

    districts: int = 12
    radius_km: float = 12.0
    start: str = "2026-01-05"
    days: int = 28
    mean_temperature: float = 12.0
    seasonal_swing: float = 18.0
    rain_share: float = 0.06
    storms_per_month: float = 3.0
    events_per_week: float = 4.0
    power_cuts_per_month: float = 2.0

    def __post_init__(self) -> None:
        check_range(self, 1, MOST_DISTRICTS, "districts")
        require(0.0 < self.radius_km <= 1000.0, "radius_km", f"must be above 0 and at most 1000, got {self.radius_km}")
        require(_is_date(self.start), "start", f"must be a date such as 2026-01-05, got {self.start!r}")
        check_range(self, 1, 3660, "days")
        check_range(self, -60, 60, "mean_temperature")
        check_range(self, 0, 80, "seasonal_swing")
        check_range(self, 0, 0.5, "rain_share")
        check_range(self, 0, 60, "storms_per_month")
        check_range(self, 0, 51, "events_per_week")
        check_range(self, 0, 1000, "power_cuts_per_month")


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).year >= 1
    except ValueError:
        return False
