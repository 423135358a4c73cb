"""How bodies move, as read by an inertial unit: steps, stairs and postures of people with styles.

The motion of walking repeats every stride (two steps). With the phase of the stride

    phi(t) = phi_0 + pi f (t + c t^2 / 2)          f steps a second, c a slow change of pace

channel i reads  sum_h A_ih cos(h phi(t) + theta_ih) + r_i e_i(t):  even harmonics h are common to both feet,
odd ones are the difference of left and right (Menz, Lord and Fitzpatrick 2003, "Acceleration patterns of the head and
pelvis when walking", whose harmonic ratio compares the two), and e_i is coloured noise in proportion to the motion:
no two steps are alike. The table of A for the waist, three activities, six channels and ten harmonics is the rounded
median of least-squares fits of these harmonics to the windows of UCI HAR (Anguita et al. 2013).

A person k has a pace f_k and multiplies the table by a style: a level, a factor a channel and a harmonic, asymmetry
(odd harmonics) and sharpness of impact (a slope over harmonics). Sitting, standing and laying are the direction of
gravity, a slow sway and sensor noise. A unit worn in another place is rotated, and moves more or less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clients.core import streams
from clients.core.arrays import F32, F64, I64, U64, Array

ACTIVITIES = ("walking", "upstairs", "downstairs", "sitting", "standing", "laying")
PLACEMENTS = ("waist", "pocket", "wrist")
RATE = 25.0
MOST_G, MOST_TURN = 2.0, 8.7
"""The largest reading of a unit, g and rad/s, as a telephone's."""
HARMONICS = 10

_AMPLITUDE = np.array(
    [
        [  # walking: body acceleration x (up), y (side), z (front) in g, gyroscope x, y, z in rad/s
            [0.025, 0.220, 0.090, 0.075, 0.035, 0.085, 0.035, 0.055, 0.030, 0.030],
            [0.060, 0.135, 0.040, 0.060, 0.065, 0.045, 0.050, 0.040, 0.040, 0.020],
            [0.065, 0.100, 0.020, 0.045, 0.020, 0.035, 0.025, 0.030, 0.025, 0.020],
            [0.400, 0.080, 0.160, 0.065, 0.200, 0.055, 0.105, 0.050, 0.095, 0.035],
            [0.260, 0.140, 0.300, 0.080, 0.115, 0.080, 0.115, 0.090, 0.105, 0.065],
            [0.170, 0.155, 0.275, 0.055, 0.055, 0.065, 0.050, 0.055, 0.045, 0.040],
        ],
        [  # upstairs
            [0.050, 0.275, 0.035, 0.080, 0.035, 0.065, 0.025, 0.035, 0.020, 0.020],
            [0.090, 0.145, 0.030, 0.060, 0.035, 0.030, 0.035, 0.020, 0.020, 0.015],
            [0.115, 0.090, 0.030, 0.040, 0.020, 0.020, 0.015, 0.015, 0.010, 0.010],
            [0.280, 0.130, 0.110, 0.065, 0.090, 0.055, 0.080, 0.040, 0.045, 0.030],
            [0.390, 0.160, 0.120, 0.075, 0.075, 0.070, 0.070, 0.055, 0.055, 0.045],
            [0.320, 0.165, 0.075, 0.080, 0.050, 0.050, 0.040, 0.040, 0.035, 0.025],
        ],
        [  # downstairs
            [0.035, 0.400, 0.080, 0.145, 0.050, 0.065, 0.040, 0.040, 0.030, 0.025],
            [0.060, 0.115, 0.060, 0.075, 0.045, 0.050, 0.040, 0.030, 0.025, 0.020],
            [0.075, 0.065, 0.030, 0.050, 0.035, 0.035, 0.030, 0.025, 0.020, 0.015],
            [0.310, 0.130, 0.210, 0.100, 0.105, 0.080, 0.080, 0.070, 0.045, 0.035],
            [0.200, 0.155, 0.215, 0.145, 0.105, 0.095, 0.100, 0.085, 0.075, 0.060],
            [0.115, 0.165, 0.150, 0.130, 0.075, 0.070, 0.065, 0.055, 0.045, 0.035],
        ],
    ]
)
_AMPLITUDE[:, :3, 4:] *= 1.25  # a median over windows understates what varies most
_STEADY = np.array([1.0, 0.4, 0.5] + [1.0] * (HARMONICS - 3))  # the step itself varies least
_IRREGULAR = np.array(  # deviation of the part that no harmonic explains, by activity and channel
    [
        [0.060, 0.055, 0.045, 0.155, 0.150, 0.090],
        [0.075, 0.065, 0.050, 0.280, 0.185, 0.130],
        [0.125, 0.095, 0.075, 0.400, 0.265, 0.180],
    ]
)
_PACE = np.array([[1.0, 0.0], [0.92, 0.09], [1.01, 0.11]])  # factor on the walking pace; deviation of people, Hz
_DOWN = np.array(  # direction of gravity by placement and activity: up, side, front of the unit
    [
        [
            [0.99, -0.17, -0.06],
            [0.95, -0.27, -0.15],
            [0.99, -0.15, -0.05],
            [0.96, 0.13, 0.15],
            [1.00, -0.16, -0.02],
            [0.07, 0.64, 0.54],
        ],
        [
            [0.97, 0.05, 0.10],
            [0.92, 0.05, 0.25],
            [0.96, 0.05, 0.15],
            [0.15, 0.10, 0.97],
            [1.00, 0.05, 0.02],
            [0.10, 0.35, 0.90],
        ],
        [
            [0.85, 0.15, 0.30],
            [0.80, 0.15, 0.35],
            [0.85, 0.10, 0.30],
            [0.25, 0.35, 0.85],
            [0.90, 0.10, 0.25],
            [0.10, 0.55, 0.75],
        ],
    ]
)
_OWN = np.array(  # deviation of a person's own posture from it, beyond the turn of the unit
    [
        [0.01, 0.02, 0.03],
        [0.01, 0.02, 0.03],
        [0.01, 0.02, 0.03],
        [0.05, 0.10, 0.11],
        [0.01, 0.02, 0.03],
        [0.07, 0.24, 0.24],
    ]
)
_SHIFT = np.array(  # and from window to window
    [
        [0.014, 0.034, 0.058],
        [0.024, 0.046, 0.077],
        [0.021, 0.034, 0.069],
        [0.060, 0.140, 0.135],
        [0.011, 0.049, 0.074],
        [0.063, 0.153, 0.170],
    ]
)
_STILL = np.array([[0.006, 0.010], [0.009, 0.022], [0.008, 0.015]])  # sway while sitting, standing, laying: g, rad/s
_GAIN = np.array(  # by placement: acceleration odd, even; gyroscope odd, even; still; shift of posture; loose mounting
    [
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
        [1.6, 1.1, 2.2, 1.3, 1.2, 1.2, 0.35],
        [2.0, 0.8, 2.8, 0.9, 3.0, 2.5, 0.6],
    ]
)
_MOUNT = np.array([0.05, 0.12, 0.09])  # turn of a unit at the waist about its axes, radians, between people
_GRAVITY = 1.02  # readings of UCI HAR's units at rest


@dataclass(frozen=True)
class People:
    """Styles of K people.

    Attributes:
        pace: steps a second by dynamic activity, (K, 3).
        strength: factor on the table of amplitudes, float32 (K, 6, HARMONICS).
        phase: of each harmonic, radians, (K, 6, HARMONICS); `cosine` and `sine` are of it, float32.
        turn: rotation of the unit, (K, 3, 3).
        posture: own offset of gravity by activity, (K, 6, 3).
        placement: index into `PLACEMENTS`, (K,).
    """

    pace: F64
    strength: F32
    phase: F64
    cosine: F32
    sine: F32
    turn: F64
    posture: F64
    placement: I64


def rotation(vector: F64) -> F64:
    """Return rotation matrices (K, 3, 3) of rotation vectors (K, 3), by Rodrigues' formula."""
    x, y, z = np.ascontiguousarray(vector.T)
    angle = np.sqrt(x * x + y * y + z * z)
    s = np.sin(angle) / np.maximum(angle, 1e-12)
    c = (1.0 - np.cos(angle)) / np.maximum(angle * angle, 1e-12)
    rows = (
        (1.0 - c * (y * y + z * z), c * x * y - s * z, c * x * z + s * y),
        (c * x * y + s * z, 1.0 - c * (x * x + z * z), c * y * z - s * x),
        (c * x * z - s * y, c * y * z + s * x, 1.0 - c * (x * x + y * y)),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def make_people(key: U64, placement: I64, style: float) -> People:
    """Draw the styles of people.

    Args:
        key: one a person, (K,).
        placement: index into `PLACEMENTS` of each, (K,).
        style: how much people differ, 1 as in UCI HAR; 0 makes them alike.
    """
    h = np.arange(1, HARMONICS + 1)
    draws = style * streams.normals(streams.keys(0, "gait style", key), 10 + 6 + HARMONICS * 6)
    pace = 1.77 + 0.105 * draws[:, :1]
    pace = pace * _PACE[:, 0] + _PACE[:, 1] * draws[:, 1:4]
    level, asymmetry, sharpness = 0.13 * draws[:, 4], 0.12 * draws[:, 5], 0.1 * draws[:, 6]
    log = level[:, None] + np.where(h % 2 == 1, asymmetry[:, None], 0.0) + sharpness[:, None] * (h - 2.0) / 4.0
    log = log[:, None, :] + 0.15 * draws[:, 10:16, None] + 0.25 * _STEADY * draws[:, 16:].reshape(-1, 6, HARMONICS)
    gain = _GAIN[placement]
    odd, even = np.repeat(gain[:, [0, 2]], 3, axis=1), np.repeat(gain[:, [1, 3]], 3, axis=1)
    place = np.where(h % 2 == 1, odd[:, :, None], even[:, :, None])
    where = streams.normals(streams.keys(0, "gait mount", key), 3 + 18)
    base = 2.0 * np.pi * streams.uniforms(streams.keys(0, "gait phase"), 6 * HARMONICS).reshape(6, HARMONICS)
    own = style * streams.normals(streams.keys(0, "gait phases", key), 6 * HARMONICS).reshape(-1, 6, HARMONICS)
    mount = style * _MOUNT + gain[:, 6:]
    phase = base + 0.5 * own
    return People(
        pace=np.clip(pace, 1.2, 2.6),
        strength=(np.exp(log) * place).astype(np.float32),
        phase=phase,
        cosine=np.cos(phase).astype(np.float32),
        sine=np.sin(phase).astype(np.float32),
        turn=rotation(mount * where[:, :3]),
        posture=style * _OWN * where[:, 3:].reshape(-1, 6, 3),
        placement=placement,
    )


def _gravity(people: People, who: I64, activity: I64, draws: F64) -> F64:
    """Return the gravity that windows read, g, (B, 3)."""
    placement = people.placement[who]
    shift = _SHIFT[activity] * _GAIN[placement, 5][:, None] * draws
    direction = _DOWN[placement, activity] + people.posture[who, activity] + shift
    length = np.sqrt(direction[:, 0] ** 2 + direction[:, 1] ** 2 + direction[:, 2] ** 2)
    return _turned(people.turn[who], direction * (_GRAVITY / np.maximum(length, 0.05))[:, None])


def _turned(turn: Array, vector: Array) -> Array:
    """Turn vectors (B, 3, ...) by rotations (B, 3, 3), summed in a fixed order."""
    turn = turn.reshape(*turn.shape, *[1] * (vector.ndim - 2))
    return np.stack([turn[:, i, 0] * vector[:, 0] + turn[:, i, 1] * vector[:, 1] + turn[:, i, 2] * vector[:, 2]
                     for i in range(3)], axis=1)  # fmt: skip


def _steps(people: People, who: I64, activity: I64, key: U64, samples: int) -> F32:
    """Return the moving part of windows of walking and stairs, (B, 6, samples)."""
    draws = streams.quick_normals(streams.keys(0, "gait window", key), 4)
    wobble = streams.quick_normals(streams.keys(0, "gait wobble", key), 6 * HARMONICS).reshape(-1, 6, HARMONICS)
    wobble *= (0.25 * _STEADY).astype(np.float32)
    louder = np.exp(np.float32(0.08) * draws[:, 1])
    size = _AMPLITUDE.astype(np.float32)[activity]
    size *= people.strength[who]
    size *= np.exp(wobble, out=wobble)
    size *= louder[:, None, None]
    turn = people.turn.astype(np.float32)[who]
    coefficients = np.empty((len(who), 6, 2 * HARMONICS), np.float32)
    for place, wave in ((slice(0, HARMONICS), people.cosine), (slice(HARMONICS, None), people.sine)):
        part = size * wave[who]
        coefficients[:, :3, place], coefficients[:, 3:, place] = _turned(turn, part[:, :3]), _turned(turn, part[:, 3:])
    moving = np.empty((len(who), 6, samples), np.float32)
    # One matrix product a window, always of the same shape: its bits do not depend on other windows.
    np.matmul(coefficients, _harmonics(people.pace[who, activity], draws, key, samples), out=moving)
    rough = streams.quick_normals(streams.keys(0, "gait rough", key), 6 * (samples + 2)).reshape(-1, 6, samples + 2)
    smooth = rough[:, :, :-2] + rough[:, :, 1:-1]
    smooth += rough[:, :, 2:]
    loud = _IRREGULAR[activity] * louder[:, None] * people.strength[who, :, 1] * 3.0**-0.5
    smooth *= loud.astype(np.float32)[:, :, None]
    moving += smooth
    return moving


def _harmonics(pace: F64, draws: F32, key: U64, samples: int) -> F32:
    """Return cos(h phi(t)) and then -sin(h phi(t)) of all harmonics h, (B, 2 HARMONICS, samples)."""
    time = (np.arange(samples) / RATE).astype(np.float32)
    rate = (np.pi * (pace + 0.03 * draws[:, 0])).astype(np.float32)
    start = (2.0 * np.pi) * streams.quick_uniforms(streams.keys(0, "gait start", key), 1)
    phase = rate[:, None] * (time + (0.01 * draws[:, 2:3]) * (time * time)) + start.astype(np.float32)
    waves = np.empty((len(pace), 2 * HARMONICS, samples), np.float32)
    real, imaginary = np.cos(phase), -np.sin(phase)
    waves[:, 0], waves[:, HARMONICS] = real, imaginary
    for h in range(1, HARMONICS):  # the next turn: a product of complex numbers
        before, minus = waves[:, h - 1], waves[:, HARMONICS + h - 1]
        np.multiply(before, real, out=waves[:, h])
        waves[:, h] -= minus * imaginary
        np.multiply(before, imaginary, out=waves[:, HARMONICS + h])
        waves[:, HARMONICS + h] += minus * real
    return waves


def _still(people: People, who: I64, activity: I64, key: U64, samples: int) -> F32:
    """Return the moving part of windows of sitting, standing and laying, (B, 6, samples)."""
    draws = streams.quick_normals(streams.keys(0, "still window", key), 16)
    sway = _STILL[activity - 3] * _GAIN[people.placement[who], 4][:, None] * np.exp(0.6 * draws[:, :2])
    sway = np.repeat(sway, 3, axis=1) * np.exp(0.4 * draws[:, 2:8])
    rate = (2.0 * np.pi * 0.9 / RATE) * np.exp(np.float32(0.4) * draws[:, 8:14])
    start = (2.0 * np.pi) * streams.quick_uniforms(streams.keys(0, "still start", key), 6)
    moving = rate.astype(np.float32)[:, :, None] * np.arange(samples, dtype=np.float32)
    moving += start.astype(np.float32)[:, :, None]
    np.sin(moving, out=moving)
    moving *= sway.astype(np.float32)[:, :, None]
    return np.asarray(moving, np.float32)


def read_windows(
    people: People, who: I64, activity: I64, key: U64, samples: int, sensor_noise: float, out: F32
) -> None:
    """Write the readings of units into `out`, float32 (B, samples, 9); the windows are all dynamic or all still.

    Args:
        people: styles.
        who: person of each window, (B,).
        activity: index into `ACTIVITIES`, (B,).
        key: one a window, (B,): all its randomness.
        samples: of a window, at `RATE` a second.
        sensor_noise: 1 as in UCI HAR.
        out: body acceleration (g), gyroscope (rad/s), total acceleration (g).
    """
    moving = (_steps if activity[0] < 3 else _still)(people, who, activity, key, samples)
    white = streams.quick_normals(streams.keys(0, "unit noise", key), 6 * samples).reshape(-1, 6, samples)
    level = np.array([0.003] * 3 + [0.006] * 3) * sensor_noise
    loud = level * np.exp(0.3 * streams.quick_normals(streams.keys(0, "unit level", key), 8)[:, :6])
    white *= loud.astype(np.float32)[:, :, None]
    moving += white
    draws = streams.quick_normals(streams.keys(0, "posture", key), 8)
    moving[:, 3:] += (0.012 * sensor_noise * draws[:, 3:6]).astype(np.float32)[:, :, None]
    gravity = _gravity(people, who, activity, draws[:, :3].astype(np.float64)).astype(np.float32)
    total = moving[:, :3] + gravity[:, :, None]
    for first, values, limit in ((0, moving[:, :3], MOST_G), (3, moving[:, 3:], MOST_TURN), (6, total, MOST_G)):
        np.clip(values, np.float32(-limit), np.float32(limit), out=values)
        for c in range(3):
            out[:, :, first + c] = values[:, c]
