"""Options of recorded data sets with published layouts, and how the forecast ones are read as tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from clients.core.errors import require
from clients.core.options import DataOptions, check_at_least, check_held_out
from clients.tables.options import Scale, TableOptions, WindowedOptions


@dataclass(frozen=True, kw_only=True)
class MetrLaOptions(WindowedOptions):
    """Speeds at road sensors, in miles an hour, to forecast: one client a sensor.

    Attributes:
        path: the .h5 as published (needs the extra `hdf5`), or a CSV or Parquet of times and a column a sensor.
        sensors: those to keep; empty keeps all.
        zero_is_missing: whether a speed of 0 means that nothing was read, as in METR-LA. In PEMS-BAY it does not.
        window: past steps of five minutes the model sees.
        horizon: steps ahead; all values from 1 to `horizon` are forecast.
        stride: steps from one window to the next.
        validation_fraction: share of a sensor's time, after the training part.
        test_fraction: share of its time, at the end.
        scale: by the training part's mean and deviation, per "client" or over all ("global"); or "none".
        max_gap: longest run of missing readings to fill on a straight line, in steps; windows that touch a longer one
            are dropped. 0 fills none.
    """

    kind: Literal["metr_la"] = "metr_la"
    path: str = "data/metr-la.h5"
    sensors: tuple[str, ...] = ()
    zero_is_missing: bool = True
    window: int = 12
    horizon: int = 12
    stride: int = 1
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    scale: Scale = "client"
    max_gap: int = 3

    def __post_init__(self) -> None:
        metr_la_table(self)


def metr_la_table(options: MetrLaOptions) -> TableOptions:
    """Return the table these options say."""
    return _table(
        options,
        frequency="5min",
        max_gap=options.max_gap,
        layout="wide",
        columns=options.sensors,
        missing_value=0.0 if options.zero_is_missing else None,
    )


@dataclass(frozen=True, kw_only=True)
class AirQualityOptions(WindowedOptions):
    """A pollutant to forecast from its past and the weather: one client a station.

    Attributes:
        path: a folder of a CSV a station (also .gz, .xz), or a pattern.
        target: the pollutant: PM2.5, PM10, SO2, NO2, CO or O3 in micrograms a cubic metre.
        features: further columns of numbers; the wind's direction is text, and so none.
        station: the column that names the station; empty names it by the file.
        window: past steps the model sees.
        horizon: steps ahead; all values from 1 to `horizon` are forecast.
        stride: steps from one window to the next.
        validation_fraction: share of a station's time, after the training part.
        test_fraction: share of its time, at the end.
        scale: by the training part's mean and deviation, per "client" or over all ("global"); or "none".
        frequency: time between rows.
        max_gap: longest run of missing values to fill on a straight line, in steps; windows that touch a longer one are
            dropped. 0 fills none.
    """

    kind: Literal["air_quality"] = "air_quality"
    path: str = "data/air-beijing"
    target: str = "PM2.5"
    features: tuple[str, ...] = ("TEMP", "PRES", "DEWP", "RAIN", "WSPM")
    station: str = "station"
    window: int = 24
    horizon: int = 1
    stride: int = 1
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    scale: Scale = "client"
    frequency: str = "1h"
    max_gap: int = 6

    def __post_init__(self) -> None:
        require(self.target not in self.features, "features", f"must not name the target, {self.target!r}, again")
        air_quality_table(self)


def air_quality_table(options: AirQualityOptions) -> TableOptions:
    """Return the table these options say."""
    return _table(
        options,
        frequency=options.frequency,
        max_gap=options.max_gap,
        layout="files",
        id_column=options.station,
        target=options.target,
        features=options.features,
    )


FILE = "household_power_consumption.txt"


POWER = "Global_active_power"


METERS = {
    "Sub_metering_1": "kitchen",
    "Sub_metering_2": "laundry",
    "Sub_metering_3": "water heater and air conditioner",
}


COLUMNS = (POWER, "Global_reactive_power", "Voltage", "Global_intensity", *METERS)
"""What the file measures besides `Date` and `Time`."""


@dataclass(frozen=True, kw_only=True)
class HouseholdPowerOptions(WindowedOptions):
    """Hourly mean power to forecast.

    Attributes:
        path: household_power_consumption.txt, or the folder it lies in.
        clients: "months": a client is a calendar month of the household's power; "meters": one of the four meters.
        features: further columns of `COLUMNS`, for "months"; sub-meters are in kW like the power itself.
        minutes: an hour with fewer known minutes than this is missing.
        window: past hours the model sees.
        horizon: hours ahead; all values from 1 to `horizon` are forecast.
        stride: hours from one window to the next.
        validation_fraction: share of a client's time, after the training part. Months are split each by itself, so one
            month's test lies before another's training.
        test_fraction: share of its time, at the end.
        scale: by the training part's mean and deviation, per "client" or over all ("global"); or "none".
        max_gap: longest run of missing hours to fill on a straight line; windows that touch a longer one are dropped.
            0 fills none.
    """

    kind: Literal["household_power"] = "household_power"
    path: str = f"data/{FILE}"
    clients: Literal["months", "meters"] = "months"
    features: tuple[str, ...] = ()
    minutes: int = 30
    window: int = 24
    horizon: int = 1
    stride: int = 1
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    scale: Scale = "global"
    max_gap: int = 3

    def __post_init__(self) -> None:
        others = [c for c in COLUMNS if c != POWER]
        wrong = [f for f in self.features if f not in others]
        require(not wrong, "features", f"must be of {', '.join(others)}, got {wrong}")
        require(self.clients == "months" or not self.features, "features", "is for clients = 'months'")
        require(1 <= self.minutes <= 60, "minutes", f"must be from 1 to 60, got {self.minutes}")
        household_power_table(self)


def household_power_table(options: HouseholdPowerOptions) -> TableOptions:
    """Return how the hours are split, scaled and windowed."""
    return _table(options, frequency="1h", max_gap=options.max_gap)


def _table(options: WindowedOptions, *, frequency: str, max_gap: int, **layout: Any) -> TableOptions:
    """Return a table with the options' windows, split and scale; gaps of up to `max_gap` steps are filled."""
    return TableOptions(
        path=options.path,
        window=options.window,
        horizon=options.horizon,
        stride=options.stride,
        validation_fraction=options.validation_fraction,
        test_fraction=options.test_fraction,
        scale=options.scale,
        frequency=frequency,
        gaps="interpolate" if max_gap else "drop",
        max_gap=max_gap or None,
        **layout,
    )


@dataclass(frozen=True, kw_only=True)
class UciHarOptions(DataOptions):
    """Windows of nine inertial signals, labelled with one of six activities: one client a person.

    Attributes:
        path: the folder "UCI HAR Dataset", or an .npz of `windows` (n, 9, samples), `activity` (0 to 5), `subject` (0
            to 29) and, for windows of integers, `scale`.
        rate: readings a second: 50 as published, or every second of them.
        test: "subjects": the nine people of the published test set are the central test set and no clients, which
            leaves 21; "windows": all thirty are clients, and `test_fraction` of all windows is the central test set,
            which half overlaps with windows trained on and so flatters.
        validation_fraction: share of the windows not tested on that is held centrally for criteria; flatters likewise.
        test_fraction: share held centrally for the end, with test = "windows".
        client_test_fraction: share of its own windows each client holds out.
    """

    kind: Literal["uci_har"] = "uci_har"
    path: str = "data/UCI HAR Dataset"
    rate: Literal[25, 50] = 25
    test: Literal["subjects", "windows"] = "subjects"
    validation_fraction: float = 0.1
    test_fraction: float | None = None
    client_test_fraction: float = 0.0

    def __post_init__(self) -> None:
        check_held_out(self.validation_fraction, self.test_fraction or 0.0, self.client_test_fraction)
        by_windows = self.test == "windows"
        require(by_windows or self.test_fraction is None, "test_fraction", "is for test = 'windows'")


@dataclass(frozen=True, kw_only=True)
class NBaiotOptions(DataOptions):
    """Traffic to tell attacks from: one client a device.

    Attributes:
        path: the folder of device folders.
        devices: those to keep, by the name of their folder; empty keeps all.
        classes: 2, benign or attack; 3, benign or the botnet's family; 11, benign or the attack.
        rows_per_file: at most so many rows of each file, chosen by seed; a device has up to eleven files.
        clients_per_device: equal shares, at random, that a device's rows are dealt into.
        scale: "log" takes sign(x) log(1 + |x|), since the statistics span ten orders, and then, like "linear",
            subtracts the mean and divides by the deviation of what is trained on; "none" leaves them.
        validation_fraction: share held centrally for criteria.
        test_fraction: share held centrally for the end.
        client_test_fraction: share of its own rows each client holds out.
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
        check_held_out(self.validation_fraction, self.test_fraction, self.client_test_fraction)
        check_at_least(self, 1, "rows_per_file", "clients_per_device", words="at least {:g}")


Argument = str | int | float | bool | list[int] | list[float] | list[str]


@dataclass(frozen=True, kw_only=True)
class HuggingFaceOptions(DataOptions):
    """Labelled examples of a Hugging Face data set.

    Attributes:
        path: a folder (saved by `save_to_disk`, or of Parquet, CSV or JSON files), or a name on the Hub such as
            "ylecun/mnist".
        download: whether a name may be fetched from the Hub (into Hugging Face's cache, once). Its licence is on its
            page.
        subset: the configuration of the set, where it has several.
        features: the column of features (images, or numbers of one shape), or several columns of one number each.
        label: the column of labels: whole numbers, or names, which are numbered in sorted order.
        split: the split that is dealt out.
        test_split: the split that is the central test set, where the set has it and `test_fraction` is unset.
        partitioner: a class of `flwr_datasets.partitioner`, such as "DirichletPartitioner"; empty leaves it to
            `[partition]`.
        arguments: its arguments, such as { num_partitions = 10, partition_by = "label", alpha = 0.5 }.
        flat: whether features are flattened.
        validation_fraction: share held centrally for criteria, after the partitioner: clients are that much smaller.
        test_fraction: share held centrally for the end; unset takes `test_split`, or a tenth without one.
        client_test_fraction: share of its own examples each client holds out.

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
        check_held_out(self.validation_fraction, self.test_fraction or 0.0, self.client_test_fraction)
        for name in ("path", "features", "label", "split"):
            require(bool(getattr(self, name)), name, "must not be empty")
        require(bool(self.partitioner) or not self.arguments, "arguments", "are for a partitioner, and none is named")
