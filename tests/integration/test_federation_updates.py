"""Real federations with SuperNodes that run other code: their updates are dropped, and the run goes on without them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from own_nodes import hostile_environment, run_on_own_nodes

from simulator.runs.record import open_run
from simulator.runs.run import simulate
from simulator.scenario.sections import load_scenario, to_toml

pytestmark = [pytest.mark.federation, pytest.mark.slow]

HONEST = ("run.rounds=4", "convergence.stop=never")
HOSTILE = (
    *("data.curvatures=[1.0, 4.0, 2.0, 3.0]", "data.centres=[-1.0, 3.0, 5.0, -9.0]"),
    *("nodes.max_update_norm=1e4", "nodes.exclude_after=3"),
)
"""Two more clients, whose nodes are hostile."""
WORDS = {
    (1, 2): "parameters of client 2 are not finite",
    (2, 2): "array 'parameters' is float64 of shape (1, 2)",
    (3, 2): "client 2 reports 1000000000000 training examples, and 1 were declared",
    (1, 3): "client 3 moved the model by 1e+06, above nodes.max_update_norm = 10000",
    (2, 3): "it is of round 7, and the round is 2",
    (3, 3): "array 'parameters' is missing",
}
"""What the events of a round name, by round and client."""


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the sockets of local services into a folder of the test, whose path is short."""
    folder = tempfile.mkdtemp(prefix="fs-", dir="/tmp")
    monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
    yield
    shutil.rmtree(folder)


def test_bad_updates_of_supernodes_are_dropped_and_named_and_their_clients_excluded(tmp_path: Path) -> None:
    """The numbers are those of a run that never had the hostile clients."""
    here = simulate(load_scenario("quadratic-two-clients", sets=HONEST), out=tmp_path / "here")
    scenario = load_scenario("quadratic-two-clients", sets=[*HONEST, *HOSTILE])
    one = hostile_environment(tmp_path / "one", ["nan", "shape", "examples"])
    other = hostile_environment(tmp_path / "other", ["norm", "round", "other-app"])
    nodes = [({"clients": "0-1"}, {}), ({"clients": "2"}, one), ({"clients": "3"}, other)]
    record = run_on_own_nodes(tmp_path, to_toml(scenario), nodes)
    there = open_run(record.path)
    assert there.rounds["cohort"].tolist()[1:] == [4, 4, 4, 2]
    assert there.rounds["respondents"].tolist()[1:] == [2, 2, 2, 2]
    assert np.nan_to_num(there.rounds["rejected"]).tolist()[1:] == [2, 2, 2, 0]
    assert np.nan_to_num(there.rounds["failures"]).tolist()[1:] == [0, 0, 0, 0]
    events = record.read_events().values
    named = {(e["round"], *e["clients"]): e["message"] for e in events if e["kind"] == "update_rejected"}
    assert named.keys() == WORDS.keys()
    for key, words in WORDS.items():
        assert words in named[key]
    excluded = [(e["round"], e["clients"]) for e in events if e["kind"] == "client_excluded"]
    assert sorted(excluded) == [(3, [2]), (3, [3])]
    yours = torch.cat([v.flatten() for v in there.model().state_dict().values()])
    torch.testing.assert_close(yours, here.params, rtol=1e-12, atol=0)
    for name in ("train_loss", "client_drift.mean", "update_dispersion"):
        np.testing.assert_allclose(there.rounds[name], here.rounds[name], rtol=1e-9, err_msg=name)
