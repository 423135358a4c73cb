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
from clients.core.checks import check_labels, check_numeric
from clients.core.errors import DataError
from clients.core.file_paths import find_file
from clients.core.population import Population
from clients.partition.options import PartitionOptions
from clients.partition.pooled import Pool, pooled_population
from clients.sources.options import DigitsOptions, ImagesOptions

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
    return pooled_population(digits_pool(options), partition, options, seed=seed, dtype=dtype)


def images_population(
    options: ImagesOptions, partition: PartitionOptions | None, *, seed: int, dtype: torch.dtype = torch.float32
) -> Population:
    """Read a file's arrays and make the population; arguments as for `digits_population`.

    Raises:
        DataError: the file is missing or holds unusable values.
        PartitionError: the partition is missing or cannot be made.
    """
    return pooled_population(images_pool(options), partition, options, seed=seed, dtype=dtype)


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
        pool = _idx_pool(path)
    else:
        raise DataError("path", f"{path} is neither an .npz file nor an IDX file nor a folder of IDX files")
    check_labels(pool.targets, None, pool.where)
    pool = replace(pool, features=_shaped(pool.features, options, pool.where), thinning=options.thinning())
    features = pool.features
    if pool.test is None:
        return pool
    check_labels(pool.test[1], None, pool.where, "test labels")
    test = _shaped(pool.test[0], options, pool.where)
    if test.shape[1:] != features.shape[1:]:
        shapes = f"{list(test.shape[1:])} and {list(features.shape[1:])}"
        raise DataError("path", f"the test and training examples of {pool.where} have shapes {shapes}")
    return replace(pool, test=(test, pool.test[1]))


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
        test = (_scaled(arrays["x_test"], factor), arrays["y_test"])
    keys = {name: a for name, a in arrays.items() if a.ndim == 1 and len(a) == len(targets) and name != x}
    return Pool(path.stem, str(path), _scaled(features, factor), targets, keys, test)


def _pick(arrays: dict[str, Array], chosen: str, usual: tuple[str, ...], what: str, path: Path) -> str:
    """Return the name of the array that holds `what`."""
    wanted = (chosen,) if chosen else usual
    found = [name for name in wanted if name in arrays]
    if not found:
        holds = ", ".join(f"{name} {a.shape}" for name, a in arrays.items())
        named = f"no array {chosen!r}" if chosen else f"no array with a usual name ({', '.join(usual)})"
        raise DataError(what, f"{path} has {named}; it holds {holds}", fix=f"Name one with {what} = ...")
    return found[0]


def _scaled(features: Array, factor: float) -> Array:
    """Convert integers to numbers for a model; byte images without channels get one."""
    check_numeric(features, "features", "features")
    if features.dtype == np.uint8:
        features = features[:, None] if features.ndim == 3 else features
        return features.astype(np.float32) / np.float32(255)
    if features.dtype.kind in "iu":
        return features.astype(np.float32) * np.float32(factor)
    return features


def _shaped(features: Array, options: ImagesOptions, name: str) -> Array:
    """Reshape examples to the shape in the options."""
    n, own = len(features), features.shape[1:]
    if options.shape:
        if math.prod(options.shape) != math.prod(own):
            raise DataError("shape", f"{list(options.shape)} does not fit the examples of {name}, shape {list(own)}")
        return features.reshape(n, *options.shape)
    if options.flat:
        return features.reshape(n, -1)
    if len(own) == 1:
        side = math.isqrt(own[0])
        if side * side != own[0]:
            raise DataError(
                "flat", f"{name} has flat examples of {own[0]} numbers, no square", fix="Give shape = [...]."
            )
        return features.reshape(n, 1, side, side)
    if len(own) == 3 and own[-1] in (1, 3, 4) and own[0] not in (1, 3, 4):
        return np.moveaxis(features, -1, 1)
    return features


def _idx_pool(path: Path) -> Pool:
    """Read IDX files (Y. LeCun's MNIST page): training images and labels, and a test part if there is one."""
    if path.is_file():
        return Pool(path.name.split("-")[0], str(path), *_idx_pair(path))
    images = sorted(p for p in path.iterdir() if "images" in p.name and "idx3" in p.name)
    tests = [p for p in images if p.name.startswith(("t10k", "test"))]
    trains = [p for p in images if p not in tests]
    if len(trains) != 1 or len(tests) > 1:
        named = ", ".join(p.name for p in images) or "none"
        raise DataError(
            "path", f"{path} must hold one IDX images file to train on (and one t10k or test), found {named}"
        )
    test = _idx_pair(tests[0]) if tests else None
    features, targets = _idx_pair(trains[0])
    return Pool(path.name, str(path), features, targets, {"label": targets}, test)


def _idx_pair(images: Path) -> tuple[Array, Array]:
    labels = images.with_name(images.name.replace("images", "labels").replace("idx3", "idx1"))
    if labels == images or not labels.is_file():
        raise DataError("path", f"{images} needs its labels beside it, in {labels.name}")
    return _scaled(read_idx(images), 1.0), read_idx(labels).astype(np.int64)


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
