"""What a federation is started with: shares of clients, ports, commands and environment; and what is refused before."""

from __future__ import annotations

import json
import os
import socket
import sys
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strange_grid import StrangeGrid

from clients.core.errors import RunFolderError, UserError
from simulator.apps import apps
from simulator.cli.exit_codes import EXIT_MISTAKE
from simulator.cli.main import main
from simulator.federate.certs import make_certs
from simulator.federate.dealing import check_port, deal, free_ports, node_config
from simulator.federate.nodes import Launcher, Nodes
from simulator.federate.processes import End
from simulator.federate.wanted import Wanted, nodes_before, write_facts
from simulator.federate.workspace import environment, superlink_command, supernode_command, write_app, write_home
from simulator.runs.run import resume, simulate


@given(clients=st.integers(1, 500), share=st.floats(0, 1))
def test_clients_are_dealt_once_each_in_even_blocks(clients: int, share: float) -> None:
    nodes = max(1, round(share * clients))
    blocks = deal(clients, nodes)
    assert [client for block in blocks for client in block] == list(range(clients))
    assert len(blocks) == nodes
    sizes = {len(block) for block in blocks}
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("nodes", [0, 4, -1])
def test_more_nodes_than_clients_are_refused(nodes: int) -> None:
    with pytest.raises(UserError, match=f"--nodes: must be 1 to 3, the number of the scenario's clients, got {nodes}"):
        deal(3, nodes)


def test_node_of_one_client_has_its_partition_id_too() -> None:
    expected = {"name": "node-2", "files": "/", "clients": 2, "partition-id": 2, "num-partitions": 3}
    assert node_config(range(2, 3), 2, 3) == expected


def test_ports_are_free_and_differ() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        check_port(port)


def test_taken_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port: {port} cannot be used: Address already in use\. Stop the"):
            check_port(port)


def test_commands_hold_paths_of_keys_and_no_key(tmp_path: Path) -> None:
    certs = make_certs(tmp_path / "certs", nodes=1)
    words = [*superlink_command(8000, certs), *supernode_command(0, 8001, 8000, certs, tmp_path / "node.toml")]
    secrets = [certs.superlink_key, certs.node_key(0), certs.node_cert_key(0)]
    lines = {line for file in secrets for line in file.read_text().splitlines()}
    assert not lines & set(" ".join(words).split())
    assert {str(file) for file in secrets} <= set(words)
    assert "--enable-supernode-auth" in words
    assert "--insecure" not in words


def test_environment_is_private_and_has_nothing_of_exporters(tmp_path: Path) -> None:
    exporters = {"FEDSCAPE_REMOTE_WRITE_TOKEN": "s3cret", "FEDSCAPE_GRAFANA_TOKEN": "s3cret"}
    given = {"PATH": "/bin", "NO_PROXY": "example.org", "FEDSCAPE_METRICS_PORT": "9464"} | exporters
    made = environment(tmp_path, given=given)
    assert "s3cret" not in str(made)
    assert "FEDSCAPE_METRICS_PORT" not in made  # a second exporter would find its port taken
    assert made["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/bin"]
    assert made["NO_PROXY"] == "example.org,127.0.0.1,localhost"
    assert made["FLWR_HOME"] == str(tmp_path)
    off = ("FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_UPDATE_CHECK", "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION")
    assert [made[name] for name in off] == ["0", "1", "1"]


def test_app_has_no_code_and_names_the_installed_apps(tmp_path: Path) -> None:
    app = write_app(tmp_path)
    assert [path.name for path in app.iterdir()] == ["pyproject.toml"]
    project = tomllib.loads((app / "pyproject.toml").read_text())
    assert project["project"]["dependencies"] == []
    ours = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert project["tool"]["flwr"]["app"]["components"] == ours["components"]
    assert ours["config"].keys() <= project["tool"]["flwr"]["app"]["config"].keys()


def test_home_trusts_the_authority_alone(tmp_path: Path) -> None:
    certs = make_certs(tmp_path / "certs", nodes=1)
    config = tomllib.loads((write_home(tmp_path, 8123, certs) / "config.toml").read_text())
    connection = {"address": "127.0.0.1:8123", "root-certificates": str(certs.ca)}
    assert config["superlink"] == {"default": "fedscape", "fedscape": connection}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nodes", "3"], "--nodes: must be 1 to 2, the number of the scenario's clients, got 3"),
        (["--port", "80"], "--port: must be 1024 to 65535, got 80"),
        (["--certs", "nowhere"], "nowhere: must be a folder of certificates"),
        (["--certs", "expired"], "expired/ca.crt: expired on "),
        (["--out", "full"], "full: already holds files (notes)"),
        (["--resume", "nowhere", "--set", "run.rounds=3"], "--resume: continues a run as it is, so SCENARIO must be"),
        (["--set", "run.roundz=3"], "run.roundz"),
        (["--restart-nodes", "-1"], "--restart-nodes: must be 0 to 1000, got -1"),
        (
            ["--set", "nodes.own_data=true"],
            "nodes.own_data: must be false: fedscape federate deals the scenario's clients",
        ),
    ],
)
def test_mistake_is_named_before_anything_starts(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    make_certs(Path("expired"), nodes=2, days=1, now=datetime.now(UTC) - timedelta(days=3))
    Path("full").mkdir()
    Path("full", "notes").touch()
    before = sorted(tmp_path.rglob("*"))
    assert main(["federate", "quadratic-two-clients", *arguments]) == EXIT_MISTAKE
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_resumed_federation_has_as_many_nodes_as_before(tmp_path: Path) -> None:
    assert nodes_before(Wanted(resume=tmp_path)) is None, "a run of an earlier version"
    write_facts(tmp_path, nodes=7)
    assert nodes_before(Wanted(resume=tmp_path)) == 7
    assert nodes_before(Wanted()) is None


def test_damaged_number_of_nodes_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "federation.json").write_text('{"nodes": "seven"}')
    with pytest.raises(RunFolderError, match=r"federation\.json: is damaged: nodes"):
        nodes_before(Wanted(resume=tmp_path))


def test_resuming_a_federated_run_here_names_the_command(tmp_path: Path) -> None:
    grid = StrangeGrid(apps("quadratic-two-clients", observers=[])[1], [0, 1])
    simulate("quadratic-two-clients", grid=grid, out=tmp_path / "run", stop_asked=lambda: True)
    with pytest.raises(RunFolderError, match=r"had its clients on nodes\. Start the same SuperNodes, then: flwr run"):
        resume(tmp_path / "run")
    write_facts(tmp_path / "run", nodes=2)
    with pytest.raises(RunFolderError, match=r"Continue it: fedscape federate --resume .*run"):
        resume(tmp_path / "run")


class Started:
    """Keeps the processes that a launcher starts; a test says how they end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.names, self.keys = folder, list[str](), list[str]()
        self.ended: dict[str, End] = {}
        self.notes: list[tuple[str, str]] = []

    def __call__(self, name: str, command: Sequence[str], defaults: Mapping[str, str]) -> None:
        self.names.append(name)
        if "--auth-supernode-private-key" in command:
            self.keys.append(command[command.index("--auth-supernode-private-key") + 1])

    def end(self, name: str, *results: tuple[int, str]) -> None:
        """Let a process end, with the results of its commands."""
        self.ended[name] = End(max((code for code, _ in results), default=1), self.folder / "none.log")
        lines = [json.dumps({"code": code, "output": output}) + "\n" for code, output in results]
        (self.folder / f"{name}.results").write_text("".join(lines))

    def check(self, nodes: Nodes) -> None:
        nodes.check(self.ended, lambda kind, text: self.notes.append((kind, text)), is_running=True)


@pytest.fixture
def started(tmp_path: Path) -> tuple[Started, Nodes]:
    """Two SuperNodes that run, each with one restart."""
    certs, processes = make_certs(tmp_path / "certs", nodes=2), Started(tmp_path)
    nodes = Nodes(
        Launcher(processes, tmp_path, 8000, certs, tmp_path / "superlink.log"),
        deal(4, 2),
        tmp_path / "states",
        restarts=1,
    )
    nodes.start(["11", "12"])
    return processes, nodes


def test_ended_node_is_unregistered_and_replaced_with_a_new_key_as_often_as_allowed(
    started: tuple[Started, Nodes], tmp_path: Path
) -> None:
    processes, nodes = started
    processes.end("supernode-1")
    processes.check(nodes)
    commands = json.loads((tmp_path / "flwr-supernode-1.json").read_text())["commands"]
    assert [command[:3] for command in commands] == [
        ["supernode", "unregister", "12"], ["supernode", "register", str(tmp_path / "supernode-1-next.pub")],
    ]  # fmt: skip
    processes.end(
        "flwr-supernode-1", (0, "SuperNode 12 unregistered successfully."), (0, "SuperNode 77 registered successfully.")
    )
    processes.check(nodes)
    assert processes.names[-1] == "supernode-1-1"
    assert processes.keys == [
        *(str(tmp_path / "certs" / f"node-{k}.key") for k in range(2)),
        str(tmp_path / "supernode-1-next.key"),
    ]
    processes.end("supernode-1-1")
    processes.check(nodes)
    commands = json.loads((tmp_path / "flwr-supernode-1-1.json").read_text())["commands"]
    assert commands == [["supernode", "unregister", "77", "fedscape"]]
    processes.end("flwr-supernode-1-1", (0, "SuperNode 77 unregistered successfully."))
    processes.check(nodes)
    assert [kind for kind, _ in processes.notes] == ["node_ended", "node_restarted", "node_ended"]
    processes.end("supernode-0")
    processes.check(nodes)
    assert processes.names[-1] == "flwr-supernode-0", "one restart is left"


def test_node_whose_new_key_is_refused_is_given_up_and_the_last_one_is_an_error(started: tuple[Started, Nodes]) -> None:
    processes, nodes = started
    for node, register in enumerate(["busy", "full"]):
        processes.end(f"supernode-{node}")
        processes.check(nodes)
        processes.end(f"flwr-supernode-{node}", (0, "done"), (1, register))
        if node == 0:
            processes.check(nodes)
    assert processes.notes[1] == ("node_ended", "SuperNode 0 is not replaced: refused: busy")
    with pytest.raises(UserError, match="SuperNode 1: is not replaced: refused: full"):
        processes.check(nodes)


def test_refused_signature_hints_at_the_clock(started: tuple[Started, Nodes], tmp_path: Path) -> None:
    processes, nodes = started
    processes.end("supernode-0")
    processes.check(nodes)
    (tmp_path / "superlink.log").write_text('127.0.0.1:1 - "POST /v1/fleet/activate-node HTTP/1.1" 401\n')
    processes.end("supernode-1")
    processes.check(nodes)
    assert ["set the clocks" in text for _, text in processes.notes] == [False, True]
