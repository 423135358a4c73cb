"""The identity of data: which files each kind of data reads, and how different contents are recognised."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from clients.federation.data_kinds import DATA
from simulator.scenario.data_files import MOST_FILES, DataFiles, data_changes, data_digest, data_files
from simulator.scenario.sections import Scenario, load_scenario


def scenario_of(path: Path | str, **data: Any) -> Scenario:
    table = {"kind": "images", "path": str(path), **data}
    return load_scenario({"data": table, "partition": {"kind": "iid", "clients": 2}, "model": {"kind": "softmax"}})


def table_of(path: Path | str, **data: Any) -> Scenario:
    columns = {"task": "classification", "target": "y", **data}
    return load_scenario({"data": {"kind": "table", "path": str(path), **columns}, "model": {"kind": "softmax"}})


def written(*files: Path, text: str = "x,y\n1,a\n") -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def names(scenario: Scenario) -> list[str]:
    found = data_files(scenario)
    assert found is not None
    return list(found.files)


def test_data_without_files_have_no_digest() -> None:
    assert data_digest(load_scenario("digits-iid")) == ""
    assert data_digest(load_scenario("city-traffic", sets=["run.rounds=3"])) == ""


def test_changed_contents_show_with_equal_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    written(file)
    before, times = data_digest(table_of(file)), file.stat()
    file.write_text("x,y\n2,a\n")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file.stat().st_mtime_ns == times.st_mtime_ns
    assert data_digest(table_of(file)) != before
    file.write_text("x,y\n1,a\n")
    assert data_digest(table_of(file)) == before, "the same contents are the same data, whenever they were written"


def test_digest_is_that_of_names_and_contents_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("here", "there"):
        written(tmp_path / place / "air" / "a.csv", tmp_path / place / "air" / "b.csv")
    found = []
    for place in ("here", "there"):
        monkeypatch.chdir(tmp_path / place)
        found.append([data_digest(table_of(path)) for path in ("air", "air/*.csv", "air/a.csv")])
    assert found[0] == found[1]
    (tmp_path / "there" / "air" / "b.csv").rename(tmp_path / "there" / "air" / "c.csv")
    renamed = [data_digest(table_of(path)) for path in ("air", "air/*.csv", "air/a.csv")]
    assert [now == was for now, was in zip(renamed, found[1], strict=True)] == [False, False, True]


def test_table_has_the_files_that_are_read(tmp_path: Path) -> None:
    written(*(tmp_path / name for name in ("a.csv", "b.csv", ".hidden.csv", "notes.md", "inner/c.csv")))
    assert names(table_of(tmp_path)) == ["a.csv", "b.csv"]
    assert names(table_of(tmp_path / "**" / "*.csv")) == ["a.csv", "b.csv", "inner/c.csv"]
    assert names(table_of(tmp_path / "a.csv")) == ["a.csv"]
    written(tmp_path / "leaf" / "train" / "1.json", tmp_path / "leaf" / "test" / "1.json", text="{}")
    assert names(table_of(tmp_path / "leaf", layout="leaf", target="")) == ["test/1.json", "train/1.json"]


def test_images_have_the_labels_beside_them(tmp_path: Path) -> None:
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    written(images, labels, tmp_path / "x.npz")
    assert names(scenario_of(images)) == [images.name, labels.name]
    assert names(scenario_of(tmp_path / "x.npz")) == ["x.npz"]
    assert names(scenario_of(tmp_path)) == [images.name, labels.name, "x.npz"]


def test_published_sets_have_the_files_of_their_folders(tmp_path: Path) -> None:
    def of(kind: str, path: Path, **more: Any) -> list[str]:
        return names(load_scenario({"data": {"kind": kind, "path": str(path), **more}, "model": {"kind": "softmax"}}))

    har, devices, hub = tmp_path / "har", tmp_path / "devices", tmp_path / "hub"
    written(har / "train" / "y_train.txt", har / "test" / "y_test.txt", har / ".DS_Store")
    assert of("uci_har", har) == ["test/y_test.txt", "train/y_train.txt"]
    written(devices / "door" / "benign_traffic.csv", devices / "door" / "mirai_attacks.rar")
    assert of("n_baiot", devices) == ["door/benign_traffic.csv"]
    written(hub / "state.json", hub / "data.arrow", hub / "cache-1f.arrow")
    columns = {"features": "x", "label": "y"}
    assert of("huggingface", hub, **columns) == ["data.arrow", "state.json"], "the package writes its caches there"
    power = tmp_path / "power" / "household_power_consumption.txt"
    written(power)
    assert of("household_power", power) == of("household_power", power.parent) == [power.name]


def test_link_into_its_own_folder_is_followed_once(tmp_path: Path) -> None:
    written(tmp_path / "set" / "a.txt")
    (tmp_path / "set" / "again").symlink_to(tmp_path / "set")
    assert names(load_scenario({"data": {"kind": "uci_har", "path": str(tmp_path / "set")}})) == ["a.txt"]


def test_every_kind_with_a_path_states_its_files(tmp_path: Path) -> None:
    """A new kind of data that reads files has to say which."""
    base = DATA["digits"].options().files.__func__  # type: ignore[attr-defined]
    for kind, row in DATA.items():
        reads = "path" in {field for cls in row.options.__mro__ for field in getattr(cls, "__annotations__", ())}
        assert reads == (row.options.files is not base), kind


def test_missing_files_have_no_digest(tmp_path: Path) -> None:
    assert data_files(table_of(tmp_path / "gone.csv")) is None
    assert data_files(table_of(tmp_path / "*.csv")) is None


def test_changes_name_the_files(tmp_path: Path) -> None:
    written(*(tmp_path / f"{name}.csv" for name in "abc"))
    before = data_files(table_of(tmp_path))
    assert before is not None
    assert data_changes(before.facts(), before) == ""
    (tmp_path / "a.csv").write_text("x,y\n3,b\n")
    (tmp_path / "b.csv").unlink()
    written(tmp_path / "d.csv", tmp_path / "e.csv")
    words = data_changes(before.facts(), data_files(table_of(tmp_path)))
    assert words == (
        f"{tmp_path}/a.csv has changed; {tmp_path}/d.csv, {tmp_path}/e.csv are new; {tmp_path}/b.csv is gone"
    )
    assert data_changes(None, before) == ""
    assert data_changes(before.facts(), None) == ""


def test_many_files_have_a_joint_digest_alone(tmp_path: Path) -> None:
    written(*(tmp_path / f"{k}.csv" for k in range(MOST_FILES + 1)))
    found = data_files(table_of(tmp_path))
    assert found is not None
    assert found.files == {}
    other = DataFiles(found.path, "0", {})
    assert data_changes(other.facts(), found) == f"files of {tmp_path} have changed"
