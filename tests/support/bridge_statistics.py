"""Modal identification of acceleration windows, as for a real bridge: nothing here reads the generator's truth
but the temperature, which real decks measure too.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from clients.city.bridge import bridge_source, bridge_truth
from clients.city.structure import RATE

FIGURES = Path(__file__).parent / "city_figures" / "bridge.json"
START = np.array([3.89, 5.02, 9.80, 10.30])


def figures():
    """Return the committed figures: name -> {"published", "low", "high", ...}."""
    return json.loads(FIGURES.read_text())["figures"]


def mean_spectrum(windows):
    """Frequencies and mean power of windows [n, W, C], each scaled to unit power, summed over channels."""
    scaled = windows / np.sqrt((windows.astype(np.float64) ** 2).mean(axis=(1, 2), keepdims=True))
    power = np.abs(np.fft.rfft(scaled, axis=1)) ** 2
    return np.fft.rfftfreq(windows.shape[1], 1 / RATE), power.mean(axis=(0, 2))


def identify(windows, start=START):
    """Fit four resonances to the mean spectrum: frequencies (Hz) and damping ratios, (4,) each.

    The power of Re z of a complex damped mode is a Lorentzian at f of half-width zeta f (and a small one at -f).
    """
    frequency, power = mean_spectrum(windows)
    band = (frequency > 2.5) & (frequency < 13.5)
    frequency, power = frequency[band], power[band] / power[band].mean()

    def curve(p):
        f, (z, a) = p[:4, None], np.exp(np.clip(p[4:12], -12, 12)).reshape(2, 4, 1)
        peaks = a * (z * f) * (1 / ((frequency - f) ** 2 + (z * f) ** 2) + 1 / ((frequency + f) ** 2 + (z * f) ** 2))
        return peaks.sum(0) + np.exp(np.clip(p[12], -30, 3))

    def away(p):  # Whittle's likelihood, as a sum of squares (each term is >= 0)
        ratio = power / curve(p)
        return np.sqrt(np.maximum(ratio - 1 - np.log(ratio), 0))

    fits = []
    for factor in (0.92, 0.96, 1.0, 1.04):  # modes 3 and 4 are close: the best of several beginnings
        first = np.concatenate((factor * start, np.full(4, np.log(0.012)), np.zeros(4), [-5.0]))
        fits.append(least_squares(away, first, x_scale=np.concatenate((np.full(4, 0.05), np.ones(9))), max_nfev=40))
    best = min(fits, key=lambda fit: fit.cost)
    order = np.argsort(best.x[:4])
    return best.x[:4][order], np.exp(best.x[4:8])[order]


def first_peak(windows, low, high):
    """Strongest frequency of each window between two, Hz, [n] (four times interpolated)."""
    padded = 4 * windows.shape[1]
    power = (np.abs(np.fft.rfft(windows * np.hanning(windows.shape[1])[:, None], padded, axis=1)) ** 2).sum(axis=2)
    frequency = np.fft.rfftfreq(padded, 1 / RATE)
    band = (frequency > low) & (frequency < high)
    return frequency[band][power[:, band].argmax(axis=1)]


def modal_statistics(options, world, seed):
    """Medians over bridges of frequencies, damping and fall under damage, by identification of long windows."""
    everyone = np.arange(options.clients)
    healthy = replace(options, damaged=0.0, temperature_effect=0.0)
    broken = replace(healthy, damaged=1.0, damage=1.0, onset=(0.0, 0.0))
    found = []
    for state in (healthy, broken):
        source = bridge_source(state, world, seed)
        made = source.make(everyone, "train")[0]
        ends = np.cumsum(source.sizes)
        found.append([identify(part) for part in np.split(made, ends[:-1])])
    hertz, damping = (np.array([[one[i] for one in state] for state in found]) for i in (0, 1))
    out = {}
    for m in range(4):
        out[f"frequency_{m + 1}"] = float(np.median(hertz[0, :, m]))
        out[f"damping_{m + 1}"] = float(100 * np.median(damping[0, :, m]))
        out[f"damage_drop_{m + 1}"] = float(100 * np.median(1 - hertz[1, :, m] / hertz[0, :, m]))
    return out


def temperature_statistics(options, world, seed):
    """Slopes of the first frequency over the deck's temperature, per cent a degree, and its yearly swing."""
    options = replace(options, damaged=0.0, diversity=0.0)
    everyone = np.arange(options.clients)
    peaks = first_peak(bridge_source(options, world, seed).make(everyone, "train")[0], 3.5, 4.6)
    degrees = bridge_truth(options, world, seed, everyone, "train").temperature
    warm, frost = (degrees > 5) & (degrees < 35), (degrees < 0) & (degrees > -8)
    mild = np.median(peaks[(degrees > 12) & (degrees < 18)])
    slope = {name: np.polyfit(degrees[x], peaks[x], 1) for name, x in (("warm", warm), ("frost", frost))}
    swing = np.polyval(slope["frost"], -8) - np.polyval(slope["warm"], 35)
    return {
        "slope_warm": float(100 * slope["warm"][0] / mild),
        "slope_frost": float(100 * slope["frost"][0] / mild),
        "swing_of_a_year": float(100 * swing / mild),
    }
