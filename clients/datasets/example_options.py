"""Options of the recorded sets of labelled examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clients.core.errors import require
from clients.core.file_paths import all_files
from clients.core.options import HeldOutOptions, check_at_least


@dataclass(frozen=True, kw_only=True)
class UciHarOptions(HeldOutOptions):
    """Windows of nine inertial signals, labelled with one of six activities: one client a person.

    Attributes:
        path: the folder "UCI HAR Dataset", or an .npz of `windows` (n, 9, samples), `activity` (0 to 5), `subject` (0
            to 29) and, for windows of integers, `scale`.
        rate: readings a second: 50 as published, or 25.
        test: "subjects": the nine people of the published test set are the central test set and the other 21 are
            clients; "windows": all thirty are clients, and `test_fraction` of all windows is the central test set.
            These windows half overlap with training windows, so the results are too good.
        validation_fraction: share of the other windows that is held centrally for criteria; its results are too good
            likewise.
        test_fraction: share held centrally for the end, with test = "windows".
    """

    kind: Literal["uci_har"] = "uci_har"
    path: str = "data/UCI HAR Dataset"
    rate: Literal[25, 50] = 25
    test: Literal["subjects", "windows"] = "subjects"
    validation_fraction: float = 0.1
    test_fraction: float | None = None
    client_test_fraction: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        by_windows = self.test == "windows"
        require(by_windows or self.test_fraction is None, "test_fraction", "is for test = 'windows'")

    def files(self) -> list[Path]:
        """Return the archive, or all files of the folder."""
        return all_files(self.path, "path")


@dataclass(frozen=True, kw_only=True)
class NBaiotOptions(HeldOutOptions):
    """Traffic to tell attacks from: one client a device.

    Attributes:
        path: the folder of device folders.
        devices: devices to keep, by the name of their folder; empty keeps all.
        classes: 2, benign or attack; 3, benign or the botnet's family; 11, benign or the attack.
        rows_per_file: at most so many rows of each file, chosen by seed; a device has up to eleven files.
        clients_per_device: equal shares, at random, that a device's rows are dealt into.
        scale: "log" takes sign(x) log(1 + |x|), since the statistics span ten orders, and then, like "linear",
            subtracts the mean and divides by the deviation of what is trained on; "none" leaves them.
    """

    kind: Literal["n_baiot"] = "n_baiot"
    path: str = "data/n-baiot"
    devices: tuple[str, ...] = ()
    classes: Literal[2, 3, 11] = 2
    rows_per_file: int = 1000
    clients_per_device: int = 1
    scale: Literal["log", "linear", "none"] = "log"
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    client_test_fraction: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "rows_per_file", "clients_per_device", words="at least {:g}")

    def files(self) -> list[Path]:
        """Return the tables of all devices."""
        return [file for file in all_files(self.path, "path") if file.suffix == ".csv"]


Argument = str | int | float | bool | list[int] | list[float] | list[str]


@dataclass(frozen=True, kw_only=True)
class HuggingFaceOptions(HeldOutOptions):
    """Labelled examples of a Hugging Face data set.

    Attributes:
        path: a folder (saved by `save_to_disk`, or of Parquet, CSV or JSON files), or a name on the Hub such as
            "ylecun/mnist".
        download: whether a name may be fetched from the Hub (once, into Hugging Face's cache). The set's page has its
            licence.
        subset: the configuration of the set, if it has several.
        features: the column of features (images, or numbers of one shape), or several columns of one number each.
        label: the column of labels: whole numbers, or names, numbered in sorted order.
        split: the split that is dealt out.
        test_split: the split that is the central test set, if the set has it and `test_fraction` is unset.
        partitioner: a class of `flwr_datasets.partitioner`, such as "DirichletPartitioner"; empty leaves it to
            `[partition]`.
        arguments: its arguments, such as { num_partitions = 10, partition_by = "label", alpha = 0.5 }.
        flat: whether features are flattened.
        validation_fraction: share held centrally for criteria, taken after the partitioner: clients are smaller by it.
        test_fraction: share held centrally for the end; unset takes `test_split`, or a tenth without one.

    Bytes are divided by 255, as images are.
    """

    kind: Literal["huggingface"] = "huggingface"
    path: str
    download: bool = False
    subset: str = ""
    features: str | tuple[str, ...]
    label: str
    split: str = "train"
    test_split: str = "test"
    partitioner: str = ""
    arguments: dict[str, Argument] = field(default_factory=dict)
    flat: bool = True
    validation_fraction: float = 0.1
    test_fraction: float | None = None
    client_test_fraction: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("path", "features", "label", "split"):
            require(bool(getattr(self, name)), name, "must not be empty")
        require(bool(self.partitioner) or not self.arguments, "arguments", "are for a partitioner, and none is named")

    def files(self) -> list[Path]:
        """Return the files of the folder, without those that `datasets` writes there; none of a set on the Hub."""
        if not Path(self.path).expanduser().exists():
            return []
        return [file for file in all_files(self.path, "path") if not file.name.startswith(("cache-", "tmp"))]
