"""Nodes that hold several clients: the same training as in one process, states in files, checks of what they send."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ConfigRecord, Error, Message, RecordDict
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping
from run_folders import assert_same_training, digits, stop_after
from strange_grid import StrangeGrid

from clients.core.errors import RunFolderError, StrategyError
from clients.flower.messages import FINISHED, QUERY
from clients.flower.shim import SUPERLINK_NODE
from server.record.records import RunFolder
from simulator.apps import apps
from simulator.runs.record import open_run
from simulator.runs.run import resume, simulate
from simulator.scenario.sections import Scenario

PLAIN = ("engine.kind=plain", "engine.tile=", "engine.compile=", "run.rounds=4")
ROWS = {
    "fedavg": (),
    "scaffold": ("algorithm.kind=scaffold", "algorithm.weighting="),
    "feddyn": ("algorithm.kind=feddyn", "algorithm.weighting="),
    "local buffers": ("model.norm=batch", "local.buffers=local", "local.drop_last=true", "partition.min_size=16"),
    "faulty labels": (
        "faults.wrong.kind=label_symmetric", "faults.wrong.severity=0.5", "evaluation.federated_every=2",
    ),
}  # fmt: skip
HELD = [{"clients": "0-2"}, {"clients": "3,6,7"}, {"clients": "4-5"}]
"""Three nodes with all eight clients."""


class Tampering(StrangeGrid):
    """Nodes whose replies to training are changed on the way, from a round on."""

    def __init__(self, scenario: Scenario, change: Callable[[Message], None], *, rounds: Iterable[int] = (2,)) -> None:
        super().__init__(apps(scenario, observers=[])[1], HELD)
        self.change, self.rounds, self.calls = change, set(rounds), 0

    def _reply(self, message: Message) -> Message:
        reply = super()._reply(message)
        config = message.content.config_records.get("config", {})
        held = self.contexts[message.metadata.dst_node_id].node_config["clients"]
        if message.metadata.message_type == "train" and config["server-round"] in self.rounds and held == "4-5":
            self.change(reply)
        return reply


@pytest.mark.parametrize("row", ROWS)
def test_nodes_with_several_clients_train_as_the_plain_engine(row: str, tmp_path: Path) -> None:
    scenario = digits(*PLAIN, *ROWS[row], "algorithm.cohort=5")
    simulate(scenario, out=tmp_path / "here")
    grid = StrangeGrid(apps(scenario, observers=[])[1], HELD)
    simulate(scenario, grid=grid, out=tmp_path / "there")
    here, there = open_run(tmp_path / "here"), open_run(tmp_path / "there")
    for mine, yours in zip(here.model().state_dict().values(), there.model().state_dict().values(), strict=True):
        torch.testing.assert_close(mine, yours, rtol=1e-5, atol=1e-7)
    for name in ("cohort", "respondents", "failures", "local_steps", "train_loss", "client_drift.mean"):
        np.testing.assert_allclose(there.rounds[name], here.rounds[name], rtol=1e-5, err_msg=name)


def test_partitions_fewer_than_clients_share_them(tmp_path: Path) -> None:
    scenario = digits(*PLAIN)
    simulate(scenario, out=tmp_path / "here")
    nodes = [{"partition-id": k, "num-partitions": 3} for k in (2, 0, 1)]
    simulate(scenario, grid=StrangeGrid(apps(scenario, observers=[])[1], nodes), out=tmp_path / "there")
    here, there = open_run(tmp_path / "here"), open_run(tmp_path / "there")
    for mine, yours in zip(here.model().state_dict().values(), there.model().state_dict().values(), strict=True):
        torch.testing.assert_close(mine, yours, rtol=1e-5, atol=1e-7)
    assert (there.rounds["bytes_down"][1:] < here.rounds["bytes_down"][1:]).any(), "a node gets one copy of the model"


def test_interrupted_run_goes_on_with_the_states_of_its_nodes(tmp_path: Path) -> None:
    scenario = digits(*PLAIN, *ROWS["scaffold"], "algorithm.cohort=5", "run.rounds=8", "run.checkpoint_rounds=2")
    client = apps(scenario, observers=[])[1]
    simulate(scenario, grid=StrangeGrid(client, HELD), out=tmp_path / "whole")
    run = simulate(scenario, grid=StrangeGrid(client, HELD), out=tmp_path / "cut", stop_asked=stop_after(5))
    assert run.verdict.outcome == "interrupted"
    (tmp_path / "cut" / "outcome.json").unlink()
    with pytest.raises(RunFolderError, match="clients on nodes"):
        resume(tmp_path / "cut")
    resume(tmp_path / "cut", grid=StrangeGrid(client, HELD))
    assert_same_training(tmp_path / "whole", tmp_path / "cut", rtol=1e-6)


def test_states_of_a_run_are_deleted_by_its_own_server_alone(tmp_path: Path) -> None:
    """Whoever knows the run's folder, its name in the record or on a dashboard, cannot have the states deleted."""
    scenario = digits(*PLAIN, *ROWS["scaffold"], "algorithm.cohort=8", "run.rounds=4", "run.checkpoint_rounds=1")
    states, client = tmp_path / "states", apps(scenario, observers=[])[1]

    def grid() -> StrangeGrid:
        return StrangeGrid(client, [{**node, "states": str(states)} for node in HELD])

    def files() -> list[Path]:
        return sorted(states.rglob("*.safetensors"))

    simulate(scenario, grid=grid(), out=tmp_path / "run", stop_asked=stop_after(2))
    kept, known = files(), RunFolder(tmp_path / "run").read_environment()
    assert kept
    assert known is not None
    for name in ("run", str(tmp_path / "run"), known["run"]["run_id"]):
        other = grid()
        query = RecordDict({"config": ConfigRecord({FINISHED: name})})
        other.send_and_receive([Message(query, dst_node_id=node, message_type=QUERY) for node in other.contexts])
        assert files() == kept
    (tmp_path / "run" / "outcome.json").unlink()
    resume(tmp_path / "run", grid=grid())
    assert "client_states_lost" not in [e["kind"] for e in RunFolder(tmp_path / "run").read_events().values]
    assert not files()


def test_update_that_the_server_did_not_count_leaves_no_state(tmp_path: Path) -> None:
    """A client whose reply was rejected goes on from its state of before, as in a run in which it never replied."""
    scenario = digits(*PLAIN, *ROWS["scaffold"], "algorithm.cohort=8", "run.rounds=5")

    rejected = simulate(scenario, grid=Tampering(scenario, filled(np.nan)), record=False)

    class Silent(Tampering):
        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
            """Do not deliver the messages of round 2 to the node of clients 4 and 5."""
            kept = [m for m in messages if m.metadata.message_type != "train" or not self._is_meant(m)]
            return list(super().send_and_receive(kept, timeout=timeout))

        def _is_meant(self, message: Message) -> bool:
            held = self.contexts[message.metadata.dst_node_id].node_config["clients"]
            return held == "4-5" and message.content.config_records["config"]["server-round"] == 2

    silent = simulate(
        digits(*PLAIN, *ROWS["scaffold"], "algorithm.cohort=8", "run.rounds=5", "nodes.timeout_seconds=0.2"),
        grid=Silent(scenario, lambda reply: None, rounds=()), record=False,
    )  # fmt: skip
    assert rejected.rounds["respondents"].tolist()[1:] == silent.rounds["respondents"].tolist()[1:] == [8, 6, 8, 8, 8]
    torch.testing.assert_close(rejected.params, silent.params, rtol=0, atol=0)


def put(name: str, value: object) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        reply.content.metric_records["metrics"][name] = value  # type: ignore[index]

    return change


def filled(value: float, wider: int = 0, kind: str = "float32") -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        rows, width = reply.content.array_records["arrays"]["parameters"].shape
        reply.content.array_records["arrays"]["parameters"] = Array(np.full((rows, width + wider), value, kind))

    return change


BAD = {
    "nan": (filled(np.nan), "parameters of client 4 are not finite"),
    "shape": (filled(0, wider=1), "array 'parameters' is float32 of shape (2, "),
    "type": (filled(0, kind="int64"), "array 'parameters' is int64 of shape (2, "),
    "norm": (filled(1e6), "client 4 moved the model by"),
    "round": (put("server-round", 1), "it is of round 1, and the round is 2"),
    "examples": (put("num-examples", [10**12, 1]), "client 4 reports 1000000000000 training examples"),
    "infinite examples": (put("num-examples", [float("inf"), 1.0]), "client 4 returned no number as 'num-examples'"),
    "clients": (put("client", [4, 6]), "it is for clients 4, 6, and clients 4, 5 were sent work"),
    "a client twice": (put("client", [4, 4]), "it is for clients 4, 4, and clients 4, 5 were sent work"),
    "fewer losses": (put("train_loss", [0.5]), "'train-loss' has 1 values for 2 clients"),
    "steps": (put("local-steps", [-3, 1]), "a number of local steps is negative"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_update_is_dropped_counted_and_named(case: str, tmp_path: Path) -> None:
    change, words = BAD[case]
    scenario = digits(*PLAIN, "algorithm.cohort=8", "nodes.max_update_norm=1e4")
    run = simulate(scenario, grid=Tampering(scenario, change), out=tmp_path / "run")
    assert run.rounds["respondents"].tolist()[1:] == [8, 6, 8, 8]
    assert np.nan_to_num(run.rounds["rejected"]).tolist()[1:] == [0, 2, 0, 0]
    events = [e for e in RunFolder(tmp_path / "run").read_events().values if e["kind"] == "update_rejected"]
    assert [(e["round"], e["clients"]) for e in events] == [(2, [4, 5])]
    assert words in events[0]["message"]
    assert torch.isfinite(run.params).all()


def test_client_with_rejected_updates_is_excluded_also_after_a_resume(tmp_path: Path) -> None:
    sets = ("algorithm.cohort=8", "run.rounds=6", "nodes.exclude_after=2", "run.checkpoint_rounds=1")
    scenario = digits(*PLAIN, *sets)
    bad = put("local-steps", [-3, 1])
    grid = Tampering(scenario, bad, rounds=(1, 2, 3))
    simulate(scenario, grid=grid, out=tmp_path / "run", stop_asked=stop_after(4))
    (tmp_path / "run" / "outcome.json").unlink()
    run = resume(tmp_path / "run", grid=Tampering(scenario, bad, rounds=()))
    assert run.rounds["cohort"].tolist()[1:] == [8, 8, 6, 6, 6, 6]
    kinds = [e["kind"] for e in RunFolder(tmp_path / "run").read_events().values]
    assert (kinds.count("update_rejected"), kinds.count("client_excluded")) == (2, 1)


def test_wrapped_strategy_gets_a_message_for_each_client_of_a_node(tmp_path: Path) -> None:
    scenario = digits(*PLAIN, "algorithm.cohort=5", "evaluation.federated_every=2")

    def wrapped(ours: object) -> DifferentialPrivacyServerSideFixedClipping:
        return DifferentialPrivacyServerSideFixedClipping(ours, 0.0, 1e6, 5)

    here = simulate(scenario, strategy=wrapped, record=False)
    there = simulate(scenario, strategy=wrapped, grid=StrangeGrid(apps(scenario)[1], HELD), record=False)
    torch.testing.assert_close(here.params, there.params, rtol=1e-5, atol=1e-7)
    for name in ("federated_loss", "client_spread.clients"):
        np.testing.assert_allclose(there.rounds[name], here.rounds[name], rtol=1e-5, err_msg=name)


def test_flower_strategy_needs_a_node_for_each_client() -> None:
    from flwr.serverapp.strategy import FedAvg

    scenario = digits(*PLAIN, "algorithm.cohort=")
    grid = StrangeGrid(apps(scenario, observers=[])[1], HELD)
    with pytest.raises(StrategyError, match="this strategy's messages train one client a node"):
        simulate(scenario, strategy=FedAvg(fraction_evaluate=0.0, min_available_nodes=3), grid=grid, record=False)


def test_too_few_respondents_interrupt_the_run_and_keep_its_rounds(tmp_path: Path) -> None:
    sets = ("algorithm.cohort=8", "nodes.min_respondents=7", "nodes.timeout_seconds=0.2", "nodes.retries=1")
    scenario = digits(*PLAIN, *sets)

    class Deaf(StrangeGrid):
        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
            kept = [m for m in messages if m.content.config_records["config"].get("server-round", 0) < 3
                    or self.contexts[m.metadata.dst_node_id].node_config["clients"] != "4-5"]  # fmt: skip
            return list(super().send_and_receive(kept))

    run = simulate(scenario, grid=Deaf(apps(scenario, observers=[])[1], HELD), out=tmp_path / "run")
    assert run.verdict.outcome == "interrupted"
    assert "6 of 8 clients replied in time, fewer than nodes.min_respondents = 7" in str(run.verdict)
    assert len(run.rounds["round"]) == 3


class Gone(StrangeGrid):
    """Nodes of which one is gone from round 3 on: the SuperLink answers for it, with an error."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(apps(scenario, observers=[])[1], HELD)

    def _reply(self, message: Message) -> Message:
        reply = super()._reply(message)
        held = self.contexts[message.metadata.dst_node_id].node_config["clients"]
        if held != "4-5" or message.content.config_records["config"].get("server-round", 0) < 3:
            return reply
        gone = Message(Error(5, "Node Unavailable"), reply_to=message)
        vars(gone.metadata)["_src_node_id"] = SUPERLINK_NODE
        return gone


def test_clients_of_a_node_that_is_gone_fail_with_that_reason(tmp_path: Path) -> None:
    scenario = digits(*PLAIN, "algorithm.cohort=8", "nodes.retries=0")
    run = simulate(scenario, grid=Gone(scenario), out=tmp_path / "run")
    assert run.rounds["respondents"].tolist()[1:] == [8, 8, 6, 6]
    assert run.rounds["failures"].tolist()[1:] == [0, 0, 2, 2]
    events = [e["message"] for e in RunFolder(tmp_path / "run").read_events().values if e["kind"] == "clients_failed"]
    assert events == ["2 of 8 clients failed; the first error: Node Unavailable"] * 2


def test_clients_of_a_node_that_is_gone_are_missing_for_the_fewest_respondents(tmp_path: Path) -> None:
    scenario = digits(*PLAIN, "algorithm.cohort=8", "nodes.min_respondents=7", "nodes.retries=1")
    run = simulate(scenario, grid=Gone(scenario), out=tmp_path / "run")
    assert run.verdict.outcome == "interrupted"
    assert "6 of 8 clients replied in time, fewer than nodes.min_respondents = 7; the first error: Node" in str(
        run.verdict
    )
    assert len(run.rounds["round"]) == 3


def test_node_that_cannot_write_states_fails_its_clients_alone(tmp_path: Path) -> None:
    """As on a full disk: the folder of states cannot be made, so the server counts no update of that node."""
    (tmp_path / "full").write_text("a file, no folder")
    held = [HELD[0] | {"states": str(tmp_path / "full" / "states")}, *HELD[1:]]
    scenario = digits(*PLAIN, *ROWS["scaffold"], "algorithm.cohort=8", "nodes.retries=0")
    run = simulate(scenario, grid=StrangeGrid(apps(scenario, observers=[])[1], held), out=tmp_path / "run")
    assert run.rounds["respondents"].tolist()[1:] == [5] * 4
    assert run.rounds["failures"].tolist()[1:] == [3] * 4
    events = [e["message"] for e in RunFolder(tmp_path / "run").read_events().values if e["kind"] == "clients_failed"]
    assert "states: of client 0 cannot be written in" in events[0]
    assert "Make room there" in events[0]
