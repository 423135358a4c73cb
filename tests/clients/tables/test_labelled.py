"""Labelled rows of tables: roles of columns, clients, missing values, splits, partitions, faults, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from clients.core.errors import DataError, PartitionError, UserError
from clients.core.population import Population
from clients.faults.label_options import LabelSymmetricOptions
from clients.faults.sensor_options import NoiseOptions
from clients.federation.build import Federation, build_federation
from clients.federation.data_kinds import build_population
from clients.partition.options import DirichletOptions, IidOptions, NaturalOptions
from clients.tables.options import TableOptions

TOWNS = """\
,town,size,colour,when,label
0,b,1,red,2024-01-01,yes
1,a,3,blue,2024-01-02,no
2,b,5,red,2024-01-03,no
3,a,7,green,2024-01-04,yes
"""


SITES = "site,x,label\n" + "".join(f"{s},{i},{'uv'[i % 2]}\n" for i in range(20) for s in ("007", "7"))


def write(folder: Path, text: str, name: str = "x.csv") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return str(folder / name)


def options(path: object, **changes: Any) -> TableOptions:
    given_options: dict[str, Any] = {"path": str(path), "task": "classification", "target": "label"}
    return TableOptions(**given_options | changes)


def whole(path: object, **changes: Any) -> TableOptions:
    """Return options that hold nothing out."""
    return options(path, validation_fraction=0.0, test_fraction=0.0, **changes)


def read(table: TableOptions, partition: Any = None, seed: int = 0) -> Population:
    return build_population(table, partition, seed=seed, dtype=torch.float64)


def names(population: Population) -> list[str]:
    return [population.federation.client_name(k) for k in range(population.num_clients)]


def rows_of(population: Population, k: int) -> list[list[float]]:
    return [list(map(float, row)) for row in population.cohort(np.array([k])).client(0).features]


def notices(population: Population) -> str:
    return "\n".join(population.federation.notices)


def test_column_names_the_clients_and_the_other_columns_are_features(tmp_path: Path) -> None:
    population = read(whole(write(tmp_path, TOWNS), id_column="town", scale="none"))
    assert names(population) == ["a", "b"]
    assert [c.name for c in population.spec.channels] == ["size", "colour=blue", "colour=green", "colour=red"]
    assert rows_of(population, 0) == [[3, 1, 0, 0], [7, 0, 1, 0]]
    assert rows_of(population, 1) == [[1, 0, 0, 1], [5, 0, 0, 1]]
    assert population.cohort(np.array([1])).client(0).targets.tolist() == [1, 0]
    record = population.federation.record
    assert (record["classes"], record["features"]) == ("no, yes", "size, colour=blue, colour=green, colour=red")
    text = notices(population)
    assert "features: 1 of numbers (size), 1 of categories (colour)" in text
    assert "no features: label (the label), town (the client), '' (counts the rows), when (a time)" in text
    assert "classes of 'label' with their rows: 0 = no (2), 1 = yes (2)" in text


def test_clients_and_columns_can_be_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, TOWNS)
    for chosen in ({"exclude": ("a", "colour")}, {"clients": ("b",), "exclude": ("colour",)}):
        population = read(whole(path, id_column="town", scale="none", **chosen))
        assert names(population) == ["b"]
        assert rows_of(population, 0) == [[1], [5]]
    with pytest.raises(DataError, match=r"'colours' is not a column or a client. Nearest: 'colour'"):
        read(whole(path, id_column="town", exclude=("colours",)))
    with pytest.raises(DataError, match="clients: names clients, and a partition deals the rows out"):
        read(whole(path, clients=("a",)), IidOptions(clients=2))


def test_chosen_features_keep_their_order(tmp_path: Path) -> None:
    population = read(whole(write(tmp_path, TOWNS), id_column="town", features=("colour", "size")))
    assert [c.name for c in population.spec.channels][-1] == "size"


def test_numbers_can_be_categories(tmp_path: Path) -> None:
    path = write(tmp_path, "zip,x,label\n01067,1,a\n10115,2,b\n01067,3,a\n")
    population = read(whole(path, categorical=("zip",)), IidOptions(clients=1))
    assert [c.name for c in population.spec.channels] == ["zip=01067", "zip=10115", "x"]
    with pytest.raises(DataError, match="is not a column"):
        read(whole(path, categorical=("y",)), IidOptions(clients=1))


def test_each_file_can_be_a_client(tmp_path: Path) -> None:
    for name, rows in (("north", "1,a\n2,b\n"), ("south", "4,a\n")):
        write(tmp_path / "towns", f"x,label\n{rows}", f"{name}.csv")
    population = read(whole(tmp_path / "towns", layout="files", scale="none"))
    assert names(population) == ["north", "south"]
    assert [rows_of(population, k) for k in range(2)] == [[[1], [2]], [[4]]]
    write(tmp_path / "towns", "x,other,label\n1,2,a\n", "west.csv")
    with pytest.raises(DataError, match=r"west.csv and .*north.csv differ in column 'other'"):
        read(whole(tmp_path / "towns", layout="files"))


def test_dialect_of_the_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("größe;stadt;label\n1,5;Köln;a\n2,5;Bonn;b\n".encode("latin-1"))
    population = read(whole(tmp_path / "x.csv", id_column="stadt", scale="none"))
    assert names(population) == ["Bonn", "Köln"]
    assert rows_of(population, 1) == [[1.5]]


def test_dialect_keys_say_how_the_file_is_written(tmp_path: Path) -> None:
    path = write(tmp_path, "# from the ward\nx|c|label\n1.234,5|?|yes\n2,5|b|no\n")
    dialect = {"delimiter": "|", "decimal": ",", "thousands": ".", "comment": "#", "missing": ("?",)}
    population = read(whole(path, gaps="mean", scale="none", **dialect), IidOptions(clients=1))
    assert [c.name for c in population.spec.channels] == ["x", "c=b", "c=missing"]
    assert sorted(rows_of(population, 0)) == [[2.5, 1, 0], [1234.5, 0, 1]]
    assert "read as: 1 file, '|', utf-8, decimal ','" in notices(population)


def test_spaces_around_categories_are_no_part_of_them(tmp_path: Path) -> None:
    population = read(whole(write(tmp_path, "c, label\n a, yes\na, no\n")), IidOptions(clients=1))
    assert [c.name for c in population.spec.channels] == ["c=a"]
    assert population.federation.record["classes"] == "no, yes"


def test_types_of_parquet_are_kept(tmp_path: Path) -> None:
    columns = {
        "x": pa.array([0.5, 2.5, 1.5]),
        "list": pa.array([[1, 2]] * 3),
        "day": pa.array(np.arange(3).astype("M8[D]")),
        "c": pa.array(["u", None, "v"]).dictionary_encode(),
        "label": pa.array([True, False, True]),
    }
    parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    population = read(whole(tmp_path / "x.parquet", gaps="mean"), IidOptions(clients=1))
    assert [c.name for c in population.spec.channels] == ["x", "c=u", "c=v", "c=missing"]
    assert population.federation.record["classes"] == "false, true"
    assert "list (lists), day (a time)" in notices(population)
    with pytest.raises(DataError, match="features: names 'list', which holds lists"):
        read(whole(tmp_path / "x.parquet", features=("list",)), IidOptions(clients=1))
    with pytest.raises(DataError, match="column 'day' is a time"):
        read(whole(tmp_path / "x.parquet", features=("day",)), IidOptions(clients=1))


def test_duration_called_time_is_a_feature_and_seconds_since_1970_are_not(tmp_path: Path) -> None:
    path = write(tmp_path, "x,time,ts,label\n1,4,1700000000,a\n2,250,1700003600,b\n")
    population = read(whole(path), IidOptions(clients=1))
    assert [c.name for c in population.spec.channels] == ["x", "time"]
    assert "ts (a time)" in notices(population)


GAPS = "town,x,c,label\na,1,red,yes\na,,red,no\nb,3,,yes\nb,5,red,\na,5,blue,no\n"


def test_missing_value_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(whole(write(tmp_path, GAPS), id_column="town"))
    assert caught.value.field == "gaps"
    assert "x.csv, line 3, column 'x': the value is missing (3 rows have missing values)" in caught.value.problem
    assert "'drop'" in caught.value.fix


def test_rows_with_missing_values_are_dropped_and_counted(tmp_path: Path) -> None:
    population = read(whole(write(tmp_path, GAPS), id_column="town", gaps="drop", scale="none"))
    assert names(population) == ["a"]
    assert rows_of(population, 0) == [[1, 0, 1], [5, 1, 0]]
    assert "3 of 5 rows dropped for missing values: label 1, x 1, c 1" in notices(population)


def test_missing_values_are_filled_by_training_rows(tmp_path: Path) -> None:
    population = read(whole(write(tmp_path, GAPS), id_column="town", gaps="mean", scale="none"))
    assert [c.name for c in population.spec.channels] == ["x", "c=blue", "c=red", "c=missing"]
    assert rows_of(population, 0)[1] == [3, 0, 1, 0]
    assert rows_of(population, 1) == [[3, 0, 0, 1]]
    text = notices(population)
    assert "1 of 5 rows dropped for missing values: label 1" in text
    assert "1 of 'x' by the training mean 3; 1 of 'c' by the category 'missing'" in text


def test_mark_of_a_missing_value_among_numbers_is_refused_with_the_fix(tmp_path: Path) -> None:
    path = write(tmp_path, "x,label\n1,a\n2,b\n-,a\n")
    with pytest.raises(DataError) as caught:
        read(whole(path), IidOptions(clients=1))
    assert "line 4, column 'x': '-' is not a number" in caught.value.problem
    assert "missing" in caught.value.fix


def test_id_among_features_is_refused_by_the_number_of_categories(tmp_path: Path) -> None:
    rows = "".join(f"p{i},{i % 7},{i % 2}\n" for i in range(150))
    path = write(tmp_path, f"patient,x,label\n{rows}")
    with pytest.raises(DataError, match=r"column 'patient' has 150 categories.* add 'patient' to exclude"):
        read(whole(path), IidOptions(clients=2))
    assert read(whole(path, exclude=("patient",)), IidOptions(clients=2)).feature_shape == (1,)
    numbers = write(tmp_path, f"patient,x,label\n{rows.replace('p', '9')}", "n.csv")
    assert "'patient' has a different whole number in each row" in notices(read(whole(numbers), IidOptions(clients=2)))


def test_split_column_names_the_parts(tmp_path: Path) -> None:
    path = write(tmp_path, "town,part,x,label\na,train,1,p\na,test,2,q\nb,train,3,q\nc,test,9,p\na,val,5,p\n")
    population = read(options(path, id_column="town", split_column="part", scale="none"))
    assert population.sizes.tolist() == [1, 1, 0]
    assert population.validation is not None
    assert population.validation.features.tolist() == [[5]]
    assert population.test is not None
    assert population.test.features.tolist() == [[2], [9]]
    assert "split by column 'part': 2 training, 1 validation, 2 test rows" in notices(population)
    assert "clients without a training row, which never train: c" in notices(population)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(-20, 20), st.integers(0, 2)), min_size=4, max_size=60),
    st.integers(0, 5),
    st.booleans(),
)
def test_every_row_is_in_one_place_with_its_label(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int]], seed: int, dealt: bool
) -> None:
    rows = [*rows, (0, 1, 0), (1, 2, 1)]
    text = "".join(f"k{k},{x},{i},c{y}\n" for i, (k, x, y) in enumerate(rows))
    path = write(tmp_path_factory.mktemp("t"), f"town,x,row,label\n{text}")
    table = options(path, id_column="town", scale="none", features=("x", "row"))
    population = read(table, IidOptions(clients=2) if dealt else None, seed)
    everyone = population.cohort(np.arange(population.num_clients))
    places = torch.from_numpy(everyone.rows)
    found = [(everyone.features[places], everyone.targets[places])]
    found += [(p.features, p.targets) for p in (population.validation, population.test) if p is not None]
    classes = str(population.federation.record["classes"]).split(", ")
    back = {
        int(row): (int(x), classes[int(y)])
        for features, targets in found
        for (x, row), y in zip(features.tolist(), targets.tolist(), strict=True)
    }
    assert back == {i: (x, f"c{y}") for i, (_, x, y) in enumerate(rows)}
    assert sum(len(f) for f, _ in found) == len(rows)
    if not dealt:
        owners = np.repeat(np.arange(population.num_clients), everyone.sizes)
        held = [rows[int(row)][0] for row in everyone.features[places, 1].tolist()]
        assert [names(population)[k] for k in owners] == [f"k{k}" for k in held]


def table_of(folder: Path, rows: int = 400) -> str:
    """Write rows whose label depends on x and c."""
    random = np.random.default_rng(0)
    x, c = random.normal(10, 5, rows), random.integers(0, 2, rows)
    label = np.where(x + 4 * c + random.normal(0, 1, rows) > 12, "high", "low")
    lines = [f"site {i % 5},{v:.3f},{'ab'[k]},{y}" for i, (v, k, y) in enumerate(zip(x, c, label, strict=True))]
    return write(folder, "site,x,c,label\n" + "\n".join(lines) + "\n")


def test_partition_deals_out_training_rows_and_not_the_test_rows(tmp_path: Path) -> None:
    table = options(table_of(tmp_path), exclude=("site",))
    even = read(table, IidOptions(clients=7))
    skewed = read(table, DirichletOptions(clients=4, concentration=0.3))
    assert even.sizes.sum() == skewed.sizes.sum() == 280
    assert even.test is not None
    assert skewed.test is not None
    assert len(even.test) == 80
    torch.testing.assert_close(even.test.features, skewed.test.features)
    natural = read(options(table.path), NaturalOptions(key="site"))
    assert names(natural) == [f"site {k}" for k in range(5)]
    assert [c.name for c in natural.spec.channels] == ["x", "c=a", "c=b"]


def test_clients_of_a_partition_can_hold_rows_out(tmp_path: Path) -> None:
    table = options(table_of(tmp_path), exclude=("site",), client_test_fraction=0.25)
    population = read(table, IidOptions(clients=7))
    assert population.sizes.tolist() == [30] * 7
    assert population.clients.held_out is not None
    assert population.clients.held_out(np.arange(7)).sizes.tolist() == [10] * 7
    with pytest.raises(DataError, match="client_test_fraction: is for rows that a partition deals out"):
        read(options(table_of(tmp_path), id_column="site", client_test_fraction=0.25))


def test_statistics_come_from_training_rows_alone(tmp_path: Path) -> None:
    population = read(options(table_of(tmp_path), id_column="site"))
    everyone = population.cohort(np.arange(5))
    x = everyone.features[torch.from_numpy(everyone.rows), 0]
    assert float(x.mean()) == pytest.approx(0, abs=1e-6)
    assert float(x.std(correction=0)) == pytest.approx(1, abs=1e-6)
    by_client = read(options(table_of(tmp_path), id_column="site", scale="client"))
    for k in range(5):
        own = by_client.cohort(np.array([k])).client(0).features[:, 0]
        assert float(own.mean()) == pytest.approx(0, abs=1e-6)
        assert float(own.std(correction=0)) == pytest.approx(1, abs=1e-6)


def test_regression_target_is_scaled_and_its_scale_is_recorded(tmp_path: Path) -> None:
    path = write(tmp_path, "town,x,price\na,1,100\na,2,300\nb,3,200\n")
    population = read(whole(path, task="regression", target="price", id_column="town"))
    assert population.task == "regression"
    assert population.federation.record["target_mean"] == 200
    deviation = np.sqrt(20000 / 3)
    targets = population.cohort(np.array([0])).client(0).targets
    np.testing.assert_allclose(targets, np.array([[-100], [100]]) / deviation)
    assert "target 'price' in deviations: mean 200, deviation 81.6497" in notices(population)


def test_label_and_feature_faults_act_on_the_named_columns(tmp_path: Path) -> None:
    table = options(table_of(tmp_path), id_column="site", validation_fraction=0.0, test_fraction=0.0)
    faults: dict[str, Any] = {
        "flip": LabelSymmetricOptions(severity=0.5),
        "noise": NoiseOptions(severity=0.8, channels=("x",)),
    }
    clean = build_federation(Federation(data=table))
    faulty = build_federation(Federation(data=table, faults=faults))
    everyone = np.arange(5)
    before, after = clean.cohort(everyone), faulty.cohort(everyone)
    a, b = before.features[torch.from_numpy(before.rows)], after.features[torch.from_numpy(after.rows)]
    assert not torch.equal(a[:, 0], b[:, 0])
    assert torch.equal(a[:, 1:], b[:, 1:])
    changed = before.targets[torch.from_numpy(before.rows)] != after.targets[torch.from_numpy(after.rows)]
    masks = np.concatenate(faulty.masks(everyone)["flip"])
    np.testing.assert_array_equal(changed.numpy(), masks)
    assert masks.any()
    with pytest.raises(UserError, match=r"'c=a' is not a measured channel. All: x"):
        build_federation(Federation(data=table, faults={"noise": NoiseOptions(severity=0.8, channels=("c=a",))}))


def test_rows_without_clients_need_a_partition(tmp_path: Path) -> None:
    with pytest.raises(PartitionError) as caught:
        read(options(table_of(tmp_path)))
    assert "come without clients" in caught.value.problem
    assert "data.id_column" in caught.value.fix
    with pytest.raises(PartitionError, match="'sites' is not a column"):
        read(options(table_of(tmp_path)), NaturalOptions(key="sites"))
    with pytest.raises(PartitionError, match="names 'x', which holds numbers that are not whole"):
        read(options(table_of(tmp_path)), NaturalOptions(key="x"))
    with pytest.raises(DataError, match="scale: is 'client', and the rows have no clients before the partition"):
        read(options(table_of(tmp_path), scale="client"), IidOptions(clients=2))


def test_empty_key_is_named_as_the_partitions(tmp_path: Path) -> None:
    table = options(write(tmp_path, "k,x,label\na,1,p\n,2,q\n"))
    with pytest.raises(PartitionError, match=r"partition.key: .*x.csv, line 3: column 'k' is empty"):
        build_federation(Federation(data=table, partition=NaturalOptions(key="k")))


def test_forecast_refuses_a_partition(tmp_path: Path) -> None:
    table = TableOptions(path=write(tmp_path, "a,b\n" + "1,2\n" * 40))
    with pytest.raises(PartitionError, match="data 'table' bring their own clients"):
        read(table, IidOptions(clients=2))


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"target": ""}, "target", "must name the column of labels"),
        ({"window": 24}, "window", "is for forecasts, and task is 'classification'"),
        ({"columns": ("a",)}, "columns", "is for forecasts"),
        ({"frequency": "1h"}, "frequency", "is for forecasts"),
        ({"missing_value": 0.0}, "missing_value", "is for forecasts"),
        ({"time_format": "%Y"}, "time_format", "is for forecasts"),
        ({"split_column": "part", "test_fraction": 0.3}, "test_fraction", "has no effect where split_column"),
        ({"layout": "long", "id_column": "a"}, "layout", "'long' is for forecasts"),
        ({"layout": "files", "id_column": "a"}, "id_column", "makes each file a client"),
        ({"gaps": "interpolate"}, "gaps", "'interpolate' is for forecasts"),
        ({"id_column": "label"}, "id_column", "must be different columns"),
        ({"max_categories": 1}, "max_categories", "must be at least 2"),
        ({"task": "forecast", "layout": "files", "gaps": "mean"}, "gaps", "'mean' is for labelled rows"),
        ({"task": "forecast", "layout": "files", "categorical": ("a",)}, "categorical", "is for labelled rows"),
        ({"task": "forecast", "layout": "files", "split_column": "a"}, "split_column", "is for labelled rows"),
    ],
)
def test_key_of_another_task_is_refused(changes: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        options("x.csv", **changes)
    assert caught.value.field == field
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "changes", "words"),
    [
        ("x,label\n1,a\n2,a\n", {}, "target: column 'label' has one class alone, 'a'"),
        (
            "x,label\n1,a\n2,b\n",
            {"task": "regression"},
            "line 2, column 'label': 'a' is not a number.*For labels that are text set task = 'classification'",
        ),
        ("label\na\nb\n", {}, "has no column left to be a feature"),
        ("x,label\n1,a\n2,b\n", {"features": ("label",)}, "features: names 'label', which is the label"),
        ("x,label\n1,a\n2,b\n", {"features": ("y",)}, "features: .*'y' is not a column"),
        ("x,label\n1,a\n2,b\n", {"target": "lable"}, "target: .*'lable' is not a column. Nearest: 'label'"),
        ("t,x,label\n,1,a\nb,2,b\n", {"id_column": "t"}, "id_column: .*line 2: column 't' is empty"),
    ],
)
def test_unusable_table_is_refused_with_the_key_at_fault(
    tmp_path: Path, text: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        read(whole(write(tmp_path, text), **changes), None if "id_column" in changes else IidOptions(clients=1))


def test_names_in_the_key_of_a_partition_keep_their_zeros(tmp_path: Path) -> None:
    table = TableOptions(path=write(tmp_path, SITES), task="classification", target="label")
    population = build_population(table, NaturalOptions(key="site"), seed=0)
    assert names(population) == ["007", "7"]
    assert population.sizes.sum() < 40


def test_numbers_with_leading_zeros_are_named(tmp_path: Path) -> None:
    table = TableOptions(path=write(tmp_path, SITES), task="classification", target="label")
    says = "numbers that begin with a zero: site; add codes such as postcodes to categorical"
    assert says in build_population(table, IidOptions(clients=2), seed=0).federation.notices
    coded = TableOptions(path=table.path, task="classification", target="label", categorical=("site",))
    assert says not in build_population(coded, IidOptions(clients=2), seed=0).federation.notices
