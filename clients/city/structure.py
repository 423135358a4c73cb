"""A bridge as four modes: how traffic, wind, frost and damage change the acceleration of its deck.

Mode m is a damped oscillator under noise; its complex state, sampled every dt, is exactly

    z(t + dt) = exp((-zeta w + i w sqrt(1 - zeta^2)) dt) z(t) + s(t) e(t),     acceleration = Re z,

with e complex white noise and s such that Re z has the deviation of the excitation (Stoica and Moses 2005, "Spectral
analysis of signals", chapter 3: a sampled resonance is autoregressive). A sensor at x of the span, on one side of the
deck, reads sum_m phi_m(x) Re z_m and its own noise. Frequencies and their fall under damage are those of the Z24 bridge
(Teughels and De Roeck 2004, J. Sound and Vibration 278), damping that of its tests (Reynders and De Roeck 2008),
and, after Peeters and De Roeck (2001), the frequency is bilinear in the deck's temperature T with a knee at 0 deg C:

    w_m(T, d) = 2 pi F_m b (1 - a_m (T - 15) + c_m w0 log(1 + exp(-T / w0))) (1 - d D_m)      w0 = 1 deg C

b is the bridge's own factor. d >= 0 is the extent of its damage (1: Z24 after its pier was lowered by 95 mm).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clients.core import streams
from clients.core.arrays import F32, F64, I64, U64
from clients.world.recursion import recursion
from clients.world.world import World

RATE = 32.0
FREQUENCY = np.array([3.89, 5.02, 9.80, 10.30])  # Hz at 15 deg C
DROP = np.array([0.0566, 0.0139, 0.0602, 0.0592])  # D_m: share of the frequency lost at damage 1
DAMPING = np.array([0.008, 0.014, 0.014, 0.013])  # of critical
_WARM = 0.0013 * np.array([1.0, 1.2, 1.1, 1.1])  # a_m, a degree
_FROST = 0.0087 * np.array([1.0, 1.2, 1.1, 1.1])  # c_m, a degree below zero
_SHARE = np.array([1.0, 0.6, 0.8, 0.7])  # deviation of each mode at the place where it is largest
_DECK_HOURS = 4.0  # the deck follows the air with this time constant
_SUN = 8.0  # degrees by which full sun warms it
_RUSH = 0.02  # m/s2: deviation under the traffic of the busiest hour
_GALE = 0.006  # under a wind of 8 m/s
_QUIET = 0.0012  # and without traffic and wind
_HOURLY = 0.01 * np.array(  # traffic of a working day and of a day of the weekend, by hour, relative to the busiest
    [
        [8, 5, 4, 5, 9, 25, 60, 95, 100, 80, 70, 70, 72, 72, 78, 88, 98, 100, 82, 58, 42, 33, 24, 14],
        [16, 11, 8, 6, 7, 10, 16, 25, 38, 50, 60, 65, 66, 64, 64, 66, 66, 62, 54, 44, 35, 29, 24, 19],
    ]
)


@dataclass(frozen=True)
class Bridges:
    """Fixed properties of K bridges.

    Attributes:
        factor: b on all frequencies and a little of each mode's own, (K, 4).
        damping: of critical, (K, 4).
        shapes: of modes at sensors, (K, sensors, 4).
        loss: share of each frequency lost at damage 1, (K, 4).
        traffic: of the busiest hour, relative, (K,).
        warmer: offset of the deck's temperature, degrees, (K,).
        onset: hour at which damage begins, (K,); infinite where it never does.
    """

    factor: F64
    damping: F64
    shapes: F64
    loss: F64
    traffic: F64
    warmer: F64
    onset: F64


def make_bridges(key: U64, sensors: int, diversity: float, onset: F64) -> Bridges:
    """Draw bridges.

    Args:
        key: one a bridge, (K,).
        sensors: on each, evenly along the span and on alternating sides of the deck.
        diversity: how much bridges differ: 1 is a deviation of 4% in frequency; 0 makes them alike.
        onset: see `Bridges`.
    """
    draws = diversity * streams.normals(key, 16 + sensors)
    where = np.arange(1, sensors + 1) / (sensors + 1.0) + 0.03 * draws[:, 16:]
    side = np.where(np.arange(sensors) % 2 == 0, 1.0, -1.0)
    bend, twist = np.sin(np.pi * where), np.sin(2.0 * np.pi * where)
    return Bridges(
        factor=np.exp(0.04 * draws[:, :1] + 0.01 * draws[:, 1:5]),
        damping=DAMPING * np.exp(0.15 * draws[:, 5:9]),
        shapes=np.stack((bend, side * bend, twist, side * np.cos(np.pi * where)), axis=2),
        loss=DROP * np.exp(0.15 * draws[:, 9:13]),
        traffic=np.exp(0.3 * draws[:, 13]),
        warmer=draws[:, 14],
        onset=onset,
    )


def deck_temperature(world: World) -> F64:
    """Return the temperature of decks, hourly: the air and the sun through one time constant, float64 (hours,)."""
    stay = np.exp(-1.0 / _DECK_HOURS)
    drive = world.temperature + _SUN * world.sunshine
    return recursion(drive, stay, gain=1.0 - stay, before=drive[0])


def traffic_volume(world: World, hours: F64) -> F64:
    """Return traffic relative to the busiest hour of a working day, (M,); a storm takes up to 60% of it."""
    day = _HOURLY[:, np.arange(25) % 24]
    workday, weekend = (np.interp(world.hour_of_day(hours), np.arange(25), series) for series in day)
    volume = np.where(world.is_weekend(hours), weekend, workday)
    return np.asarray(volume * (1.0 - 0.6 * np.clip(world.at(world.storm, hours), 0.0, 1.0)))


def excitation(world: World, traffic: F64, district: I64, hours: F64) -> F64:
    """Return the deviation of the deck's acceleration, m/s2, (M,).

    Energies of independent causes add: traffic in proportion to its volume (and to public events in the district),
    wind in proportion to the fourth power of its speed (buffeting force grows with its square), and a constant
    background.

    Args:
        world: gives the hour, storm, wind and events.
        traffic: `Bridges.traffic` of each window's bridge, (M,).
        district: of it, (M,).
        hours: of the windows, (M,).
    """
    hour = np.clip(hours, 0.0, world.hours - 1.0).astype(np.int64)
    volume = traffic_volume(world, hours) * traffic * (1.0 + 0.5 * world.crowd[district, hour])
    wind = (world.at(world.wind, hours) / 8.0) ** 4
    return np.asarray(np.sqrt(_RUSH**2 * volume + _GALE**2 * wind + _QUIET**2))


def frequencies(bridges: Bridges, who: I64, temperature: F64, damage: F64) -> F64:
    """Return modal frequencies, Hz, (M, 4): the equation above.

    Args:
        bridges: K of them.
        who: bridge of each window, (M,).
        temperature: of the deck, (M,).
        damage: d, (M,).
    """
    degrees = temperature[:, None]
    cold = np.logaddexp(0.0, -degrees)
    effect = 1.0 - _WARM * (degrees - 15.0) + _FROST * cold
    return np.asarray(FREQUENCY * bridges.factor[who] * effect * (1.0 - damage[:, None] * bridges.loss[who]))


def read_windows(
    bridges: Bridges, who: I64, hertz: F64, level: F64, key: U64, samples: int, sensor_noise: float
) -> F32:
    """Return what accelerometers read, m/s2, float32 (B, samples, sensors).

    Args:
        bridges: K of them.
        who: bridge of each window, (B,).
        hertz: modal frequencies, (B, 4).
        level: deviation of the acceleration, m/s2, (B,).
        key: one a window, (B,): all its randomness.
        samples: of a window, at `RATE` a second.
        sensor_noise: its deviation, m/s2.
    """
    modes, sensors = len(FREQUENCY), bridges.shapes.shape[1]
    omega, zeta = 2.0 * np.pi * hertz / RATE, bridges.damping[who]
    stay, angle = np.exp(-zeta * omega), omega * np.sqrt(1.0 - zeta**2)
    turn = [np.ascontiguousarray(part.T, np.float32) for part in (stay * np.cos(angle), stay * np.sin(angle))]
    drive = np.ascontiguousarray((_SHARE * np.sqrt(1.0 - stay**2)).T, np.float32)
    envelope = _passing(level, key, samples)
    force = _force(key, samples)
    real, imaginary = _start(key) * (_SHARE[:, None] * envelope[0]).astype(np.float32)
    motion = np.empty((samples, modes, len(who)), np.float32)
    pushed, turned = np.empty_like(force[0]), np.empty_like(real)
    for t in range(samples):
        np.multiply(force[t], drive, out=pushed)
        pushed *= envelope[t]
        now = motion[t]
        np.multiply(real, turn[0], out=now)
        now -= np.multiply(imaginary, turn[1], out=turned)
        now += pushed[0]
        imaginary *= turn[0]
        imaginary += np.multiply(real, turn[1], out=turned)
        imaginary += pushed[1]
        real = now
    # One matrix product a window, always of the same shape: its bits do not depend on other windows.
    seen = np.matmul(motion.transpose(2, 0, 1).copy(), bridges.shapes[who].astype(np.float32).transpose(0, 2, 1))
    hiss = streams.quick_normals(streams.keys(0, "bridge sensor", key), samples * sensors)
    hiss *= np.float32(sensor_noise)
    seen += hiss.reshape(-1, samples, sensors)
    return np.asarray(seen, np.float32)


def _start(key: U64) -> F32:
    """Return the state of the modes before a window, of unit variance, (2, modes, B)."""
    modes = len(FREQUENCY)
    return streams.quick_normal_rows(streams.keys(0, "bridge start", key), 2 * modes).reshape(2, modes, -1)


def _force(key: U64, samples: int) -> F32:
    """Return the forces on the modes, white and of unit variance, (samples, 2, modes, B)."""
    modes = len(FREQUENCY)
    white = streams.quick_white_rows(streams.keys(0, "bridge force", key), 2 * modes * samples)
    return white.reshape(samples, 2, modes, -1)


def _passing(level: F64, key: U64, samples: int) -> F32:
    """Return the deviation at each sample, (samples, B): a steady part and one heavy vehicle that may pass."""
    draws = streams.uniforms(streams.keys(0, "bridge vehicle", key), 3)
    heavy = 1.5 * np.maximum(draws[:, 0] - 0.6, 0.0) / 0.4 * np.minimum(level / _RUSH, 1.0)
    middle, width = draws[:, 1] * samples / RATE, 0.5 + draws[:, 2]
    time = (np.arange(samples) / RATE).astype(np.float32)
    bump: F32 = time[:, None] - middle.astype(np.float32)
    bump *= (0.5**0.5 / width).astype(np.float32)
    bump *= bump
    np.exp(np.negative(bump, out=bump), out=bump)
    bump *= (heavy * level).astype(np.float32)
    bump += level.astype(np.float32)
    return bump
