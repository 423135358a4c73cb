"""Thousands of sensors are read in seconds, and their number does not enter twice."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from table_files import written

from clients.federation.data_kinds import build_population
from clients.tables.options import TableOptions

ROWS = 40


def table(folder: Path, layout: str, sensors: int) -> TableOptions:
    values = np.random.default_rng(0).normal(50, 10, (ROWS, sensors)).round(2)
    times = [str(np.datetime64("2024-03-01T00:00") + np.timedelta64(i, "h")).replace("T", " ") for i in range(ROWS)]
    names = [f"s{k}" for k in range(sensors)]
    if layout == "wide":
        rows = [",".join([t, *map(str, v)]) for t, v in zip(times, values.tolist(), strict=True)]
        written(folder, "\n".join([",".join(["time", *names]), *rows]))
        return TableOptions(path=str(folder), window=4)
    if layout == "long":
        rows = [f"{t},{n},{x}" for t, v in zip(times, values.tolist(), strict=True)
                for n, x in zip(names, v, strict=True)]  # fmt: skip
        written(folder, "\n".join(["time,id,v", *rows]))
        return TableOptions(path=str(folder), window=4, layout="long", id_column="id", target="v")
    for name, column in zip(names, values.T.tolist(), strict=True):
        rows = [f"{t},{x}" for t, x in zip(times, column, strict=True)]
        written(folder, "\n".join(["time,v", *rows]), f"{name}.csv")
    return TableOptions(path=str(folder), window=4, layout="files", target="v")


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["wide", "long", "files"])
def test_four_thousand_sensors_are_read_in_seconds(tmp_path: Path, layout: str) -> None:
    options = table(tmp_path, layout, 4000)
    began = time.process_time()
    population = build_population(options, None, seed=0)
    assert population.clients.hours is not None
    hours = population.clients.hours(np.arange(4000))
    assert time.process_time() - began < 2.5  # half a second; 4.5 s with steps that are quadratic in the sensors
    assert len(hours) == population.sizes.sum() == 4000 * 24


@pytest.mark.parametrize("layout", ["wide", "long", "files"])
def test_layouts_give_the_same_clients(tmp_path: Path, layout: str) -> None:
    population = build_population(table(tmp_path, layout, 12), None, seed=0)
    names = sorted(population.federation.client_name(k) for k in range(12))
    assert names == sorted(f"s{k}" for k in range(12))
    third = next(k for k in range(12) if population.federation.client_name(k) == "s3")
    values = np.random.default_rng(0).normal(50, 10, (ROWS, 12)).round(2)[:28, 3]
    expected = (values - values.mean()) / values.std()
    features = population.cohort(np.array([third])).client(0).features
    np.testing.assert_allclose(features[:, 0, 0].numpy(), expected[:24], atol=1e-6)
