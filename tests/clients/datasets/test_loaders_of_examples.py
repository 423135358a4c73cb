"""UCI HAR and N-BaIoT in their published forms, whole and broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from needs import shared_data

from clients.core.errors import DataError, UserError
from clients.core.population import Population
from clients.datasets import sampled_rows
from clients.datasets.example_options import NBaiotOptions, UciHarOptions
from clients.datasets.n_baiot import CLASSES, FAMILIES
from clients.datasets.uci_har import CHANNELS, TEST_SUBJECTS
from clients.federation.data_kinds import build_population
from clients.partition.options import DirichletOptions, IidOptions, NaturalOptions
from clients.sources.options import DigitsOptions


def population(options: Any, partition: Any = None, seed: int = 0) -> Population:
    return build_population(options, partition, seed=seed, dtype=torch.float64)


def everything(p: Population) -> tuple[np.ndarray, np.ndarray]:
    data = p.cohort(np.arange(p.num_clients))
    return data.features[data.rows].flatten(1).numpy(), data.targets[data.rows].numpy()


# UCI HAR: people 1, 3, 5 train and 2, 4 test; 4 windows each

PEOPLE = {"train": (1, 3, 5), "test": (2, 4)}


def har(folder: Path) -> dict[str, np.ndarray]:
    """The published folder; windows (n, 128, 9) by part."""
    written = {}
    for k, (part, people) in enumerate(PEOPLE.items()):
        n = 4 * len(people)
        windows = np.random.default_rng(k).normal(0, 0.3, (n, 128, 9)).astype(np.float32)
        (folder / part / "Inertial Signals").mkdir(parents=True)
        for c, channel in enumerate(CHANNELS):
            lines = ["  " + " ".join(f"{x: .7e}" for x in row) for row in windows[:, :, c]]
            (folder / part / "Inertial Signals" / f"{channel.name}_{part}.txt").write_text("\n".join(lines) + "\n")
        (folder / part / f"subject_{part}.txt").write_text("".join(f"{p}\n" for p in np.repeat(people, 4)))
        (folder / part / f"y_{part}.txt").write_text("".join(f"{1 + i % 6}\n" for i in range(n)))
        written[part] = windows
    return written


def standardised(windows: np.ndarray) -> np.ndarray:
    mean, deviation = ([getattr(c, name) for c in CHANNELS] for name in ("mean", "deviation"))
    return (windows - np.array(mean)) / np.array(deviation)


def test_people_are_clients_and_published_subjects_are_the_test_set(tmp_path: Path) -> None:
    windows = har(tmp_path)
    p = population(UciHarOptions(path=str(tmp_path), rate=50, validation_fraction=0.0))
    assert [p.federation.client_name(k) for k in range(3)] == ["1", "3", "5"]
    assert (p.sizes.tolist(), p.feature_shape, p.outputs, p.spec.channels) == ([4, 4, 4], (128, 9), 6, CHANNELS)
    second = p.cohort(np.array([0, 1])).client(1)
    np.testing.assert_allclose(second.features.numpy(), standardised(windows["train"][4:8]), atol=1e-5)
    assert second.targets.tolist() == [4, 5, 0, 1]
    assert p.test is not None
    np.testing.assert_allclose(p.test.features.numpy(), standardised(windows["test"]), atol=1e-5)
    assert p.test.targets.tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    half = population(UciHarOptions(path=str(tmp_path), validation_fraction=0.0))
    assert half.feature_shape == (64, 9)
    np.testing.assert_array_equal(half.cohort(np.array([1])).client(0).features, second.features[:, ::2])


def test_partition_may_deal_out_every_window(tmp_path: Path) -> None:
    har(tmp_path / "UCI HAR Dataset")
    options = UciHarOptions(path=str(tmp_path), test="windows", test_fraction=0.25, validation_fraction=0.0)
    p = population(options)
    assert [p.federation.client_name(k) for k in range(p.num_clients)] == ["1", "2", "3", "4", "5"]
    assert p.test is not None
    assert (len(p.test), p.num_examples) == (5, 15)
    assert population(options, IidOptions(clients=3)).sizes.tolist() == [5, 5, 5]
    assert population(options, NaturalOptions(key="label")).num_clients == 6
    with pytest.raises(UserError, match="key: 'person' is not a key of these data"):
        population(options, NaturalOptions(key="person"))


def test_natural_partition_needs_a_key_where_data_name_no_clients(tmp_path: Path) -> None:
    har(tmp_path)
    options = UciHarOptions(path=str(tmp_path))
    p = population(options, NaturalOptions())
    assert [p.federation.client_name(k) for k in range(3)] == ["1", "3", "5"]
    np.testing.assert_array_equal(everything(p)[0], everything(population(options))[0])
    with pytest.raises(UserError, match=r"key: is missing: these data name no clients of their own\. All: label"):
        population(DigitsOptions(), NaturalOptions())


def test_archive_equals_the_folder(tmp_path: Path) -> None:
    windows = har(tmp_path / "raw")
    both = np.concatenate([windows["train"], windows["test"]])
    counts = np.rint(both[:, ::2] / 2e-4).astype(np.int16)
    path = tmp_path / "har.npz"
    arrays = {
        "windows": counts.transpose(0, 2, 1),
        "activity": np.array([i % 6 for i in (*range(12), *range(8))], np.uint8),
        "subject": np.repeat([0, 2, 4, 1, 3], 4).astype(np.uint8),
        "scale": np.float32(2e-4),
    }
    np.savez(path, **arrays)
    folder, archive = (
        population(UciHarOptions(path=str(p), validation_fraction=0.0)) for p in (tmp_path / "raw", path)
    )
    a, b = everything(folder), everything(archive)
    np.testing.assert_allclose(a[0], b[0], atol=1e-4 / min(c.deviation for c in CHANNELS) + 1e-6)
    np.testing.assert_array_equal(a[1], b[1])
    assert [archive.federation.client_name(k) for k in range(3)] == ["1", "3", "5"]

    def refuse(says: str, rate: int = 25, **change: Any) -> None:
        np.savez(path, **{k: v for k, v in {**arrays, **change}.items() if v is not None})
        with pytest.raises(DataError, match=f"har.npz{says}"):
            population(UciHarOptions(path=str(path), rate=rate))  # type: ignore[arg-type]

    refuse(" has windows of 64 readings", rate=50)
    refuse(r" has no array 'subject'; it holds windows, activity, scale", subject=None)
    refuse(r": windows must have shape \(n, 9, 64 or 128\), got \(20, 64, 9\)", windows=counts)
    refuse(": activity must be from 0 to 5, and row 3 is 6", activity=np.where(np.arange(20) == 3, 6, 0))
    refuse(r": subject must be 20 whole numbers, got int64 \(7,\)", subject=np.zeros(7, np.int64))
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(DataError, match=r"har.npz cannot be read as .npz .*Is the download complete\?"):
        population(UciHarOptions(path=str(path)))


def _cut(text: str) -> str:
    return text[: len(text) - 700]


def _line(number: int, new: str) -> Any:
    def change(text: str) -> str:
        lines = text.splitlines()
        lines[number - 1] = new
        return "\n".join(lines)

    return change


SIGNAL = "train/Inertial Signals/body_gyro_y_train.txt"


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        (SIGNAL, _cut, r"gyro_y_train.txt, line 12: has \d+ numbers and must have 128. Is the download complete\?"),
        (SIGNAL, _line(5, " 1.0" * 127), "gyro_y_train.txt, line 5: has 127 numbers and must have 128"),
        (SIGNAL, _line(5, " 1.0" * 99 + " x" + " 1.0" * 28), "line 5, column 100: 'x' is not a finite number"),
        (SIGNAL, _line(5, " 1.0" * 127 + " nan"), "line 5, column 128: 'nan' is not a finite number"),
        (
            SIGNAL,
            lambda text: "\n".join(text.splitlines()[:-1]),
            "gyro_y_train.txt has 11 lines, and y_train.txt has 12",
        ),
        (SIGNAL, lambda text: "", "gyro_y_train.txt is empty"),
        (SIGNAL, lambda text: "\xff" + text, "gyro_y_train.txt cannot be read"),
        ("test/y_test.txt", _line(2, "7"), "y_test.txt, line 2: 7 is not an activity, 1 to 6"),
        ("test/y_test.txt", _line(2, "2.5"), "y_test.txt, line 2: 2.5 is not an activity"),
        ("test/subject_test.txt", _line(8, "31"), "subject_test.txt, line 8: 31 is not a person"),
        ("test/subject_test.txt", _line(8, "1 1"), "subject_test.txt, line 8: has 2 numbers and must have 1"),
    ],
)
def test_broken_signals_are_named(tmp_path: Path, file: str, change: Any, says: str) -> None:
    har(tmp_path)
    path = tmp_path / file
    path.write_text(change(path.read_text()), "latin-1")
    with pytest.raises(DataError, match=f"path: .*{says}"):
        population(UciHarOptions(path=str(tmp_path)))


def test_folder_without_signals_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"path: .*y_train.txt cannot be read"):
        population(UciHarOptions(path=str(tmp_path)))
    (tmp_path / "har.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"har.zip is neither the folder .* Unpack the zip"):
        population(UciHarOptions(path=str(tmp_path / "har.zip")))


def test_published_windows_are_read() -> None:
    path = shared_data("activity_uci_har/uci_har_windows_25hz_int16.npz")
    p = population(UciHarOptions(path=str(path)))
    assert p.test is not None
    assert p.validation is not None
    assert (p.num_clients, len(p.test)) == (21, 2947)  # as published: 21 people, 7,352 windows; 9 people, 2,947
    assert p.num_examples + len(p.validation) == 7352
    assert not {p.federation.client_name(k) for k in range(21)} & set(map(str, TEST_SUBJECTS))
    x = p.test.features.numpy()
    assert 0.5 < x.std(axis=(0, 1)).min() < x.std(axis=(0, 1)).max() < 1.5
    lying = p.test.targets.numpy() == 5
    gravity = x[..., 6].mean(axis=1) * CHANNELS[6].deviation + CHANNELS[6].mean  # along the body, in g
    assert np.median(gravity[lying]) < 0.4
    assert np.median(gravity[~lying]) > 0.9


# N-BaIoT: three devices of eight columns, one without Mirai

COLUMNS = [f"MI_dir_L{i}_weight" for i in range(8)]
DEVICES = ("Danmini_Doorbell", "Ecobee_Thermostat", "Ennio_Doorbell")
ROWS = 40


def traffic(folder: Path) -> dict[tuple[str, str], np.ndarray]:
    """The published folders; rows (ROWS, 8) by device and class. Every number tells the device, class and row."""
    written = {}
    for d, device in enumerate(DEVICES):
        for c, name in enumerate(CLASSES):
            family, _, attack = name.partition(" ")
            if device.startswith("Ennio") and family == "mirai":
                continue
            file = folder / device / (f"{family}_attacks/{attack}.csv" if attack else "benign_traffic.csv")
            file.parent.mkdir(parents=True, exist_ok=True)
            values = 1e4 * d + 1e2 * c + np.arange(ROWS)[:, None] + np.arange(8) / 10
            lines = [",".join(COLUMNS), *(",".join(map(str, row)) for row in values.tolist())]
            file.write_text("\n".join(lines) + "\n")
            written[device, name] = values
    return written


def test_devices_are_clients(tmp_path: Path) -> None:
    written = traffic(tmp_path)
    given = {"scale": "none", "validation_fraction": 0.0, "test_fraction": 0.0, "classes": 11}
    p = population(NBaiotOptions(path=str(tmp_path), **given))
    assert [p.federation.client_name(k) for k in range(3)] == list(DEVICES)
    assert (p.feature_shape, p.outputs, p.sizes.tolist()) == ((8,), 11, [11 * ROWS, 11 * ROWS, 6 * ROWS])
    for k, device in enumerate(DEVICES):
        one = p.cohort(np.array([k])).client(0)
        for c, name in enumerate(CLASSES):
            rows = one.features[one.targets == c].numpy()
            np.testing.assert_allclose(rows, written.get((device, name), np.empty((0, 8))), rtol=1e-6)
    three = population(NBaiotOptions(path=str(tmp_path), **{**given, "classes": 3}))
    two = population(NBaiotOptions(path=str(tmp_path), **{**given, "classes": 2}))
    clients = np.arange(3)
    assert three.clients.label_counts is not None
    assert two.clients.label_counts is not None
    assert three.clients.label_counts(clients).tolist() == [[ROWS, 5 * ROWS, 5 * ROWS]] * 2 + [[ROWS, 5 * ROWS, 0]]
    assert two.clients.label_counts(clients).tolist() == [[ROWS, 10 * ROWS]] * 2 + [[ROWS, 5 * ROWS]]
    some = population(NBaiotOptions(path=str(tmp_path), devices=("Ennio_Doorbell",), **given))
    assert [some.federation.client_name(0), some.num_clients] == ["Ennio_Doorbell", 1]
    np.testing.assert_array_equal(everything(some)[0], p.cohort(np.array([2])).client(0).features)


def test_rows_are_chosen_by_seed_and_nested(tmp_path: Path) -> None:
    traffic(tmp_path)

    def rows(count: int, seed: int = 0, **more: Any) -> set[float]:
        given = {"scale": "none", "validation_fraction": 0.0, "test_fraction": 0.0, **more}
        return set(
            everything(population(NBaiotOptions(path=str(tmp_path), rows_per_file=count, **given), seed=seed))[0][:, 0]
        )

    few, more = rows(5), rows(12)
    assert (len(few), len(more)) == (28 * 5, 28 * 12)
    assert few < more
    assert few == rows(5)
    assert few != rows(5, seed=1)
    assert rows(5, devices=("Ecobee_Thermostat",)) < few  # other devices that are read change nothing
    by_file = {(x // 100): 0 for x in few}
    assert len(by_file) == 28
    offsets = {tuple(sorted(x % 100 for x in few if x // 100 == f)) for f in by_file}
    assert len(offsets) > 20  # each file has its own choice of rows


def test_shares_of_a_device_become_clients(tmp_path: Path) -> None:
    traffic(tmp_path)
    options = NBaiotOptions(path=str(tmp_path), clients_per_device=4, validation_fraction=0.0, test_fraction=0.0)
    p = population(options)
    assert p.num_clients == 12
    assert p.federation.client_name(0) == "Danmini_Doorbell 0"
    assert p.sizes.tolist() == [110] * 8 + [60] * 4
    assert p.clients.label_counts is not None
    assert (p.clients.label_counts(np.arange(12)) > 0).all()
    assert population(options, NaturalOptions(key="device")).num_clients == 3
    assert population(options, NaturalOptions(key="attack")).num_clients == 11
    assert population(options, DirichletOptions(clients=5, concentration=1.0)).num_clients == 5


def test_features_are_scaled_by_training_statistics(tmp_path: Path) -> None:
    raw = np.concatenate(list(traffic(tmp_path).values()))
    for scale, change in (("linear", lambda x: x), ("log", lambda x: np.sign(x) * np.log1p(np.abs(x)))):
        given: Any = {"path": str(tmp_path), "scale": scale, "classes": 11}
        whole, _ = everything(population(NBaiotOptions(validation_fraction=0.0, test_fraction=0.0, **given)))
        wanted = np.sort(change(raw), axis=0)
        np.testing.assert_allclose(np.sort(whole, axis=0), (wanted - wanted.mean(0)) / wanted.std(0), atol=1e-5)
        p = population(NBaiotOptions(**given))
        trained, _ = everything(p)
        np.testing.assert_allclose(trained.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(trained.std(axis=0), 1, rtol=1e-5)
        assert p.test is not None
        assert abs(float(p.test.features.mean())) > 1e-4  # and not by test examples


def _file(name: str, change: Any) -> Any:
    def broken(folder: Path) -> None:
        path = folder / "Ecobee_Thermostat" / name
        path.write_text(change(path.read_text()))

    return broken


BENIGN = "benign_traffic.csv"


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (
            _file(BENIGN, lambda t: t[:-30]),
            r"benign_traffic.csv, line 41: has \d columns and must have 8. Is the downl",
        ),
        (_file(BENIGN, _line(20, "1,2,3")), "benign_traffic.csv, line 20: has 3 columns and must have 8"),
        (_file(BENIGN, lambda t: _line(9, "1" + ",2" * 8)(_line(8, "1" + ",2" * 6)(t))), "line 8: has 7 columns"),
        (
            _file(BENIGN, _line(20, "1,2,3,four,5,6,7,8")),
            "line 20, column 'MI_dir_L3_weight': 'four' is not a finite n",
        ),
        (_file(BENIGN, _line(20, "1,2,,4,5,6,7,8")), "line 20, column 'MI_dir_L2_weight': '' is not a finite number"),
        (_file(BENIGN, _line(20, "1,2,inf,4,5,6,7,8")), "line 20, column 'MI_dir_L2_weight': 'inf' is not"),
        (_file(BENIGN, lambda t: ""), "benign_traffic.csv is empty"),
        (_file(BENIGN, lambda t: t.splitlines()[0] + "\n"), "benign_traffic.csv holds no rows"),
        (
            _file("mirai_attacks/ack.csv", lambda t: t.replace("L3_w", "L9_w")),
            "ack.csv and .*differ in column 'MI_dir_L9",
        ),
        (
            _file("mirai_attacks/ack.csv", lambda t: _line(1, ",".join(reversed(COLUMNS)))(t)),
            "ack.csv and .*have their columns in another order",
        ),
    ],
)
def test_broken_traffic_is_named(tmp_path: Path, broken: Any, says: str) -> None:
    traffic(tmp_path)
    broken(tmp_path)
    with pytest.raises(DataError, match=f"path: .*{says}"):
        population(NBaiotOptions(path=str(tmp_path)))


def test_unexpected_folders_are_named(tmp_path: Path) -> None:
    traffic(tmp_path)
    device = tmp_path / "Ecobee_Thermostat"
    with pytest.raises(DataError, match=r"devices: 'Ecobee' is not a device.*Nearest: 'Ecobee_Thermostat'"):
        population(NBaiotOptions(path=str(tmp_path), devices=("Ecobee",)))
    (device / "mirai_attacks" / "syn.csv").unlink()
    with pytest.raises(DataError, match=r"mirai_attacks has no syn.csv"):
        population(NBaiotOptions(path=str(tmp_path)))
    (device / "mirai_attacks").rename(device / "elsewhere")
    (device / "mirai_attacks.rar").write_bytes(b"Rar!")
    with pytest.raises(DataError, match=r"mirai_attacks.rar is packed.*Unpack it into"):
        population(NBaiotOptions(path=str(tmp_path)))
    with pytest.raises(DataError, match=r"has no folder with a benign_traffic.csv; it holds benign_traffic.csv"):
        population(NBaiotOptions(path=str(device)))
    with pytest.raises(DataError, match=r"benign_traffic.csv is a file, and must be the folder"):
        population(NBaiotOptions(path=str(device / "benign_traffic.csv")))


def test_line_endings_of_other_systems_are_read(tmp_path: Path) -> None:
    """A file with carriage returns, empty last lines or no last line end reads like the plain file."""
    traffic(tmp_path)
    given = {"devices": ("Ennio_Doorbell",), "rows_per_file": 10}
    before = everything(population(NBaiotOptions(path=str(tmp_path), **given)))
    for family in ("gafgyt_attacks/combo.csv", "gafgyt_attacks/scan.csv", BENIGN):
        path = tmp_path / "Ennio_Doorbell" / family
        text = path.read_bytes()
        end = {"combo": text[:-1], "scan": text + b"\n\n"}.get(path.stem, text.replace(b"\n", b"\r\n"))
        path.write_bytes(end)
    after = everything(population(NBaiotOptions(path=str(tmp_path), **given)))
    np.testing.assert_array_equal(before[0], after[0])


def test_eleven_classes_follow_the_order_of_their_labels() -> None:
    assert len(CLASSES) == 11
    assert CLASSES.index("mirai ack") == 1 + len(FAMILIES["gafgyt"])


# Both


@pytest.mark.parametrize(
    ("options", "page"),
    [
        (UciHarOptions(), "https://archive.ics.uci.edu/dataset/240"),
        (NBaiotOptions(), "https://archive.ics.uci.edu/dataset/442"),
    ],
)
def test_missing_examples_file_names_its_source(
    options: Any, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as error:
        population(options)
    assert error.value.field == "path"
    for text in (page, "licence: CC BY 4.0", "not downloaded for you", f"Put it at {tmp_path / options.path}"):
        assert text in str(error.value)


@pytest.mark.parametrize(
    ("make", "options", "says"),
    [
        (UciHarOptions, {"test_fraction": 0.2}, "test_fraction: is for test = 'windows'"),
        (UciHarOptions, {"client_test_fraction": 1.0}, "client_test_fraction: must be at least 0"),
        (NBaiotOptions, {"rows_per_file": 0}, "rows_per_file: must be at least 1"),
        (NBaiotOptions, {"clients_per_device": 0}, "clients_per_device: must be at least 1"),
        (NBaiotOptions, {"test_fraction": 0.95}, "validation_fraction: validation and test together must be below 1"),
    ],
)
def test_wrong_example_options_are_refused(make: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        make(**options)


def test_files_are_surveyed_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traffic(tmp_path)
    options = NBaiotOptions(path=str(tmp_path), rows_per_file=9)
    whole, _ = everything(population(options))
    monkeypatch.setattr(sampled_rows, "_BLOCK", 7)
    np.testing.assert_array_equal(everything(population(options))[0], whole)
    _file(BENIGN, _line(20, "1,2,3"))(tmp_path)
    with pytest.raises(DataError, match="line 20: has 3 columns and must have 8"):
        population(options)
