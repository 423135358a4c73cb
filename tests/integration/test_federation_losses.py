"""Real federations whose parts are started one by one: a node that another replaces, a full disk, a wrong clock, a
SuperLink that starts again. Each ends in the right numbers or in a clear outcome."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from flower_processes import PATIENCE, federating, processes_naming, wait_for_rounds
from flwr.app import Error, Message
from hand_federation import HandFederation, federation_by_hand
from needs import FAKETIME, FAKETIME_LIBRARY
from strange_grid import StrangeGrid
from waiting import eventually

from server.record.records import RunFolder
from simulator.apps import apps
from simulator.cli.exit_codes import EXIT_OK
from simulator.federate.processes import clock_hint
from simulator.runs.record import open_run
from simulator.runs.run import simulate
from simulator.scenario.sections import load_scenario

pytestmark = pytest.mark.federation

SETS = (
    *("partition.clients=6", "model.hidden=[8]", "local.local_epochs=1", "algorithm.cohort=", "engine.kind=plain"),
    *("algorithm.kind=scaffold", "algorithm.weighting=", "evaluation.baselines=false", "evaluation.federated_every=0"),
    *("convergence.stop=never", "engine.tile=", "engine.compile=", "engine.threads=1", "run.checkpoint_rounds=1"),
)
"""Six clients that remember between rounds."""


class Absent(StrangeGrid):
    """Nodes in this process, some of which fail in some rounds, or have lost their states.

    Args:
        folder: for states.
        held: the clients of each node.
        sets: changes of the scenario.
        took_part: the clients that took part, by round.
        empty_from: the round from which a node, by its clients, has another folder of states.
    """

    def __init__(
        self,
        folder: Path,
        held: Iterable[str],
        sets: Iterable[str],
        took_part: dict[int, set[int]],
        empty_from: tuple[str, int] | None = None,
    ) -> None:
        self.took_part, self.empty_from, self.folder = took_part, empty_from, folder
        scenario = load_scenario("digits-label-skew", sets=[*SETS, *sets])
        nodes = [{"clients": clients, "states": str(folder / "old")} for clients in held]
        super().__init__(apps(scenario, observers=[])[1], nodes)

    def _reply(self, message: Message) -> Message:
        config = message.content.config_records.get("config", {})
        if message.metadata.message_type == "train":
            round_index = config["server-round"]
            if not set(config["clients"]) <= self.took_part[round_index]:
                return Message(Error(2, "absent"), reply_to=message)
            node = self.contexts[message.metadata.dst_node_id].node_config
            if self.empty_from is not None and node["clients"] == self.empty_from[0]:
                node["states"] = str(self.folder / ("new" if round_index >= self.empty_from[1] else "old"))
        return super()._reply(message)


def took_part(run: Path) -> dict[int, set[int]]:
    """Return the clients of each round whose updates were used."""
    rows = open_run(run).clients
    found: dict[int, set[int]] = {}
    for round_index, client in zip(rows["round"].tolist(), rows["client"].tolist(), strict=True):
        found.setdefault(round_index, set()).add(client)
    return found


def assert_numbers_of(
    run: Path, folder: Path, held: Iterable[str], sets: Iterable[str], empty_from: tuple[str, int] | None = None
) -> None:
    """Assert that a run has the numbers of one process in which the same clients are absent in the same rounds."""
    grid = Absent(folder / "reference", held, sets, took_part(run), empty_from)
    scenario = load_scenario("digits-label-skew", sets=[*SETS, *sets])
    simulate(scenario, grid=grid, out=folder / "here")
    here, there = open_run(folder / "here"), open_run(run)
    mine, yours = (torch.cat([v.flatten() for v in one.model().state_dict().values()]) for one in (here, there))
    assert (yours - mine).norm() <= 1e-5 * mine.norm()
    for name in ("respondents", "train_loss", "validation_loss", "update_dispersion"):
        np.testing.assert_allclose(there.rounds[name], here.rounds[name], rtol=1e-4, err_msg=name)


def events_of(run: Path) -> dict[str, str]:
    """Return the last message of each kind of event."""
    return {event["kind"]: event["message"] for event in RunFolder(run).read_events().values}


@pytest.mark.slow
def test_restarted_node_takes_part_again_with_the_states_of_the_killed_one(tmp_path: Path) -> None:
    sets = ("run.rounds=7", "nodes.retries=0")
    words = [word for change in (*SETS, *sets) for word in ("--set", change)]
    with federating(tmp_path, "digits-label-skew", *words, "--nodes", "3", "--restart-nodes", "1") as process:
        wait_for_rounds(process, tmp_path, 1)
        nodes = [pid for pid, command in processes_naming(tmp_path / "private").items() if "node-1.key" in command]
        os.kill(min(nodes), signal.SIGKILL)
        printed, errors = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == EXIT_OK, errors
    run = tmp_path / "run"
    respondents = open_run(run).rounds["respondents"]
    assert respondents[1] == respondents[-1] == 6
    assert min(respondents[1:]) == 4, "the killed node had two clients"
    events = events_of(run)
    assert events["node_ended"].startswith("SuperNode 1 with clients 2-3 was killed by signal 9; ")
    assert events["node_restarted"] == "SuperNode 1 is started again, with a new key; restarts left: 0"
    assert "client_states_lost" not in events
    assert printed.count("is started again") == 1, "it is shown once"
    assert_numbers_of(run, tmp_path, ["0-1", "2-3", "4-5"], sets)
    eventually(lambda: not processes_naming(tmp_path / "private"), seconds=10.0)


@contextmanager
def running(folder: Path, held: list[str], sets: Iterable[str], *, keys: int = 0) -> Iterator[HandFederation]:
    """Start a federation by hand and a run on it; yield it once round 1 is recorded."""
    with federation_by_hand(folder, keys or len(held)) as made:
        for node, clients in enumerate(held):
            made.register(node)
            made.start_node(node, clients)
        made.wait_for_nodes(*range(len(held)))
        made.submit(scenario="digits-label-skew", sets="; ".join([*SETS, *sets]), out=str(made.run))
        made.wait_for_round(1)
        yield made


def finished(made: HandFederation) -> bool:
    return RunFolder(made.run).outcome.exists() and RunFolder(made.run).report.exists()


@pytest.mark.slow
def test_another_node_takes_the_clients_of_a_killed_one_without_their_states(tmp_path: Path) -> None:
    """It has its own key and an empty folder, and joins while Flower still lists the killed node."""
    sets = ("run.rounds=6", "nodes.retries=0")
    with running(tmp_path, ["0-2", "3-5"], sets, keys=3) as made:
        made.kill("certs/node-1.key")
        made.register(2)
        made.start_node(2, "3-5", tmp_path / "empty")
        eventually(lambda: finished(made), seconds=2 * PATIENCE)
    respondents = open_run(made.run).rounds["respondents"].tolist()
    assert respondents[-1] == 6
    assert 3 in respondents[1:]
    events = events_of(made.run)
    assert events["client_states_lost"] == "nodes lost the states of 3 clients, which begin anew: 3, 4, 5"
    assert "3 of 6 clients failed; the first error: Error: Node Unavailable" in events["clients_failed"]
    anew = respondents.index(6, respondents.index(3))
    assert_numbers_of(made.run, tmp_path, ["0-2", "3-5"], sets, ("3-5", anew))


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system in memory of a size; skip the test where that is not permitted."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
                          capture_output=True, text=True, check=False)  # fmt: skip
    if made.returncode:
        pytest.skip(f"a file system cannot be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_node_with_a_full_disk_fails_its_clients_until_there_is_room(tmp_path: Path) -> None:
    sets = ("run.rounds=5", "nodes.retries=0")
    with small_disk(tmp_path / "disk", "1m") as disk, federation_by_hand(tmp_path, 2) as made:
        (disk / "other").write_bytes(bytes(2**20 - 8192))
        for node, (clients, states) in enumerate((("0-2", tmp_path / "states"), ("3-5", disk / "states"))):
            made.register(node)
            made.start_node(node, clients, states)
        made.wait_for_nodes(0, 1)
        made.submit(scenario="digits-label-skew", sets="; ".join([*SETS, *sets]), out=str(made.run))
        made.wait_for_round(2)
        (disk / "other").unlink()
        eventually(lambda: finished(made), seconds=2 * PATIENCE)
    rounds = open_run(made.run).rounds
    assert rounds["respondents"][1] == 3
    assert rounds["failures"][1] == 3
    assert rounds["respondents"][-1] == 6
    message = events_of(made.run)["clients_failed"]
    assert "states: of client 3 cannot be written in" in message
    assert "No space left on device" in message
    assert_numbers_of(made.run, tmp_path, ["0-2", "3-5"], sets)


def test_node_whose_clock_is_an_hour_off_is_not_admitted_and_a_slow_one_is(tmp_path: Path) -> None:
    """Flower takes signatures of the last five minutes, and five seconds ahead. Only the SuperLink prints a refusal."""
    FAKETIME.require()
    with federation_by_hand(tmp_path, 3) as made:
        for node, shift in enumerate(("-1h", "+1h", "-4m")):
            made.register(node)
            made.start_node(node, "0", more={"LD_PRELOAD": str(FAKETIME_LIBRARY), "FAKETIME": shift})
        made.wait_for_nodes(2)
        for node in (0, 1):
            eventually(lambda name=f"supernode-{node}": made.ended(name), seconds=PATIENCE)
            assert "SuperNode ID" not in made.log(f"supernode-{node}")
        assert not made.ended("supernode-2")
    assert made.log("superlink").count('"POST /v1/fleet/activate-node HTTP/1.1" 401') == 2
    assert "set the clocks" in clock_hint(tmp_path / "superlink.log")


@pytest.mark.slow
@pytest.mark.parametrize("keeps", [False, True], ids=["in memory", "with a database"])
def test_run_fails_when_its_superlink_starts_again_and_is_resumed_on_it(keeps: bool, tmp_path: Path) -> None:
    """A SuperLink with a database knows its nodes again; one without has forgotten their keys, and they end."""
    sets = ("run.rounds=4",)
    held = ["0-2", "3-5"]
    with federation_by_hand(tmp_path, 2, database=tmp_path / "state.db" if keeps else None) as made:
        for node, clients in enumerate(held):
            made.register(node)
            made.start_node(node, clients)
        made.wait_for_nodes(0, 1)
        first = made.submit(scenario="digits-label-skew", sets="; ".join([*SETS, *sets]), out=str(made.run))
        made.wait_for_round(1)
        made.kill("bin/flower-superlink")
        eventually(lambda: made.ended("superlink"))
        made.start_superlink()
        eventually(lambda: "bin/flwr-serverapp" not in str(processes_naming(tmp_path)), seconds=PATIENCE)
        if keeps:
            eventually(lambda: made.status(first) == "finished:failed", seconds=PATIENCE)
            assert not made.ended("supernode-0")
            assert not made.ended("supernode-1")
        else:
            eventually(lambda: made.ended("supernode-0") and made.ended("supernode-1"), seconds=PATIENCE)
            assert '" 401' in made.log("superlink"), "their keys are not known any more"
            for node, clients in enumerate(held):
                made.register(node)
                made.start_node(node, clients)
            eventually(lambda: all(made.log(f"supernode-{k}").count("SuperNode ID") == 2 for k in range(2)),
                       seconds=PATIENCE)  # fmt: skip
        assert RunFolder(made.run).read_outcome() is None, "the run is unfinished"
        again = made.submit(resume=str(made.run))
        eventually(lambda: finished(made), seconds=2 * PATIENCE)
        eventually(lambda: made.status(again) == "finished:completed", seconds=PATIENCE)
    assert_numbers_of(made.run, tmp_path, held, sets)
    events = events_of(made.run)
    assert "resumed" in events
    assert "client_states_lost" not in events
