"""A hostile server: a node refuses what it sends, reads only files of its own folder, and runs nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from hostile_nodes import HostileGrid, bare_pickle, pickled_array, stated, zipped_array
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_folders import digits

from clients.core.errors import FedscapeError, StrategyError
from clients.flower.incoming import LONGEST_SCENARIO, scenario_text
from clients.flower.messages import FINISHED, QUERY
from clients.flower.node_config import read_node_config
from clients.flower.node_states import StoredStates
from simulator.apps import apps
from simulator.runs.run import simulate

PLAIN = ("engine.kind=plain", "engine.tile=", "engine.compile=", "run.rounds=1", "algorithm.cohort=8")
SCAFFOLD = ("algorithm.kind=scaffold", "algorithm.weighting=")
Change = Callable[[RecordDict], None]


@pytest.fixture(scope="module")
def sent() -> tuple[ClientApp, Message]:
    """A node's app, and the last message to train that a server sent it."""
    scenario = digits(*PLAIN, *SCAFFOLD)
    grid = HostileGrid(scenario, lambda reply: None, rounds=())
    simulate(scenario, grid=grid, record=False)
    trained = [m for m in grid.sent if m.metadata.message_type == "train"]
    return apps(observers=[])[1], trained[-1]


def answered(sent: tuple[ClientApp, Message], states: Path, change: Change, **node: object) -> RecordDict:
    """Return a node's answer to the message after a change."""
    app, message = sent
    content = RecordDict({
        "arrays": ArrayRecord(dict(message.content.array_records["arrays"])),
        "broadcast": ArrayRecord(dict(message.content.array_records["broadcast"])),
        "config": ConfigRecord(dict(message.content.config_records["config"])),
    })  # fmt: skip
    change(content)
    held = ",".join(str(c) for c in message.content.config_records["config"]["clients"])  # type: ignore[union-attr]
    config: dict[str, Any] = {"clients": held, "states": str(states), **node}
    order = Message(content, dst_node_id=message.metadata.dst_node_id, message_type="train")
    return app(order, Context(1, message.metadata.dst_node_id, config, RecordDict(), {})).content


def key(name: str, value: Any) -> Change:
    return lambda content: content.config_records["config"].update({name: value})


def model(array: Array) -> Change:
    return lambda content: content.array_records["arrays"].update({"parameters": array})


def data(path: str, kind: str = "table") -> str:
    more = 'task = "classification"\ntarget = "x"' if kind == "table" else ""
    return f'[data]\nkind = "{kind}"\npath = "{path}"\n{more}'


def test_unchanged_message_is_answered(sent: tuple[ClientApp, Message], tmp_path: Path) -> None:
    assert "arrays" in answered(sent, tmp_path, lambda content: None), "else the tests below prove nothing"


ORDERS: dict[str, tuple[Change, str]] = {
    "many clients": (key("clients", [0] * 1_000_000), "and the message is for 1,000,000"),
    "clients twice": (key("clients", [3, 3]), "the message is for client"),
    "clients of others": (key("clients", [99]), "the message is for client 99"),
    "negative client": (key("clients", [-1]), "the message is for client -1"),
    "clients in words": (key("clients", ["../x"]), "'clients' must list clients"),
    "no clients": (key("clients", []), "and the message is for 0"),
    "stamps in words": (key("state-rounds", ["../../x", "y", "z"]), "'state-rounds' must have"),
    "few stamps": (key("state-rounds", [1]), "'state-rounds' must have"),
    "negative stamps": (key("state-rounds", [-1, -1, -1]), "'state-rounds' must have"),
    "checkpoint in words": (key("checkpoint-round", "5"), "'checkpoint-round' must be a whole number"),
    "checkpoint nan": (key("checkpoint-round", math.nan), "'checkpoint-round' must be a whole number"),
    "run of no name": (key("run", ""), "must name its run"),
    "run of a long name": (key("run", "x" * 10_000), "must name its run"),
    "run that is a number": (key("run", 7), "must name its run"),
    "round 0": (key("server-round", 0), "no 'server-round'"),
    "round -5": (key("server-round", -5), "no 'server-round'"),
    "long scenario": (key("scenario", "#" * (LONGEST_SCENARIO + 1)), "at most 1,048,576 are accepted"),
    "scenario that is no text": (key("scenario", 7), "of the server is a int"),
    "scenario that is no TOML": (key("scenario", "\x00"), "is no TOML"),
    "deep scenario": (key("scenario", "a = " + "[" * 50_000), "is no TOML"),
    "file of the machine": (key("scenario", data("/etc/passwd")), "outside of the folder"),
    "folder above": (key("scenario", data("../../../../../../etc/passwd")), "outside of the folder"),
    "pattern": (key("scenario", data("/etc/*")), "outside of the folder"),
    "home": (key("scenario", data("~/.ssh/id_rsa")), "outside of the folder"),
    "download": (key("scenario", data("someone/private", "huggingface")), "it downloads nothing for a server"),
}


@pytest.mark.parametrize("case", ORDERS)
def test_hostile_message_is_refused_and_leaves_no_file(
    case: str, sent: tuple[ClientApp, Message], tmp_path: Path
) -> None:
    change, words = ORDERS[case]
    with pytest.raises(FedscapeError, match=words) as error:
        answered(sent, tmp_path / "states", change)
    assert len(str(error.value)) < 1000
    assert not (tmp_path / "states").exists()


@pytest.mark.parametrize("make", [pickled_array, bare_pickle, zipped_array])
def test_pickled_model_is_refused_without_executing_it(
    make: Callable[[Path], Array], sent: tuple[ClientApp, Message], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="array 'parameters'"):
        answered(sent, tmp_path / "states", model(make(tmp_path / "executed")))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "array", [Array("float32", (1,), "numpy.ndarray", stated((10**12,))), Array(np.zeros(3, np.float32))]
)
def test_model_of_another_shape_is_refused(array: Array, sent: tuple[ClientApp, Message], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="array 'parameters' is float32 of shape"):
        answered(sent, tmp_path, model(array))


def test_broadcast_of_another_shape_is_refused(sent: tuple[ClientApp, Message], tmp_path: Path) -> None:
    def narrower(content: RecordDict) -> None:
        record = content.array_records["broadcast"]
        for name in list(record):
            record[name] = Array(np.ones(1, np.float32))

    with pytest.raises(ValueError, match="is float32 of shape"):
        answered(sent, tmp_path, narrower)


def test_end_of_a_run_deletes_the_states_of_this_run_only(sent: tuple[ClientApp, Message], tmp_path: Path) -> None:
    import torch

    (tmp_path / "precious").write_text("kept")
    states = tmp_path / "states"
    StoredStates(states, "other").write(3, 1, {"h": torch.ones(2)}, checkpoint=0)
    app, message = sent
    for name in ("../precious", "..", "/", ".", "*", "", 7, "x" * 10_000):
        content = RecordDict({"config": ConfigRecord({FINISHED: name})})
        order = Message(content, dst_node_id=message.metadata.dst_node_id, message_type=QUERY)
        context = Context(1, message.metadata.dst_node_id, {"clients": "3", "states": str(states)}, RecordDict(), {})
        with suppress(StrategyError):
            app(order, context)
    assert (tmp_path / "precious").exists()
    assert StoredStates(states, "other").read(3, 1, most=10_000) is not None


def test_states_of_another_model_are_refused(sent: tuple[ClientApp, Message], tmp_path: Path) -> None:
    import torch

    config = sent[1].content.config_records["config"]
    states = StoredStates(tmp_path, str(config["run"]))
    clients = config["clients"]
    assert isinstance(clients, list)
    answered(sent, tmp_path, lambda content: None)
    (name,) = states.read(int(clients[0]), 1, most=10**7) or {}
    for client in clients:
        states.write(int(client), 1, {name: torch.ones(3)}, checkpoint=0)
    with pytest.raises(StrategyError, match="have another model's size"):
        answered(sent, tmp_path, key("state-rounds", [1] * len(clients)))
    for client in clients:
        states.write(int(client), 1, {name: torch.ones(10**6)}, checkpoint=0)
    with pytest.raises(StrategyError, match="bytes, and at most"):
        answered(sent, tmp_path, key("state-rounds", [1] * len(clients)))


def test_node_opens_its_working_folder_or_the_one_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("/etc")
    assert read_node_config({"clients": "1"}).files == tmp_path
    assert read_node_config({"clients": "1", "files": "a"}).files == Path("a")
    assert read_node_config({"partition-id": 1}).files is None, "Flower's simulation is on the server's machine"
    with pytest.raises(StrategyError, match="must be a folder"):
        read_node_config({"clients": "1", "files": "none"})
    assert scenario_text(data("a/x.csv"), tmp_path)
    assert scenario_text(data("/etc/passwd"), None)
    monkeypatch.chdir("/")
    assert read_node_config({"clients": "1"}).files == Path("/data"), "a container may start there"
    monkeypatch.chdir(tmp_path)
    for path in ("b.csv", "a/../b.csv", "link/passwd", "../x"):
        with pytest.raises(StrategyError, match="outside of the folder"):
            scenario_text(data(path), tmp_path / "a")


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(
        st.sampled_from(["clients", "state-rounds", "checkpoint-round", "run", "server-round", "scenario", "grouped"]),
        st.one_of(
            st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=20), st.binary(max_size=5), st.booleans(),
            st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3), st.lists(st.text(max_size=5), max_size=3),
        ),
        min_size=1,
    )
)  # fmt: skip
def test_any_config_is_answered_or_refused_in_words(
    sent: tuple[ClientApp, Message], tmp_path_factory: pytest.TempPathFactory, changed: dict[str, Any]
) -> None:
    states = tmp_path_factory.mktemp("states")
    with suppress(FedscapeError):
        answered(sent, states, lambda content: content.config_records["config"].update(changed))
    assert all(len(folder.name) == 24 for folder in states.iterdir()), "a run's folder is a hash"
