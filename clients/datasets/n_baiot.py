"""N-BaIoT: traffic of nine IoT devices, benign and of two botnets (Meidan et al. 2018, IEEE Pervasive Computing 17(3)).

Each device has a folder with `benign_traffic.csv`, and `gafgyt_attacks/` and `mirai_attacks/` with one CSV an attack. A
row has 115 damped statistics of the traffic up to a packet. One client is one device, or an equal share of its rows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from clients.core import streams
from clients.core.arrays import F32, F64, I64
from clients.core.errors import DataError, unknown_name
from clients.core.population import Population
from clients.datasets.example_options import NBaiotOptions
from clients.datasets.published import Published, require_published
from clients.datasets.sampled_rows import sample_rows
from clients.partition.options import PartitionOptions
from clients.partition.pooled import Pool, hold_out, pooled_population

N_BAIOT = Published(
    name="N-BaIoT (UCI 442)",
    page="https://archive.ics.uci.edu/dataset/442/detection+of+iot+botnet+attacks+n+baiot",
    licence="CC BY 4.0",
    take="the zip with its folder a device, and unpack gafgyt_attacks.rar and mirai_attacks.rar in each into folders "
    "of these names",
)
FAMILIES = {"gafgyt": ("combo", "junk", "scan", "tcp", "udp"), "mirai": ("ack", "scan", "syn", "udp", "udpplain")}
CLASSES = ("benign", *(f"{family} {attack}" for family, attacks in FAMILIES.items() for attack in attacks))
"""The eleven classes. Three classes are benign, gafgyt and mirai; two are benign and attack."""


def n_baiot_population(
    options: NBaiotOptions,
    partition: PartitionOptions | None = None,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Population:
    """Read the traffic and make the population: features [n, 115], labels by `CLASSES`.

    Args:
        options: the files, devices and classes.
        partition: None for one client a device (or a share of one); or any other. A natural one may use "device",
            "client" or "attack".
        seed: root seed; it also chooses the rows.
        dtype: of the features.

    Raises:
        DataError: the files are missing (the message names their source) or unusable (it names the place).
    """
    return pooled_population(n_baiot_pool(options, seed), partition, options, seed=seed, dtype=dtype)


def n_baiot_pool(options: NBaiotOptions, seed: int) -> Pool:
    """Read the traffic.

    Raises:
        DataError: see `n_baiot_population`.
    """
    path = require_published(options.path, N_BAIOT)
    features: list[F64] = []
    labels: list[I64] = []
    owners: list[str] = []
    shares: list[I64] = []
    header: tuple[Path, tuple[str, ...]] | None = None
    for device in _devices(path, options.devices):
        for label, file in _files(device):
            columns, values = sample_rows(file, options.rows_per_file, streams.keys(seed, f"{device.name}/{label}"))
            header = header or (file, columns)
            _check_columns(file, columns, header)
            features.append(values)
            labels.append(np.full(len(values), label))
            owners += [device.name] * len(values)
        own = sum(len(v) for v in features) - sum(map(len, shares))
        order = np.argsort(streams.hashes(streams.keys(seed, f"shares of {device.name}"), own), kind="stable")
        share = np.empty(own, np.int64)
        share[order] = np.arange(own) % options.clients_per_device
        shares.append(share)
    attack = np.concatenate(labels)
    device_of = np.asarray(owners)
    clients = device_of
    if options.clients_per_device > 1:
        digits = len(str(options.clients_per_device - 1))
        clients = np.asarray(
            [f"{d} {s:0{digits}}" for d, s in zip(owners, np.concatenate(shares).tolist(), strict=True)]
        )
    target = attack if options.classes == 11 else np.minimum(attack, 1) if options.classes == 2 else _family(attack)
    keys = {"client": clients, "device": device_of, "attack": np.asarray(CLASSES)[attack], "label": target}
    scaled = _scaled(np.concatenate(features), options, seed)
    return Pool("N-BaIoT", str(path), scaled, target, keys, natural="client", facts={"classes": options.classes})


def _family(attack: I64) -> I64:
    return (attack > 0).astype(np.int64) + (attack > len(FAMILIES["gafgyt"]))


def _scaled(values: F64, options: NBaiotOptions, seed: int) -> F32:
    """Scale the statistics by those of the training examples."""
    if options.scale == "log":
        values = np.sign(values) * np.log1p(np.abs(values))
    if options.scale != "none":
        train = values[hold_out(len(values), options.validation_fraction, options.test_fraction, seed)[0]]
        deviation = train.std(axis=0)
        mean = train.mean(axis=0)
        constant = deviation <= 1e-9 * np.maximum(np.abs(mean), 1.0)
        values = (values - mean) / np.where(constant, 1.0, deviation)
    return values.astype(np.float32)


def _devices(path: Path, wanted: tuple[str, ...]) -> list[Path]:
    """Return the devices' folders, sorted by name."""
    if not path.is_dir():
        raise DataError("path", f"{path} is a file, and must be the folder with a folder a device")
    found = {p.name: p for p in sorted(path.iterdir()) if (p / "benign_traffic.csv").is_file()}
    if not found:
        held = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        problem = f"{path} has no folder with a benign_traffic.csv; it holds {held}"
        raise DataError("path", problem, fix=f"Take {N_BAIOT.take}.")
    for name in wanted:
        if name not in found:
            raise DataError("devices", unknown_name(name, list(found), "a device"))
    return [p for name, p in found.items() if not wanted or name in wanted]


def _files(device: Path) -> list[tuple[int, Path]]:
    """Return a device's files by label; two of the nine devices have no Mirai traffic."""
    files = [(0, device / "benign_traffic.csv")]
    for family, attacks in FAMILIES.items():
        folder = device / f"{family}_attacks"
        if not folder.is_dir():
            packed = folder.with_suffix(".rar")
            if packed.exists():
                raise DataError("path", f"{packed} is packed", fix=f"Unpack it into the folder {folder}.")
            continue
        missing = [a for a in attacks if not (folder / f"{a}.csv").is_file()]
        if missing:
            raise DataError("path", f"{folder} has no {missing[0]}.csv", fix="Is it unpacked whole?")
        files += [(CLASSES.index(f"{family} {a}"), folder / f"{a}.csv") for a in attacks]
    return files


def _check_columns(file: Path, columns: tuple[str, ...], first: tuple[Path, tuple[str, ...]]) -> None:
    if columns != first[1]:
        other = next((c for c in (*columns, *first[1]) if (c in columns) != (c in first[1])), "")
        what = f"differ in column {other!r}" if other else "have their columns in another order"
        raise DataError("path", f"{file} and {first[0]} {what}")
