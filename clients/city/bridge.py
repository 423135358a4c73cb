"""Bridge: accelerometers on the decks of bridges, some of which are damaged while they are watched.

A client is a bridge with a few sensors. `clients.city.structure` has its structure and the effects of traffic, wind and
temperature. Windows of a few seconds are taken over all the world's hours, evenly but for chance, in order
of time. Two tasks:

- damage: classify a bridge as healthy (0) or damaged (1). A share of the bridges is damaged, each from an hour of its
  own on, so damage is rarer in the training part than in the test part, and some clients never see it.
- reconstruct: reproduce the standardised window (an autoencoder: a network with a narrow layer; its error is the
  alarm). All training and validation windows are of healthy bridges, as in practice; damage begins within the test
  part. `bridge_truth` returns the state of a bridge at each window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from clients.city import structure
from clients.city.source_types import MOST_LISTED, Part, WindowSource
from clients.city.structure import Bridges, deck_temperature, excitation, frequencies, make_bridges
from clients.city.window_options import BridgeOptions
from clients.city.windows import Counts, draw_counts, pick
from clients.core import streams
from clients.core.arrays import F32, F64, I64, Array, Bool
from clients.core.channels import Channel
from clients.world.world import World

CLASSES = ("healthy", "damaged")
_BLOCK = 1 << 16  # samples of one sensor made at once


@dataclass(frozen=True)
class BridgeTruth:
    """The state of bridges at each window of a part, client after client.

    Attributes:
        bridge: index of the window's bridge among the given clients, int64 (M,).
        number: number of the window among its bridge's, from 0, int64 (M,).
        hours: when, float64 (M,), rising within a bridge.
        temperature: of the deck, degrees Celsius, (M,).
        damage: its extent, 0 for healthy, (M,).
        frequencies: of the four modes, Hz, (M, 4).
        level: deviation of the acceleration, m/s2, (M,).
        bridges: fixed properties of the given clients.
    """

    bridge: I64
    number: I64
    hours: F64
    temperature: F64
    damage: F64
    frequencies: F64
    level: F64
    bridges: Bridges


def _counts(options: BridgeOptions, seed: int, clients: I64) -> Counts:
    key = streams.keys(seed, "bridge size", clients)
    return draw_counts(key, options.windows, options.spread, options.validation_fraction, options.test_fraction)


def _onsets(options: BridgeOptions, world: World, seed: int, clients: I64, counts: Counts) -> F64:
    """Return when damage begins, hours, infinite where it never does."""
    draws = streams.uniforms(streams.keys(seed, "bridge onset", clients), 2)
    earliest, latest = options.onset
    share = earliest + (latest - earliest) * draws[:, 1]
    if options.task == "reconstruct":
        healthy = (counts.train + counts.validation) / counts.total
        share = healthy + (1.0 - healthy) * share
    struck = (draws[:, 0] < options.damaged) & (options.damage > 0.0)
    return np.asarray(np.where(struck, share * world.hours, np.inf))


def bridge_truth(options: BridgeOptions, world: World, seed: int, clients: I64, part: Part) -> BridgeTruth:
    """Return the ground truth of the windows that `bridge_source(options, world, seed)` makes for some clients."""
    clients = np.asarray(clients, np.int64)
    counts = _counts(options, seed, clients)
    who, number = pick(counts, part)
    key = streams.keys(seed, "bridge window", clients[who], number)
    draws = streams.normals(streams.keys(0, "bridge weather", key), 2)
    chance = streams.uniforms(key, 1)[:, 0]
    hours = (number + chance) / counts.total[who] * world.hours
    onset = _onsets(options, world, seed, clients, counts)
    bridges = make_bridges(streams.keys(seed, "bridge", clients), options.sensors, options.diversity, onset)
    since = hours - onset[who]
    grown = np.clip(since / options.growth_hours, 0.0, 1.0) if options.growth_hours else np.ones(len(hours))
    damage = np.where(since >= 0.0, options.damage * grown, 0.0)
    temperature = world.at(deck_temperature(world), hours) + bridges.warmer[who]
    felt = 15.0 + options.temperature_effect * (temperature - 15.0)
    hertz = frequencies(bridges, who, felt, damage) * np.exp(0.002 * draws[:, :1])
    level = excitation(world, bridges.traffic[who], world.sites(clients).district[who], hours)
    level = level * np.exp(0.3 * draws[:, 1])
    return BridgeTruth(who, number, hours, temperature, damage, hertz, level, bridges)


def _damage(options: BridgeOptions, world: World, damaged: I64, onset: F64) -> dict[str, Any]:
    """Return which bridges are damaged, from which hour on, and the extent of damage when the world ends."""
    since = (world.hours - onset) / options.growth_hours if options.growth_hours else np.ones(len(onset))
    return {
        "damaged": len(damaged),
        "growth_hours": options.growth_hours,
        "clients": damaged[:MOST_LISTED].tolist(),
        "onset_hour": onset[:MOST_LISTED].round(3).tolist(),
        "level_at_the_end": (options.damage * np.minimum(since, 1.0))[:MOST_LISTED].round(4).tolist(),
    }


def bridge_source(options: BridgeOptions, world: World, seed: int) -> WindowSource:
    """Return the windows of bridges, in m/s2.

    Targets are 0 (healthy) and 1 (damaged, from the hour of its onset on), or, to reconstruct, the window standardised
    by the channels' mean and deviation and flattened, float32. Bridge k's windows depend on (options, world, seed, k)
    alone.

    Example:
        >>> from clients.world.world import make_world
        >>> from clients.world.options import WorldOptions
        >>> source = bridge_source(BridgeOptions(clients=3, windows=20), make_world(WorldOptions(), 0), seed=0)
        >>> features, targets = source.make(np.array([2]), "train")
        >>> features.shape[1:], targets.dtype.name, source.outputs
        ((128, 3), 'int64', 2)
    """
    channels = tuple(
        Channel(
            name=f"acceleration_{i + 1}",
            unit="m/s2",
            deviation=0.02,
            low=-20.0,
            high=20.0,
            other_unit="g",
            other_scale=1.0 / 9.80665,
        )
        for i in range(options.sensors)
    )
    classify = options.task == "damage"

    def make(clients: I64, part: Part) -> tuple[F32, Array]:
        clients = np.asarray(clients, np.int64)
        truth = bridge_truth(options, world, seed, clients, part)
        key = streams.keys(seed, "bridge window", clients[truth.bridge], truth.number)
        features = np.empty((len(key), options.window, options.sensors), np.float32)
        size = max(_BLOCK // options.window, 16)
        for first in range(0, len(key), size):
            rows = slice(first, first + size)
            features[rows] = structure.read_windows(
                truth.bridges,
                truth.bridge[rows],
                truth.frequencies[rows],
                truth.level[rows],
                key[rows],
                options.window,
                0.001 * options.noise,
            )
        if classify:
            return features, (truth.hours >= truth.bridges.onset[truth.bridge]).astype(np.int64)
        return features, features.reshape(len(key), -1) / np.float32(channels[0].deviation)

    def anomalous(clients: I64, part: Part) -> Bool:
        truth = bridge_truth(options, world, seed, np.asarray(clients, np.int64), part)
        return np.asarray(truth.hours >= truth.bridges.onset[truth.bridge])

    everyone = np.arange(options.clients, dtype=np.int64)
    sizes = _counts(options, seed, everyone)
    onsets = _onsets(options, world, seed, everyone, sizes)
    struck = np.isfinite(onsets)
    return WindowSource(
        name="bridge",
        task="classification" if classify else "regression",
        sizes=sizes.train.astype(np.int32),
        test_sizes=sizes.test.astype(np.int32),
        validation_sizes=sizes.validation.astype(np.int32),
        channels=channels,
        feature_shape=(options.window, options.sensors),
        outputs=2 if classify else options.window * options.sensors,
        reconstructs=not classify,
        anomalous=None if classify else anomalous,
        make=make,
        hours=lambda clients, part: bridge_truth(options, world, seed, clients, part).hours,
        places=world.sites,
        districts=world.names,
        client_name=lambda client: f"bridge {client}",
        facts={"rate_hz": structure.RATE, "damaged_bridges": int(struck.sum()), "made_like": "Z24"},
        ground_truth=lambda: _damage(options, world, np.flatnonzero(struck), onsets[struck]),
    )
