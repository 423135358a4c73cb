"""Labelled sets of images and windows: scikit-learn's digits, any .npz file, IDX files."""

from __future__ import annotations

import gzip
import math
import struct
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from clients.core.arrays import Array
from clients.core.checks import check_numeric
from clients.core.errors import DataError
from clients.core.file_paths import find_file
from clients.core.population import Population
from clients.partition.options import PartitionOptions
from clients.partition.pooled import Pool, pooled_population
from clients.partition.rotation import turned
from clients.sources.image_shapes import shaped_examples
from clients.sources.labels import class_labels, unused_classes
from clients.sources.options import DigitsOptions, ImagesOptions, labels_beside

FEATURE_NAMES = ("x", "x_train", "features", "images", "windows", "data")
TARGET_NAMES = ("y", "y_train", "labels", "label", "targets", "target", "activity")
IDX_DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def digits_population(
    options: DigitsOptions, partition: PartitionOptions | None, *, seed: int, dtype: torch.dtype = torch.float32
) -> Population:
    """Make the population of scikit-learn's digits.

    Args:
        options: how examples are held out and thinned.
        partition: which client holds which examples.
        seed: root seed.
        dtype: of the features.

    Raises:
        PartitionError: the partition is missing or cannot be made.
    """
    pool = digits_pool(options)
    population = pooled_population(pool, partition, options, seed=seed, dtype=dtype)
    if options.rotation:
        population = turned(population, options.rotation, seed)
    return to_generate(population, pool) if options.task == "generate" else population


def images_population(
    options: ImagesOptions, partition: PartitionOptions | None, *, seed: int, dtype: torch.dtype = torch.float32
) -> Population:
    """Read a file's arrays and make the population; arguments as for `digits_population`.

    Raises:
        DataError: the file is missing or holds unusable values.
        PartitionError: the partition is missing or cannot be made.
    """
    pool = images_pool(options)
    population = pooled_population(pool, partition, options, seed=seed, dtype=dtype)
    return to_generate(population, pool) if options.task == "generate" else population


def to_generate(population: Population, pool: Pool) -> Population:
    """Return a population whose examples a model is to draw: an objective, with labels that no model is given.

    Raises:
        DataError: a number of the pool does not lie between 0 and 1.
    """
    low, high = float(pool.features.min()), float(pool.features.max())
    if not 0 <= low <= high <= 1:
        problem = f"has numbers from {low:g} to {high:g}, and generated ones lie between 0 and 1"
        raise DataError(pool.where, problem, fix="Scale them, or leave task = 'generate' out.")
    return replace(population, spec=replace(population.spec, task="objective", generates=True))


def digits_pool(options: DigitsOptions) -> Pool:
    """Read scikit-learn's digits from its file: importing scikit-learn takes longer than the first round.

    Example:
        >>> digits_pool(DigitsOptions()).features.shape
        (1797, 64)
    """
    spec = find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None, "scikit-learn is one of our dependencies"
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(file, delimiter=",")
    features, labels = table[:, :64] / 16.0, table[:, 64].astype(np.int64)
    return Pool(
        "digits",
        "kind",
        features if options.flat else features.reshape(-1, 1, 8, 8),
        labels,
        {"label": labels},
        thinning=options.thinning(),
    )


def images_pool(options: ImagesOptions) -> Pool:
    """Read the arrays an `ImagesOptions` names.

    Raises:
        DataError: a file is missing, cannot be read, or lacks the arrays that the options name.
    """
    path = find_file(options.path, "path")
    if path.suffix == ".npz":
        pool = _npz_pool(path, options)
    elif path.is_dir() or "idx" in path.name:
        pool = _idx_pool(path, options)
    else:
        raise DataError("path", f"{path} is neither an .npz file nor an IDX file nor a folder of IDX files")
    targets, note = class_labels(pool.targets, None, pool.where)
    features, shaped = shaped_examples(pool.features, options, pool.where)
    labels, test = targets, None
    if pool.test is not None:
        test_labels, _ = class_labels(pool.test[1], None, pool.where, "test labels")
        test = shaped_examples(pool.test[0], options, pool.where)[0], test_labels
        labels = np.concatenate([targets, test_labels])
        if test[0].shape[1:] != features.shape[1:]:
            shapes = f"{list(test[0].shape[1:])} and {list(features.shape[1:])}"
            raise DataError("path", f"the test and training examples of {pool.where} have shapes {shapes}")
    unused = unused_classes(labels, None, pool.where)
    notices = tuple(words for words in (*pool.notices, *shaped, note, unused) if words)
    return replace(pool, features=features, targets=targets, test=test, thinning=options.thinning(), notices=notices)


def _npz_pool(path: Path, options: ImagesOptions) -> Pool:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise DataError("path", f"{path} cannot be read as .npz ({error})") from error
    x = _pick(arrays, options.features, FEATURE_NAMES, "features", path)
    y = _pick(arrays, options.targets, TARGET_NAMES, "targets", path)
    features, targets = arrays[x], arrays[y]
    factor = float(arrays["scale"]) if "scale" in arrays and arrays["scale"].ndim == 0 else 1.0
    test = None
    if {"x_test", "y_test"} <= arrays.keys():
        test = (_scaled(arrays["x_test"], factor, options), arrays["y_test"])
    keys = {name: a for name, a in arrays.items() if a.ndim == 1 and len(a) == len(targets) and name != x}
    notices = _scaling(features, factor)
    return Pool(path.stem, str(path), _scaled(features, factor, options), targets, keys, test, notices=notices)


def _pick(arrays: dict[str, Array], chosen: str, usual: tuple[str, ...], what: str, path: Path) -> str:
    """Return the name of the array that holds `what`."""
    wanted = (chosen,) if chosen else usual
    found = [name for name in wanted if name in arrays]
    if not found:
        holds = ", ".join(f"{name} {a.shape}" for name, a in arrays.items())
        named = f"no array {chosen!r}" if chosen else f"no array with a usual name ({', '.join(usual)})"
        raise DataError(what, f"{path} has {named}; it holds {holds}", fix=f"Name one with {what} = ...")
    return found[0]


def _scaled(features: Array, factor: float, options: ImagesOptions) -> Array:
    """Convert integers to numbers for a model; byte images without channels get one, unless `layout` is set."""
    check_numeric(features, "features", "features")
    if features.dtype == np.uint8:
        features = features[:, None] if features.ndim == 3 and not options.layout else features
        return features.astype(np.float32) / np.float32(255)
    if features.dtype.kind in "iu":
        return features.astype(np.float32) * np.float32(factor)
    return features


def _scaling(features: Array, factor: float) -> tuple[str, ...]:
    """Return a sentence on what became of integers."""
    if features.dtype == np.uint8:
        return ("features are bytes and were divided by 255",)
    if features.dtype.kind in "iu":
        times = f", times {factor:g} (the file's `scale`)" if factor != 1 else ""
        return (f"features are whole numbers ({features.dtype}) and became float32{times}",)
    return ()


def _idx_pool(path: Path, options: ImagesOptions) -> Pool:
    """Read IDX files (Y. LeCun's MNIST page): training images and labels, and a test part if there is one."""
    if path.is_file():
        features, targets, converted = _idx_pair(path, options)
        return Pool(path.name.split("-")[0], str(path), features, targets, notices=converted)
    images = sorted(p for p in path.iterdir() if "images" in p.name and "idx3" in p.name)
    tests = [p for p in images if p.name.startswith(("t10k", "test"))]
    trains = [p for p in images if p not in tests]
    if len(trains) != 1 or len(tests) > 1:
        named = ", ".join(p.name for p in images) or "none"
        raise DataError(
            "path", f"{path} must hold one IDX images file to train on (and one t10k or test), found {named}"
        )
    test = _idx_pair(tests[0], options)[:2] if tests else None
    features, targets, converted = _idx_pair(trains[0], options)
    return Pool(path.name, str(path), features, targets, {"label": targets}, test, notices=converted)


def _idx_pair(images: Path, options: ImagesOptions) -> tuple[Array, Array, tuple[str, ...]]:
    """Return the images of a file, the labels of the file beside it, and sentences on what was converted."""
    labels = labels_beside(images)
    if labels == images or not labels.is_file():
        raise DataError("path", f"{images} needs its labels beside it, in {labels.name}")
    stored = read_idx(images)
    return _scaled(stored, 1.0, options), read_idx(labels).astype(np.int64), _scaling(stored, 1.0)


def read_idx(path: Path) -> Array:
    """Read one IDX file, plain or gzipped: two zero bytes, a type, the number of axes, their sizes, the numbers.

    Raises:
        DataError: it is not an IDX file or is cut short.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError("path", f"{path} cannot be read ({error})") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in IDX_DTYPES:
        raise DataError("path", f"{path} is not an IDX file (it starts with {raw[:4]!r})")
    axes = raw[3]
    dtype = np.dtype(IDX_DTYPES[raw[2]])
    shape = struct.unpack_from(f">{axes}I", raw, 4) if len(raw) >= 4 + 4 * axes else (1 << 62,)
    body = raw[4 + 4 * axes :]
    if len(body) != math.prod(shape) * dtype.itemsize:
        raise DataError(
            "path", f"{path} must hold {shape} numbers by its header and holds {len(body)} bytes", fix="Fetch it again."
        )
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="))
