"""Activity: people wear an inertial unit; the task is to classify each window as one of six activities.

Made like UCI HAR (Anguita et al. 2013, "A public domain dataset for human activity recognition using smartphones"):
windows of 64 samples at 25 Hz of body acceleration, angular velocity and total acceleration, of people who walk, climb
and descend stairs, sit, stand and lie. `clients.city.gait` has how a body moves. This module has when: the activity of
a window follows the person's shares (the given ones times exp(habits z), normalised), its day is uniform over the
world's days and its hour follows the activity (lying at night, stairs at the ends of the working day), moved by the
person's own clock (deviation one hour). Windows are in order of time: train first, then validation, then test.
"""

from __future__ import annotations

import numpy as np

from clients.city.gait import ACTIVITIES, MOST_G, MOST_TURN, RATE, make_people, read_windows
from clients.city.source_types import Part, WindowSource
from clients.city.window_options import ActivityOptions
from clients.city.windows import draw_counts, in_blocks, pick
from clients.core import streams
from clients.core.arrays import F32, F64, I64
from clients.core.channels import Channel
from clients.world.world import World

_WHEN = np.array(  # weight of each hour of the day, by activity
    [
        [int(weight) for weight in hours]
        for hours in (
            "000001368544565458864210",  # walking
            "000001368644555457865310",  # upstairs
            "000001378644565458755310",  # downstairs
            "000001247899768998889963",  # sitting
            "000002688655676567875420",  # standing
            "999997521000111111124689",  # laying
        )
    ],
    np.float64,
)


def _channels() -> tuple[Channel, ...]:
    """Return the nine channels; means and deviations are those of UCI HAR, ranges those of its telephone."""
    found = []
    for name, unit, means, deviations, limit in (
        ("body_acc", "g", (0.0, 0.0, 0.0), (0.19, 0.12, 0.10), MOST_G),
        ("body_gyro", "rad/s", (0.0, 0.0, 0.0), (0.40, 0.37, 0.25), MOST_TURN),
        ("total_acc", "g", (0.81, 0.02, 0.09), (0.41, 0.40, 0.34), MOST_G),
    ):
        other, scale = ("m/s2", 9.80665) if unit == "g" else ("deg/s", 57.29578)
        for axis, mean, deviation in zip("xyz", means, deviations, strict=True):
            found.append(
                Channel(
                    name=f"{name}_{axis}",
                    unit=unit,
                    mean=mean,
                    deviation=deviation,
                    low=-limit,
                    high=limit,
                    other_unit=other,
                    other_scale=scale,
                )
            )
    return tuple(found)


def _placement(options: ActivityOptions, seed: int, clients: I64) -> I64:
    """Return the placement of some people's units."""
    edges = np.cumsum(options.placements) / sum(options.placements)
    drawn = streams.uniforms(streams.keys(seed, "activity placement", clients), 1)
    return np.asarray((drawn >= edges[:-1]).sum(axis=1), np.int64)


def _timetable(options: ActivityOptions, world: World, seed: int, clients: I64, total: I64) -> tuple[F64, I64, I64]:
    """Return hours, activities and numbers of all windows of some people in order of time, each (K, max(total)).

    Entries of a person's row beyond its own `total` come last, at hour infinity.
    """
    width = int(total.max(initial=0))
    draws = streams.uniforms(streams.keys(seed, "activity window", clients[:, None], np.arange(width)), 4)
    tilt = streams.normals(streams.keys(seed, "activity habits", clients), 7)
    shares = np.asarray(options.shares) * np.exp(options.habits * tilt[:, :6])
    edges = np.cumsum(shares, axis=1) / shares.sum(axis=1, keepdims=True)
    activity = (draws[..., 0, None] >= edges[:, None, :5]).sum(axis=2)
    daily = np.cumsum(_WHEN, axis=1) / _WHEN.sum(axis=1, keepdims=True)
    hour = np.zeros(activity.shape, np.int64)
    for k in range(len(ACTIVITIES)):
        mine = activity == k
        hour[mine] = np.searchsorted(daily[k], draws[..., 1][mine], side="right")
    late = np.mod(hour + draws[..., 2] + tilt[:, 6:7], 24.0)
    hours = np.floor(draws[..., 3] * world.options.days) * 24.0 + late
    hours[np.arange(width) >= total[:, None]] = np.inf
    order = np.argsort(hours, axis=1, kind="stable")
    return np.take_along_axis(hours, order, 1), np.take_along_axis(activity, order, 1), order


def activity_source(options: ActivityOptions, world: World, seed: int) -> WindowSource:
    """Return the windows of people; targets are indices into `clients.city.gait.ACTIVITIES`.

    Person k's windows depend on (options, world, seed, k) alone.

    Example:
        >>> from clients.world.world import make_world
        >>> from clients.world.options import WorldOptions
        >>> source = activity_source(ActivityOptions(clients=3, windows=20), make_world(WorldOptions(), 0), seed=0)
        >>> features, targets = source.make(np.array([2]), "train")
        >>> features.shape[1:], bool(0 <= targets.min() <= targets.max() <= 5)
        ((64, 9), True)
    """
    held = (options.validation_fraction, options.test_fraction)
    channels = _channels()

    def chosen(clients: I64, part: Part) -> tuple[I64, F64, I64, I64]:
        clients = np.asarray(clients, np.int64)
        counts = draw_counts(streams.keys(seed, "activity size", clients), options.windows, options.spread, *held)
        owner, place = pick(counts, part)
        hours, activity, number = _timetable(options, world, seed, clients, counts.total)
        return owner, hours[owner, place], activity[owner, place], number[owner, place]

    def make(clients: I64, part: Part) -> tuple[F32, I64]:
        clients = np.asarray(clients, np.int64)
        owner, _, activity, number = chosen(clients, part)
        key = streams.keys(seed, "activity", clients[owner], number)
        people = make_people(
            streams.keys(seed, "activity person", clients), _placement(options, seed, clients), options.style
        )
        features = np.empty((len(owner), options.window, 9), np.float32)

        def fill(rows: I64) -> None:
            block = np.empty((len(rows), options.window, 9), np.float32)
            read_windows(people, owner[rows], activity[rows], key[rows], options.window, options.noise, block)
            features[rows] = block

        in_blocks(np.flatnonzero(activity < 3), fill)
        in_blocks(np.flatnonzero(activity >= 3), fill)
        return features, activity

    everyone = np.arange(options.clients, dtype=np.int64)
    sizes = draw_counts(streams.keys(seed, "activity size", everyone), options.windows, options.spread, *held)
    return WindowSource(
        name="activity",
        task="classification",
        sizes=sizes.train.astype(np.int32),
        test_sizes=sizes.test.astype(np.int32),
        validation_sizes=sizes.validation.astype(np.int32),
        channels=channels,
        feature_shape=(options.window, 9),
        outputs=len(ACTIVITIES),
        make=make,
        hours=lambda clients, part: chosen(clients, part)[1],
        places=world.sites,
        districts=world.names,
        client_name=lambda client: f"person {client}",
        facts={"classes": ", ".join(ACTIVITIES), "rate_hz": RATE, "made_like": "UCI HAR"},
    )
