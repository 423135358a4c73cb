"""Options of the generated windows: bridge, intrusion, activity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clients.city.attacks.tables import DEVICES, FAMILIES
from clients.city.gait import ACTIVITIES, PLACEMENTS
from clients.city.options import SplitOptions
from clients.core.errors import require, unknown_name
from clients.core.options import check_not_negative, check_range


class SignalOptions(SplitOptions):
    """What sources share whose examples are windows of a signal.

    This is no dataclass: each kind declares these fields at their place among its own.

    Attributes:
        windows: of a client, on average.
        spread: coefficient of variation of windows over clients.
        window: samples of a window.
    """

    windows: int
    spread: float
    window: int

    def check_windows(self, longest: int) -> None:
        """Refuse numbers and lengths of windows out of range; `longest` is the most samples."""
        check_range(self, 1, 100_000, "windows", words="from 1 to 100,000")
        check_range(self, 0, 3, "spread")
        check_range(self, 16, longest, "window", words=f"from 16 to {longest:,} samples")


@dataclass(frozen=True, kw_only=True)
class BridgeOptions(SignalOptions):
    """Windows of acceleration of bridges.

    Attributes:
        clients: bridges.
        task: "damage" to classify, "reconstruct" for an autoencoder.
        window: samples of a window, at 32 Hz.
        sensors: on each bridge: the channels.
        damaged: share of bridges that are damaged while they are watched.
        damage: its final extent: 1 lowers frequencies as Z24's lowered pier did (1.4% to 6%).
        onset: earliest and latest beginning of damage, as shares of the world's hours (to reconstruct: of the test
            part's).
        growth_hours: hours until damage reaches its final extent; 0 for at once.
        temperature_effect: on frequencies: 1 as on Z24, 0 for none.
        diversity: how much bridges differ from one another: 1 is a deviation of 4% in frequency.
        noise: of sensors: 1 is 0.001 m/s2.
    """

    kind: Literal["bridge"] = "bridge"
    clients: int = 20
    task: Literal["damage", "reconstruct"] = "damage"
    windows: int = 120
    spread: float = 0.2
    window: int = 128
    sensors: int = 3
    damaged: float = 0.6
    damage: float = 1.0
    onset: tuple[float, float] = (0.1, 0.8)
    growth_hours: float = 0.0
    temperature_effect: float = 1.0
    diversity: float = 1.0
    noise: float = 1.0
    validation_fraction: float = 0.1
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_windows(longest=16_384)
        check_range(self, 1, 16, "sensors")
        check_range(self, 0, 1, "damaged", words="in [0, 1]")
        check_range(self, 0, 5, "damage")
        require(
            0.0 <= self.onset[0] <= self.onset[1] <= 1.0,
            "onset",
            f"must be two shares from 0 to 1, the earlier first, got {list(self.onset)}",
        )
        check_not_negative(self, "growth_hours")
        check_range(self, 0, 3, "temperature_effect", "diversity")
        check_range(self, 0, 100, "noise")
        self.check_fractions()


@dataclass(frozen=True, kw_only=True)
class IntrusionOptions(SplitOptions):
    """Generated traffic of devices (`[data]` of kind "intrusion").

    Attributes:
        clients: devices, each a client.
        task: "families" has a class for benign (0) and one for each family in order; "attack" has benign and attack.
        device_types: types of device in the city.
        families: families of attacks, the commonest first.
        windows: recorded windows of a device on average, of all parts.
        size_spread: coefficient of variation of that number among devices of a type.
        tail: exponent of Zipf's law of families; 0 makes them equally common.
        campaigns_per_month: in the whole city; 0 for none.
        susceptibility: factor on each type's share of devices that a campaign can infect.
        doubling_hours: of a wave at first.
        infected_hours: mean time until a device is cleaned.
        active: share of an infected device's windows in which it attacks.
    """

    kind: Literal["intrusion"] = "intrusion"
    clients: int = 200
    task: Literal["families", "attack"] = "families"
    device_types: tuple[str, ...] = tuple(DEVICES)
    families: tuple[str, ...] = tuple(FAMILIES)
    windows: int = 120
    size_spread: float = 0.4
    tail: float = 1.5
    campaigns_per_month: float = 8.0
    susceptibility: float = 1.0
    doubling_hours: float = 76.0 / 60.0
    infected_hours: float = 96.0
    active: float = 0.7
    validation_fraction: float = 0.1
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.task in ("families", "attack"), "task", f"must be 'families' or 'attack', got {self.task!r}")
        _require_names(self.device_types, tuple(DEVICES), "device_types", "a type of device")
        _require_names(self.families, tuple(FAMILIES), "families", "a family")
        require(self.windows >= 1, "windows", f"must be at least 1, got {self.windows}")
        limits = (
            ("size_spread", 0.0, 5.0), ("tail", 0.0, 10.0), ("campaigns_per_month", 0.0, 200.0),
            ("susceptibility", 0.0, 10.0), ("doubling_hours", 0.01, 1000.0), ("infected_hours", 0.01, 1e5),
            ("active", 0.0, 1.0),
        )  # fmt: skip
        for name, low, high in limits:
            check_range(self, low, high, name)
        self.check_fractions()


def _require_names(names: tuple[str, ...], known: tuple[str, ...], field: str, what: str) -> None:
    require(len(names) > 0, field, "must name at least one")
    require(len(set(names)) == len(names), field, f"must differ from each other, got {', '.join(names)}")
    for name in names:
        require(name in known, field, unknown_name(name, known, what))


@dataclass(frozen=True, kw_only=True)
class ActivityOptions(SignalOptions):
    """Windows of wearable inertial units of people.

    Attributes:
        clients: people.
        spread: coefficient of variation of windows over people (0.1 in UCI HAR).
        window: samples of a window, at 25 Hz.
        shares: of walking, upstairs, downstairs, sitting, standing, laying; made to sum to one.
        habits: deviation of the logarithm of a person's shares from these.
        placements: shares of people who wear the unit at the waist, in a trouser pocket, on a wrist.
        style: how much people differ in how they move: 1 as in UCI HAR, 0 not at all.
        noise: of the sensors: 1 as in UCI HAR.
    """

    kind: Literal["activity"] = "activity"
    clients: int = 30
    windows: int = 120
    spread: float = 0.1
    window: int = 64
    shares: tuple[float, ...] = (0.167, 0.150, 0.137, 0.172, 0.185, 0.189)
    habits: float = 0.1
    placements: tuple[float, ...] = (0.6, 0.25, 0.15)
    style: float = 1.0
    noise: float = 1.0
    validation_fraction: float = 0.1
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_windows(longest=512)
        _require_shares("shares", self.shares, ACTIVITIES)
        _require_shares("placements", self.placements, PLACEMENTS)
        check_range(self, 0, 5, "habits", "style", "noise")
        self.check_fractions()


def _require_shares(field: str, shares: tuple[float, ...], names: tuple[str, ...]) -> None:
    problem = f"must be {len(names)} numbers >= 0 ({', '.join(names)}) that are not all 0, got {list(shares)}"
    require(len(shares) == len(names) and min(shares) >= 0.0 and sum(shares) > 0.0, field, problem)
