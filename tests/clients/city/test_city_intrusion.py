"""Generated intrusion data lie within the bands of published figures; campaigns are waves; rare families hide."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from clients.city.attacks.botnets import make_campaigns, make_infections
from clients.city.attacks.flows import CHANNELS, WINDOW_SECONDS
from clients.city.attacks.tables import DEVICES, FAMILIES
from clients.city.intrusion import intrusion_source, intrusion_truth
from clients.city.window_options import IntrusionOptions
from clients.core.errors import UserError
from clients.world.options import WorldOptions
from clients.world.world import World, make_world

FIGURES: dict[str, dict[str, Any]] = {
    one["figure"]: one
    for one in json.loads(
        (Path(__file__).parents[2] / "support" / "city_figures" / "intrusion.json").read_text("utf-8")
    )["figures"]
}
NAMES = [channel.name for channel in CHANNELS]
EVERYONE = np.arange(1000)
OPTIONS = IntrusionOptions(clients=1000)


class City:
    """A thousand devices of default options; each figure is measured on the model's inputs."""

    def __init__(self) -> None:
        self.world = make_world(WorldOptions(), 3)
        self.source = intrusion_source(OPTIONS, self.world, 3)
        self.x, self.y = self.source.make(EVERYONE, "train")
        self.owner = np.repeat(EVERYONE, self.source.sizes)
        shares = np.bincount(self.y, minlength=8)[1:]
        self.shares = shares / shares.sum()

    def of(self, name: str, *families: str) -> np.ndarray:
        """Return a feature in windows of some families (0 benign), logarithms undone."""
        rows = np.isin(self.y, [1 + list(FAMILIES).index(f) for f in families]) if families else self.y == 0
        column = self.x[rows, NAMES.index(name)].astype(np.float64)
        return np.asarray(10.0**column - 1.0 if CHANNELS[NAMES.index(name)].unit.startswith("log10(1+") else column)

    def rate(self, name: str, *families: str) -> np.ndarray:
        return np.asarray(self.of(name, *families) / np.maximum(self.of("duration", *families), 1.0))

    def onsets(self) -> np.ndarray:
        """Return hours from a wave's arrival in the district to each infection there."""
        campaigns = intrusion_truth(OPTIONS, self.world, 3)
        district, weak = self.world.sites(EVERYONE).district, np.ones(1000)
        found = make_infections(OPTIONS, self.world, campaigns, 3, clients=EVERYONE, district=district, weak=weak)
        reached, ever = np.array([one.reached for one in campaigns]).T[district], np.isfinite(found.onset)
        return np.asarray(np.sort(found.onset[ever] - reached[ever]))


def by_type(city: City) -> np.ndarray:
    kind = np.array([city.source.client_name(k).split()[0] for k in range(1000)])
    return np.array([city.source.sizes[kind == name].mean() for name in DEVICES])


FLOODS = ("udp_flood", "syn_flood", "ack_flood")
MEASURED: dict[str, Callable[[City], float]] = {
    "benign_share": lambda c: float((c.y == 0).mean()),
    "largest_family_of_attacks": lambda c: float(c.shares.max()),
    "largest_over_smallest_family": lambda c: float(c.shares.max() / c.shares.min()),
    "rarest_family_of_attacks": lambda c: float(c.shares.min()),
    "largest_over_smallest_device_type": lambda c: float(by_type(c).max() / by_type(c).min()),
    "scan_packet_bytes": lambda c: float(np.median(c.of("packet_up", "scan"))),
    "scan_addresses_per_second": lambda c: float(np.median(c.rate("destinations", "scan"))),
    "flood_packets_per_second": lambda c: float(np.median(c.rate("packets_up", *FLOODS))),
    "attack_packet_bytes": lambda c: float(c.of("packet_up", *FAMILIES).mean()),
    "largest_packet_bytes": lambda c: float(c.x[:, NAMES.index("packet_up")].max()),
    "beacon_period_seconds": lambda c: float(np.median(10.0 ** c.of("gap", "beacon"))),
    "beacon_variation": lambda c: float(np.quantile(c.of("gap_variation", "beacon"), 0.95)),
    "benign_destinations": lambda c: float(np.median(c.of("destinations"))),
    "doubling_hours": lambda c: float(
        np.diff(np.quantile(c.onsets(), [0.04, 0.16]))[0] / 2.0  # from 4% to 16% it doubles twice
    ),
}


@pytest.fixture(scope="module")
def city() -> City:
    return City()


@pytest.mark.parametrize("figure", FIGURES)
def test_figure_lies_within_its_band(city: City, figure: str) -> None:
    one = FIGURES[figure]
    assert one["low"] <= MEASURED[figure](city) <= one["high"], one["source"]


def test_features_have_their_shapes_units_and_finite_values(city: City) -> None:
    source = city.source
    assert set(MEASURED) == set(FIGURES)
    assert 20 <= len(CHANNELS) <= 30
    assert city.x.dtype == np.float32
    assert city.x.shape == (source.sizes.sum(), *source.feature_shape)
    assert np.isfinite(city.x).all()
    for column, channel in zip(city.x.T.astype(np.float64), CHANNELS, strict=True):
        assert channel.low - 1e-6 <= column.min() <= column.max() <= channel.high + 1e-6, channel.name
        if channel.measured:
            assert column.std() > 0.0, channel.name
            assert abs(column.mean() - channel.mean) < channel.deviation, channel.name
            assert 0.3 < column.std() / channel.deviation < 2.5, channel.name
    assert [c.name for c in CHANNELS if not c.measured] == ["hour_sin", "hour_cos"]
    assert np.all(city.of("destination_entropy") <= np.log2(np.maximum(city.of("destinations"), 1.0)) + 2.0)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_client_does_not_depend_on_other_clients(city: City, part: Any) -> None:
    source, picked = city.source, np.array([7, 400, 3, 999])
    sizes = {"train": source.sizes, "validation": source.validation_sizes, "test": source.test_sizes}[part]
    whole, labels = source.make(EVERYONE, part)
    some, their_labels = source.make(picked, part)
    ends = np.cumsum(sizes)
    rows = np.concatenate([np.arange(ends[k] - sizes[k], ends[k]) for k in picked])
    assert np.array_equal(some, whole[rows])
    assert np.array_equal(their_labels, labels[rows])
    assert source.hours is not None
    assert np.array_equal(source.hours(picked, part), source.hours(EVERYONE, part)[rows])
    again = intrusion_source(OPTIONS, make_world(WorldOptions(), 3), 3)
    assert np.array_equal(again.make(picked, part)[0], some)
    assert not np.array_equal(intrusion_source(OPTIONS, city.world, 4).make(picked[:1], part)[0], some[: sizes[7]])


def test_parts_follow_each_other_in_time(city: City) -> None:
    hours = {part: city.source.hours(EVERYONE, part) for part in ("train", "validation", "test")}  # type: ignore[misc]
    assert hours["train"].min() >= 0.0
    assert hours["train"].max() < hours["validation"].min()
    assert hours["validation"].max() < hours["test"].min()
    assert hours["test"].max() < city.world.hours
    same = np.diff(np.repeat(EVERYONE, city.source.sizes)) == 0
    assert (np.diff(hours["train"])[same] > 0.0).all()


def attacks_by_day(city: City) -> np.ndarray:
    """Return the share of windows under attack, (district, day) of the training part."""
    day = (city.source.hours(EVERYONE, "train") // 24).astype(int)  # type: ignore[misc]
    district = city.world.sites(city.owner).district
    shape = (len(city.world.names), day.max() + 1)
    cell = district * shape[1] + day
    count, attacks = np.bincount(cell, minlength=shape[0] * shape[1]), np.bincount(cell, weights=city.y > 0)
    return np.asarray((np.append(attacks, np.zeros(len(count) - len(attacks))) / np.maximum(count, 1)).reshape(shape))


def test_campaigns_spread_in_waves(city: City) -> None:
    share, campaigns = attacks_by_day(city), intrusion_truth(OPTIONS, city.world, 3)
    first = campaigns[0]
    before = int(first.start // 24)
    assert share[:, :before].sum() == 0.0
    reached = np.array(first.reached)
    assert reached[first.district] == first.start == reached.min()
    on_time = [share[d, int(hour // 24) + 1] for d, hour in enumerate(reached) if hour < 24 * (share.shape[1] - 2)]
    assert np.mean(on_time) > 0.1  # the day after its arrival
    never = np.isinf([[c.reached[d] for c in campaigns] for d in range(len(share))]).all(axis=1)
    assert share[never].sum() == 0.0
    assert share.std() > 0.7 * share.mean()  # apart in time and place: a steady rate would give about a fifth


def test_attacks_need_campaigns_and_follow_susceptibility_and_activity(city: City) -> None:
    for changed, sign in (({"campaigns_per_month": 0.0}, None), ({"susceptibility": 0.3}, -1), ({"active": 1.0}, 1)):
        share = (
            intrusion_source(IntrusionOptions(clients=1000, **changed), city.world, 3).make(EVERYONE, "train")[1] > 0
        ).mean()
        assert share == 0.0 if sign is None else sign * (share - (city.y > 0).mean()) > 0.01


def test_power_cut_silences_a_district_and_ends_its_infections() -> None:
    world = make_world(WorldOptions(districts=3, power_cuts_per_month=40.0), 5)
    options = IntrusionOptions(clients=300, campaigns_per_month=10.0, susceptibility=3.0, infected_hours=1e4)
    source = intrusion_source(options, world, 5)
    everyone = np.arange(300)
    x, y = source.make(everyone, "train")
    hours = source.hours(everyone, "train")  # type: ignore[misc]
    district = world.sites(np.repeat(everyone, source.sizes)).district
    off = world.power_cut[district, hours.astype(int)]
    assert off.sum() > 50
    assert (x[off, NAMES.index("packets_up")] == 0.0).all()
    assert (x[off, NAMES.index("gap")] == np.float32(np.log10(WINDOW_SECONDS))).all()
    assert (y[off] == 0).all()
    assert (x[~off, NAMES.index("packets_up")] > 0.0).mean() > 0.99
    calm = make_world(WorldOptions(districts=3, power_cuts_per_month=0.0, storms_per_month=0.0), 5)
    uncured = (intrusion_source(options, calm, 5).make(everyone, "train")[1] > 0).mean()
    assert (y > 0).mean() < 0.8 * uncured


def test_infections_end_with_the_next_cut(city: City) -> None:
    world: World = make_world(WorldOptions(districts=3, power_cuts_per_month=40.0), 5)
    options = IntrusionOptions(infected_hours=1e5)
    district = world.sites(np.arange(200)).district
    found = make_infections(options, world, make_campaigns(options, world, 5), 5, clients=np.arange(200),
                            district=district, weak=np.ones(200))  # fmt: skip
    client, campaign = np.argwhere(found.onset < world.hours - 24.0)[11]
    onset, end = found.onset[client, campaign], found.end[client, campaign]
    dark = np.flatnonzero(world.power_cut[district[client]])
    assert end == dark[dark >= onset][0]


def test_device_types_differ_and_devices_of_one_type_differ(city: City) -> None:
    kind = np.array([city.source.client_name(k).split()[0] for k in range(1000)])[city.owner]
    volume, size = NAMES.index("bytes_up"), NAMES.index("packet_up")
    benign = city.y == 0
    means = {name: city.x[benign & (kind == name), volume].mean() for name in DEVICES}
    assert means["camera"] > means["speaker"] > means["plug"]
    assert means["camera"] - means["plug"] > 1.0  # an order of magnitude
    plugs = [city.x[benign & (city.owner == k), size].mean() for k in np.unique(city.owner[kind == "plug"])[:60]]
    within = city.x[benign & (kind == "plug"), size].std() / np.sqrt(60)
    assert np.std(plugs) > 2.0 * within


def test_device_use_follows_people_events_and_weather(city: City) -> None:
    hours = city.source.hours(EVERYONE, "train")  # type: ignore[misc]
    kind = np.array([city.source.client_name(k).split()[0] for k in range(1000)])[city.owner]
    packets, clock = city.x[:, NAMES.index("packets_up")], hours % 24
    speaker = (city.y == 0) & (kind == "speaker")
    assert packets[speaker & (abs(clock - 19.5) < 2)].mean() > packets[speaker & (clock < 5)].mean() + 0.3
    crowd = city.world.crowd[city.world.sites(city.owner).district, hours.astype(int)]
    doorbell = (city.y == 0) & (kind == "doorbell") & (clock > 12)
    assert packets[doorbell & (crowd > 0.5)].mean() > packets[doorbell & (crowd == 0.0)].mean()
    cold = city.world.temperature[hours.astype(int)]
    thermostat = (city.y == 0) & (kind == "thermostat")
    assert np.corrcoef(packets[thermostat], -cold[thermostat])[0, 1] > 0.0


def test_linear_model_finds_loud_families_and_misses_rare_ones(city: City) -> None:
    mean, deviation = (np.array([getattr(c, name) for c in CHANNELS], np.float32) for name in ("mean", "deviation"))
    held, truth = city.source.make(EVERYONE, "test")
    rows = np.arange(len(city.y)) % 4 == 0  # a quarter is enough
    model = LogisticRegression(max_iter=60, tol=0.03).fit(((city.x - mean) / deviation)[rows], city.y[rows])
    predicted = model.predict((held - mean) / deviation)
    recall = {name: float((predicted[truth == 1 + i] == 1 + i).mean()) for i, name in enumerate(FAMILIES)}
    balanced = np.mean([*recall.values(), (predicted[truth == 0] == 0).mean()])
    assert (predicted == truth).mean() > (truth == 0).mean() + 0.03
    assert 0.6 < balanced < 0.95  # always "benign" has 0.125
    assert min(recall["scan"], recall["udp_flood"]) > 0.95
    assert max(recall["beacon"], recall["download"]) < 0.6


def test_source_follows_its_task_families_and_device_types() -> None:
    world = make_world(WorldOptions(), 0)
    chosen = {"clients": 300, "families": ("syn_flood", "scan"), "device_types": ("camera",), "tail": 0.0}
    several = intrusion_source(IntrusionOptions(**chosen), world, 0)
    both = intrusion_source(IntrusionOptions(**chosen, task="attack"), world, 0)
    x, labels = several.make(np.arange(300), "train")
    again, attack = both.make(np.arange(300), "train")
    assert (several.outputs, both.outputs) == (3, 2)
    assert np.array_equal(x, again)
    assert np.array_equal(attack, (labels > 0).astype(np.int64))
    counts = np.bincount(labels, minlength=3)
    assert 0.6 < counts[1] / counts[2] < 1.6  # equally common
    assert several.client_name(5) == "camera 5"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"clients": 0}, "clients: must be >= 1, got 0"),
        ({"families": ("scans",)}, "families: 'scans' is not a family. Nearest: 'scan'"),
        ({"families": ("scan", "scan")}, "families: must differ"),
        ({"device_types": ()}, "device_types: must name at least one"),
        ({"active": 1.5}, "active: must be from 0 to 1, got 1.5"),
        ({"tail": float("nan")}, "tail: must be from 0 to 10, got nan"),
        ({"task": "both"}, "task: must be"),
        ({"test_fraction": 0.9, "validation_fraction": 0.1}, "test_fraction"),
    ],
)
def test_mistakes_are_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        IntrusionOptions(**changed)


def test_device_is_made_alike_alone_and_after_others() -> None:
    world, options = make_world(WorldOptions(), 0), IntrusionOptions(clients=60)
    source, other = (intrusion_source(options, world, 0) for _ in range(2))
    for few in (np.array([20, 21]), np.array([59]), np.array([4, 9]), np.array([5, 4]), np.arange(0)):
        source.make(np.arange(60), "train")
        other.make(np.array([0]), "test")  # forgets the devices before
        for made, expected in zip(source.make(few, "train"), other.make(few, "train"), strict=True):
            assert made.tobytes() == expected.tobytes()
