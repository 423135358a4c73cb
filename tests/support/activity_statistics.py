"""Statistics of six-activity inertial windows: the same functions for UCI HAR and for generated windows.

Windows are [n, 64, 9] at 25 Hz: body acceleration xyz (g), gyroscope xyz (rad/s), total acceleration xyz (g), x upwards
when upright. Activities: 0 walking, 1 upstairs, 2 downstairs, 3 sitting, 4 standing, 5 laying.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

FIGURES = Path(__file__).parent / "city_figures" / "activity.json"
NAMES = ("walking", "upstairs", "downstairs", "sitting", "standing", "laying")
RATE = 25.0


def load_uci_har(path):
    """Return windows float32 [n, 64, 9], activities [n] and people [n] of the 25 Hz file."""
    with np.load(path) as file:
        windows = file["windows"].transpose(0, 2, 1).astype(np.float32) * np.float32(file["scale"])
        return windows, file["activity"].astype(np.int64), file["subject"].astype(np.int64)


def rms(windows):
    """Root mean square of a vector's length: [n, T, 3] -> [n]."""
    return np.sqrt((windows.astype(np.float64) ** 2).sum(axis=2).mean(axis=1))


def spectrum(signal, pad=512):
    """Frequencies and power of [n, T], each window's mean taken off, under a Hann window."""
    centred = signal - signal.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(centred * np.hanning(signal.shape[1]), pad, axis=1)) ** 2
    return np.fft.rfftfreq(pad, 1 / RATE), power


def step_frequency(windows):
    """Strongest frequency of vertical acceleration between 1.2 and 2.7 Hz, [n]."""
    frequency, power = spectrum(windows[:, :, 0])
    band = (frequency >= 1.2) & (frequency <= 2.7)
    return frequency[band][power[:, band].argmax(axis=1)]


def share_between(signal, low, high):
    """Share of the power of all windows together that lies between two frequencies."""
    frequency, power = spectrum(signal)
    band = (frequency >= low) & (frequency < high)
    return float(power[:, band].sum() / power.sum())


def autocorrelation(signal, lag):
    """Autocorrelation of each window of [n, T] at a lag, [n] (divided by the number of pairs)."""
    centred = signal - signal.mean(axis=1, keepdims=True)
    pairs = (centred[:, lag:] * centred[:, :-lag]).mean(axis=1)
    return pairs / np.maximum((centred**2).mean(axis=1), 1e-12)


def between_share(values, people):
    """Share of variance that lies between people's means (eta squared)."""
    means = np.array([values[people == p].mean() for p in np.unique(people)])
    counts = np.array([(people == p).sum() for p in np.unique(people)])
    return float((counts * (means - values.mean()) ** 2).sum() / ((values - values.mean()) ** 2).sum())


def features(windows):
    """Simple features of windows: means, log deviations, log of power below 1.3 and above 5 Hz, step frequency."""
    x = windows.astype(np.float64)
    _, power = spectrum(x[:, :, 0])
    slow = np.stack([spectrum(x[:, :, c])[1][:, :27].sum(1) / spectrum(x[:, :, c])[1].sum(1) for c in range(6)], 1)
    fast = power[:, 103:].sum(1) / power.sum(1)
    crest = np.abs(x[:, :, :3]).max(axis=1) / (x[:, :, :3].std(axis=1) + 1e-6)
    return np.concatenate(
        (x.mean(1), np.log(x.std(1) + 1e-4), slow, fast[:, None], step_frequency(x)[:, None], np.log(crest)), 1
    )


def discriminate(train, labels, test):
    """Linear discriminant analysis with a shared, slightly shrunk covariance: the predicted classes of `test`."""
    mean, deviation = train.mean(0), train.std(0) + 1e-9
    train, test = (train - mean) / deviation, (test - mean) / deviation
    centres = np.stack([train[labels == k].mean(0) for k in range(6)])
    within = np.cov((train - centres[labels]).T) + 0.02 * np.eye(train.shape[1])
    weights = np.linalg.solve(within, centres.T)
    return (test @ weights - 0.5 * (centres.T * weights).sum(0)).argmax(1)


def nearest_centre(train, labels, test):
    """Class of the nearest class mean of standardised features."""
    mean, deviation = train.mean(0), train.std(0) + 1e-9
    train, test = (train - mean) / deviation, (test - mean) / deviation
    centres = np.stack([train[labels == k].mean(0) for k in range(6)])
    return ((test[:, None] - centres) ** 2).sum(2).argmin(1)


def _recognition(windows, activity, people):
    """Recognition of unseen people: trained on two thirds of the people, tested on the others."""
    unseen = people % 3 == 2
    x = features(windows)
    truth = activity[unseen]
    lda = discriminate(x[~unseen], activity[~unseen], x[unseen])
    near = nearest_centre(x[~unseen], activity[~unseen], x[unseen])

    def mixed(classes, guess):
        inside = np.isin(truth, classes)
        return float((np.isin(guess, classes) & (guess != truth))[inside].mean())

    return {
        "accuracy_discriminant": float((lda == truth).mean()),
        "accuracy_nearest_centre": float((near == truth).mean()),
        "sitting_standing_confused": mixed((3, 4), lda),
        "walks_confused": mixed((0, 1, 2), lda),
        "dynamic_taken_for_static": float((lda[truth < 3] > 2).mean()),
        "laying_recall": float((lda[truth == 5] == 5).mean()),
    }


def statistics(windows, activity, people):
    """Every compared statistic by name, floats."""
    out = {}
    of = {name: windows[activity == k] for k, name in enumerate(NAMES)}
    who = {name: people[activity == k] for k, name in enumerate(NAMES)}
    counts = np.bincount(people)
    out["windows_per_person_cv"] = float(counts.std() / counts.mean())
    for k, name in enumerate(NAMES):
        x = of[name]
        out[f"share_{name}"] = float((activity == k).mean())
        out[f"up_mean_{name}"] = float(x[:, :, 6].mean())
        out[f"body_rms_{name}"] = float(np.median(rms(x[:, :, :3])))
        out[f"gyro_rms_{name}"] = float(np.median(rms(x[:, :, 3:6])))
    dynamic, static = activity < 3, activity > 2
    body = rms(windows[:, :, :3])
    out["energy_ratio_dynamic_static"] = float(np.median(body[dynamic]) / np.median(body[static]))
    for name in NAMES[:3]:
        steps = step_frequency(of[name])
        x = of[name][:, :, 0]
        out[f"step_frequency_{name}"] = float(steps.mean())
        out[f"step_frequency_people_sd_{name}"] = float(
            np.std([steps[who[name] == p].mean() for p in np.unique(who[name])])
        )
        out[f"lag_1_{name}"] = float(autocorrelation(x, 1).mean())
        best = np.max([autocorrelation(x, k) for k in range(10, 21)], axis=0)
        out[f"step_regularity_{name}"] = float(best.mean())
        out[f"crest_{name}"] = float(np.median(np.abs(x).max(1) / x.std(1)))
        out[f"fast_share_{name}"] = share_between(x, 5.0, 12.6)
        out[f"stride_share_gyro_{name}"] = share_between(of[name][:, :, 3], 0.3, 1.3)
    out["lag_1_still"] = float(autocorrelation(windows[static][:, :, 0], 1).mean())
    out["people_share_step_frequency"] = between_share(step_frequency(of["walking"]), who["walking"])
    out["people_share_walking_rms"] = between_share(rms(of["walking"][:, :, :3]), who["walking"])
    out["people_share_standing_tilt"] = between_share(of["standing"][:, :, 8].mean(1), who["standing"])
    out["sitting_tilt_people_sd"] = float(
        np.std([of["sitting"][who["sitting"] == p][:, :, 8].mean() for p in np.unique(who["sitting"])])
    )
    out["standing_tilt_people_sd"] = float(
        np.std([of["standing"][who["standing"] == p][:, :, 8].mean() for p in np.unique(who["standing"])])
    )
    return out | _recognition(windows, activity, people)


def figures():
    """Return the committed figures: name -> {"real", "low", "high"}."""
    return json.loads(FIGURES.read_text())["figures"]
