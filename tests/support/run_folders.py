"""Comparison of run folders: two runs are equal where only the clock and the folder's name differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from server.record.checked.line_files import read_rounds
from server.record.client_table import read_clients
from server.record.jsonlines import to_json
from server.record.records import RunFolder
from server.rounds.loop import BY_THE_CLOCK
from simulator.cli.exit_codes import EXIT_MISTAKE
from simulator.cli.main import main
from simulator.runs.record import open_run
from simulator.scenario.sections import Scenario, load_scenario

Capture = pytest.CaptureFixture[str]

DIGITS = (
    "partition.clients=8",
    "partition.concentration=0.5",
    "model.hidden=[16]",
    "local.local_epochs=1",
    "algorithm.cohort=4",
    "evaluation.baselines=false",
    "evaluation.federated_every=3",
    "convergence.stop=never",
    "engine.kind=stacked",
    "engine.tile=4",
    "engine.compile=never",
    "engine.threads=1",
    "engine.workers=1",
    "run.rounds=8",
)
"""A small federation on real digits, a few milliseconds a round."""


def digits(*sets: str) -> Scenario:
    """Return the small federation, changed as by `--set`; each key is set once, so no notice says that it was twice."""
    last = {change.partition("=")[0]: change for change in (*DIGITS, *sets)}
    return load_scenario("digits-label-skew", sets=list(last.values()))


def recorded(path: Path) -> list[str]:
    """Return the lines of rounds.jsonl without the keys of the clock."""
    lines, truncated = read_rounds(RunFolder(path).rounds)
    assert not truncated
    return [to_json({k: v for k, v in line.items() if k not in BY_THE_CLOCK}) for line in lines]


def client_rows(path: Path) -> Mapping[str, Any]:
    """Return the columns of clients/ as arrays."""
    table = read_clients(RunFolder(path).clients)
    return {name: table[name].to_numpy() for name in table.column_names}


def assert_same_run(one: Path, other: Path, *, timed: bool = False) -> None:
    """Assert that two finished runs left the same model, the same rounds, clients and outcome, to the bit.

    Args:
        one: a run's folder.
        other: likewise.
        timed: whether engines may have been chosen by timing, because the test decides what the times are.
    """
    for path in () if timed else (one, other):
        assert_engine_is_named(path)
    assert recorded(one) == recorded(other)
    assert RunFolder(one).model.read_bytes() == RunFolder(other).model.read_bytes()
    assert RunFolder(one).best_model.is_file() == RunFolder(other).best_model.is_file()
    if RunFolder(one).best_model.is_file():
        assert RunFolder(one).best_model.read_bytes() == RunFolder(other).best_model.read_bytes()
    rows, expected = client_rows(one), client_rows(other)
    assert rows.keys() == expected.keys()
    for name, column in expected.items():
        np.testing.assert_array_equal(rows[name], column, err_msg=name)
    outcomes = [RunFolder(path).read_outcome() for path in (one, other)]
    assert outcomes[0] is not None
    assert outcomes[1] is not None
    own = ("record",)
    assert to_json({k: v for k, v in outcomes[0].items() if k not in own}) == to_json(
        {k: v for k, v in outcomes[1].items() if k not in own}
    )


def assert_engine_is_named(path: Path) -> None:
    """Assert that nothing of a run's engine was left to be timed: another choice has other bits on a busy machine."""
    engine = load_scenario(path / "scenario.toml").engine
    named = engine.kind != "auto" and engine.threads is not None and engine.workers != "auto"
    if engine.kind == "stacked":
        named = named and engine.tile is not None and engine.compile != "auto"
    assert named, f"name kind, tile, compile, threads and workers: {engine}"


def assert_same_training(here: Path, there: Path, *, rtol: float) -> None:
    """Assert that two runs trained the same to the bit; clients evaluated one by one differ by at most `rtol`."""
    for path in (here, there):
        assert_engine_is_named(path)
    one, other = open_run(here), open_run(there)
    for mine, yours in zip(one.model().state_dict().values(), other.model().state_dict().values(), strict=True):
        assert torch.equal(mine, yours)
    of_nodes = {"rejected", "late_replies", "repeats"}
    assert server_hashes(here) == server_hashes(there)
    assert set(one.rounds.columns) - of_nodes == set(other.rounds.columns) - of_nodes
    for name in set(one.rounds) - {*BY_THE_CLOCK, "client_spread.evaluated_on", "client_spread.worst", "state_hash"}:
        if name.startswith(("federated", "client_spread")):  # evaluated one by one, not as one batch
            np.testing.assert_allclose(other.rounds[name], one.rounds[name], rtol=rtol, err_msg=name)
        else:
            np.testing.assert_equal(other.rounds[name], one.rounds[name], err_msg=name)


def server_hashes(path: Path) -> list[Mapping[str, str]]:
    """Return the hashes of each round, without those of client states, which a server of nodes does not have."""
    lines = RunFolder(path).read_certificate().values
    return [{n: h for n, h in line["tensors"].items() if not n.startswith("clients/")} for line in lines]


def stop_after(rounds: int) -> Callable[[], bool]:
    """Return a `stop_asked` that is true from its call number `rounds` on."""
    calls = iter(range(1, rounds))
    return lambda: next(calls, None) is None


def mistake(capture: Capture, *arguments: str) -> str:
    """Run a command that must be refused; return its message."""
    assert main(arguments) == EXIT_MISTAKE
    out, err = capture.readouterr()
    assert "Traceback" not in err + out
    assert err.startswith("fedscape: ")
    assert err.count("\n") == 1, "the message is one line"
    return err.removeprefix("fedscape: ").rstrip("\n")
