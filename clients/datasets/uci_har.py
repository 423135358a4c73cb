"""UCI HAR: six activities of thirty people from the phone at their waist (Anguita et al., ESANN 2013; UCI 240).

Windows of 2.56 s at 50 Hz that overlap by half: acceleration of the body, turn rate, and acceleration with gravity, in
three axes each. One client is one person. As published, nine of the thirty are the test set. Windows of one
person overlap, so only a test set of other people has no examples half seen in training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from clients.core.arrays import F32, I64
from clients.core.channels import Channel
from clients.core.errors import DataError
from clients.core.population import Population
from clients.datasets.example_options import UciHarOptions
from clients.datasets.published import Published, require_published
from clients.datasets.text_matrix import read_matrix
from clients.partition.options import PartitionOptions
from clients.partition.pooled import Pool, pooled_population

UCI_HAR = Published(
    name="Human Activity Recognition Using Smartphones (UCI 240)",
    page="https://archive.ics.uci.edu/dataset/240/human+activity+recognition+using+smartphones",
    licence="CC BY 4.0",
    take="the zip, and out of it the folder 'UCI HAR Dataset'",
)
ACTIVITIES = ("walking", "walking upstairs", "walking downstairs", "sitting", "standing", "laying")
"""Labels 0 to 5."""
TEST_SUBJECTS = (2, 4, 9, 10, 12, 13, 18, 20, 24)
"""The people whose windows are the published test set."""
CHANNELS = tuple(
    Channel(name=f"{signal}_{axis}", unit=unit, mean=mean, deviation=deviation, low=-limit, high=limit,
            other_unit="m/s2" if unit == "g" else "deg/s", other_scale=9.80665 if unit == "g" else 57.29578)
    for signal, unit, means, deviations, limit in (
        ("body_acc", "g", (0.0, 0.0, 0.0), (0.19, 0.12, 0.10), 2.0),
        ("body_gyro", "rad/s", (0.0, 0.0, 0.0), (0.40, 0.37, 0.25), 8.7),
        ("total_acc", "g", (0.81, 0.02, 0.09), (0.41, 0.40, 0.34), 2.0),
    )
    for axis, mean, deviation in zip("xyz", means, deviations, strict=True)
)  # fmt: skip
"""The signals, the same as those of generated activity: round figures of their means and deviations, which standardise
features, and the ranges of the telephone's sensors."""


def uci_har_population(
    options: UciHarOptions,
    partition: PartitionOptions | None = None,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Population:
    """Read the windows and make the population: features [n, 64 or 128, 9] by `CHANNELS`, labels by `ACTIVITIES`.

    Args:
        options: the files and how they are split.
        partition: None for one client a person; or any other. A natural one may use "subject" or "label".
        seed: root seed.
        dtype: of the features.

    Raises:
        DataError: the files are missing (the message names their source) or unusable (it names the place).
    """
    return pooled_population(uci_har_pool(options), partition, options, seed=seed, dtype=dtype)


def uci_har_pool(options: UciHarOptions) -> Pool:
    """Read the windows.

    Raises:
        DataError: see `uci_har_population`.
    """
    path = require_published(options.path, UCI_HAR)
    if path.suffix == ".npz":
        windows, labels, subjects = _npz(path)
    elif path.is_dir():
        windows, labels, subjects = _folder(path)
    else:
        raise DataError("path", f"{path} is neither the folder 'UCI HAR Dataset' nor an .npz", fix="Unpack the zip.")
    every, rest = divmod(windows.shape[1] * 25, 64 * options.rate)
    if not every or rest:
        raise DataError("rate", f"{path} has windows of {windows.shape[1]} readings in 2.56 s, too few for 50 a second")
    means = np.array([c.mean for c in CHANNELS], np.float32)
    features = (windows[:, ::every] - means) / np.array([c.deviation for c in CHANNELS], np.float32)
    tested = np.isin(subjects, TEST_SUBJECTS) & (options.test == "subjects")
    train = ~tested
    keys = {"subject": subjects[train], "label": labels[train]}
    test = (features[tested], labels[tested]) if tested.any() else None
    facts = {"readings_per_second": options.rate, "tested_on": options.test}
    where = str(path)
    return Pool("UCI HAR", where, features[train], labels[train], keys, test, "subject", CHANNELS, facts)


def _folder(path: Path) -> tuple[F32, I64, I64]:
    """Read the published folder: windows (n, 128, 9), labels, subjects; training part and then test part."""
    inner = path / "UCI HAR Dataset"
    path = inner if inner.is_dir() else path
    parts = [_part(path, part) for part in ("train", "test")]
    windows, labels, subjects = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    return windows, labels, subjects


def _part(path: Path, part: str) -> tuple[F32, I64, I64]:
    folder = path / part
    labels = _whole(folder / f"y_{part}.txt", 1, len(ACTIVITIES), "an activity")
    subjects = _whole(folder / f"subject_{part}.txt", 1, 30, "a person")
    files = [folder / "Inertial Signals" / f"{c.name}_{part}.txt" for c in CHANNELS]
    signals = [read_matrix(file, 128) for file in files]
    lengths = [(folder / f"subject_{part}.txt", len(subjects)), *zip(files, map(len, signals), strict=True)]
    for file, lines in lengths:
        if lines != len(labels):
            problem = f"{file} has {lines} lines, and y_{part}.txt has {len(labels)}"
            raise DataError("path", problem, fix="Is the download complete?")
    return np.stack(signals, axis=-1), labels - 1, subjects


def _whole(file: Path, low: int, high: int, what: str) -> I64:
    """Read a column of whole numbers."""
    values = read_matrix(file, 1)[:, 0]
    bad = (values != np.floor(values)) | (values < low) | (values > high)
    if bad.any():
        line = int(np.flatnonzero(bad)[0])
        raise DataError("path", f"{file}, line {line + 1}: {values[line]:g} is not {what}, {low} to {high}")
    return values.astype(np.int64)


def _npz(path: Path) -> tuple[F32, I64, I64]:
    """Read an archive: windows (n, samples, 9), labels, subjects counted from 1."""
    try:
        # Opened here: numpy does not close a file that is not an archive.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays: dict[str, Any] = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise DataError("path", f"{path} cannot be read as .npz ({error})", fix="Is the download complete?") from error
    for name in ("windows", "activity", "subject"):
        if name not in arrays:
            raise DataError("path", f"{path} has no array {name!r}; it holds {', '.join(arrays) or 'nothing'}")
    windows, labels, subjects = arrays["windows"], arrays["activity"], arrays["subject"]
    n = len(windows) if windows.ndim else 0
    if windows.ndim != 3 or windows.shape[1] != len(CHANNELS) or windows.shape[2] not in (64, 128):
        problem = f"{path}: windows must have shape (n, {len(CHANNELS)}, 64 or 128), got {windows.shape}"
        raise DataError("path", problem)
    for name, values, high in (("activity", labels, 5), ("subject", subjects, 29)):
        if values.shape != (n,) or values.dtype.kind not in "iu":
            raise DataError("path", f"{path}: {name} must be {n} whole numbers, got {values.dtype} {values.shape}")
        bad = (values < 0) | (values > high)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError("path", f"{path}: {name} must be from 0 to {high}, and row {row} is {values[row]}")
    scale = float(arrays["scale"]) if "scale" in arrays and windows.dtype.kind in "iu" else 1.0
    return (
        np.moveaxis(windows, 1, 2).astype(np.float32) * np.float32(scale),
        labels.astype(np.int64),
        subjects.astype(np.int64) + 1,
    )
