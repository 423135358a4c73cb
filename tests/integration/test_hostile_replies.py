"""One hostile node: each of its replies is dropped, counted and named, and the run goes on with the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, Strategy
from hostile_nodes import HostileGrid, bare_pickle, pickled_array, stated, zipped_array
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_folders import digits

from clients.core.errors import StrategyError
from clients.flower.messages import repeated
from server.record.records import RunFolder
from simulator.runs.run import Run, simulate

PLAIN = ("engine.kind=plain", "engine.tile=", "engine.compile=", "run.rounds=3", "algorithm.cohort=8")
FAULTS = ("faults.wrong.kind=label_symmetric", "faults.wrong.severity=0.5")
Change = Callable[[Message], None]


def metric(name: str, value: object) -> Change:
    def change(reply: Message) -> None:
        reply.content.metric_records["metrics"][name] = value  # type: ignore[index]

    return change


def array(value: Array, name: str = "parameters", record: str = "arrays") -> Change:
    def change(reply: Message) -> None:
        reply.content.array_records[record][name] = value

    return change


def counted(names: list[str], changed: list[float], effect: list[float]) -> Change:
    def change(reply: Message) -> None:
        reply.content["faults"] = ConfigRecord({"names": names, "changed": changed, "effect": effect})

    return change


def without_arrays(reply: Message) -> None:
    del reply.content["arrays"]


def many_records(reply: Message) -> None:
    reply.content["more"] = MetricRecord({f"m{k}": 1.0 for k in range(5000)})


def long_text(reply: Message) -> None:
    reply.content["more"] = ConfigRecord({"text": "x" * 1_000_000})


def few(shape: tuple[int, ...], data: bytes = b"", dtype: str = "float32") -> Array:
    return Array(dtype, shape, "numpy.ndarray", data)


UPDATES: dict[str, tuple[Change, str]] = {
    "huge shape": (array(few((2, 10), stated((2, 10**12)))), "is float32 of shape (2, 1000000000000)"),
    "no bytes": (array(few((2, 10))), "is not in NumPy's format"),
    "type of no name": (array(few((2, 10), b"x" * 100, "no type")), "is not in NumPy's format"),
    "impossible metadata": (array(few((-1, 10**30), b"x" * 100)), "is not in NumPy's format"),
    "other serialisation": (array(Array("float32", (2,), "cloudpickle", b"x")), "is not in NumPy's format"),
    "many bytes": (array(few((1,), b"x" * 2_000_000), "more"), "bytes of arrays, and at most"),
    "no arrays": (without_arrays, "there are no arrays"),
    "a million clients": (metric("client", [0] * 1_000_000), "it is for 1,000,000 clients"),
    "many metrics": (metric("more", [0.0] * 10_000), "metrics, and at most"),
    "many names": (many_records, "metrics, and at most"),
    "long text": (long_text, "characters of names and texts"),
    "client of no index": (metric("client", [4.0, 5.0]), "returned no whole number as 'client'"),
    "client beyond 64 bits": (metric("client", [4, 2**70]), "returned no whole number as 'client'"),
    "steps beyond the work": (metric("local-steps", [9 * 10**18, 1]), "returned no number as 'local-steps'"),
    "many steps": (metric("local-steps", [10**9, 1]), "client 4 reports 1000000000 local steps"),
    "no step": (metric("local-steps", [0, 1]), "client 4 reports 0 local steps"),
    "steps that are nan": (metric("local-steps", [math.nan, 1.0]), "returned no number as 'local-steps'"),
    "errors": (metric("train-errors", [10**12, 1]), "client 4 reports 1000000000000 errors in training"),
    "infinite loss": (metric("train_loss", [math.inf, 1.0]), "client 4 reports train-loss = inf"),
    "nan loss": (metric("train_loss", [1.0, math.nan]), "client 5 reports train-loss = nan"),
    "largest loss": (metric("train_loss", [1e308, 1.0]), "client 4 reports train-loss = 1e+308"),
    "negative drift": (metric("client-drift", [-1.0, 1.0]), "client 4 reports client-drift = -1"),
    "nan drift": (metric("client-drift", [math.nan, 1.0]), "client 4 reports client-drift = nan"),
    "infinite norm": (metric("gradient-norm", [1.0, math.inf]), "client 5 reports gradient-norm = inf"),
    "one loss for both": (metric("client-drift", [1.0]), "'client-drift' has 1 values for 2 clients"),
    "other faults": (counted(["\x1b[2Jfault"], [0.5, 0.5], [1.0, 1.0]), "it counts other faults"),
    "share above 1": (counted(["wrong"], [7.0, 0.5], [1.0, 1.0]), "are no shares and effects"),
    "nan effect": (counted(["wrong"], [0.5, 0.5], [math.nan, 1.0]), "are no shares and effects"),
    "fewer counts": (counted(["wrong"], [0.5], [1.0]), "cannot be decoded"),
}


def numbers_in(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from numbers_in(item)
    elif isinstance(value, int | float):
        yield float(value)


OF_CLIENTS = ("train_", "client_", "worst_", "largest_", "local_", "faults", "federated", "bytes_", "aggregate_norm",
              "simulated_seconds", "update_norm")  # fmt: skip
"""How keys of a round begin that follow from what clients report."""


def assert_dropped(run: Run, folder: Path, words: str, kind: str = "update_rejected") -> None:
    events = [e for e in RunFolder(folder).read_events().values if e["kind"] == kind]
    assert [(e["round"], e["clients"]) for e in events] == [(2, [4, 5])]
    assert words in events[0]["message"]
    assert len(events[0]["message"]) < 500
    assert torch.isfinite(run.params).all()
    text = b"".join(f.read_bytes() for f in folder.glob("*.jsonl"))
    assert b"\x1b" not in text
    for line in RunFolder(folder).read_rounds().values[1:]:
        reported = {key: value for key, value in line.items() if key.startswith(OF_CLIENTS)}
        assert reported.keys() >= {"train_loss", "client_drift", "bytes_up"}
        assert all(math.isfinite(n) and abs(n) < 1e15 for n in numbers_in(reported)), reported


@pytest.mark.parametrize("case", UPDATES)
def test_hostile_update_is_dropped_and_named(case: str, tmp_path: Path) -> None:
    change, words = UPDATES[case]
    scenario = digits(*PLAIN, *FAULTS)
    run = simulate(scenario, grid=HostileGrid(scenario, change), out=tmp_path / "run")
    assert run.rounds["respondents"].tolist()[1:] == [8, 6, 8]
    assert_dropped(run, tmp_path / "run", words)


@pytest.mark.parametrize("make", [pickled_array, bare_pickle, zipped_array])
def test_pickled_update_is_refused_without_executing_it(make: Callable[[Path], Array], tmp_path: Path) -> None:
    scenario = digits(*PLAIN)
    grid = HostileGrid(scenario, array(make(tmp_path / "executed")))
    run = simulate(scenario, grid=grid, out=tmp_path / "run")
    assert_dropped(run, tmp_path / "run", "array 'parameters'")
    assert not (tmp_path / "executed").exists()


def test_control_variate_of_another_shape_is_refused(tmp_path: Path) -> None:
    scenario = digits(*PLAIN, "algorithm.kind=scaffold", "algorithm.weighting=")

    def narrower(reply: Message) -> None:
        record = reply.content.array_records["extras"]
        for name in list(record):
            record[name] = Array(np.ones((2, 1), np.float32))

    run = simulate(scenario, grid=HostileGrid(scenario, narrower), out=tmp_path / "run")
    assert_dropped(run, tmp_path / "run", "is float32 of shape (2, 1)")


def test_fednova_is_not_steered_by_a_node_that_reports_few_steps(tmp_path: Path) -> None:
    scenario = digits(*PLAIN, "algorithm.kind=fednova", "algorithm.weighting=")
    run = simulate(scenario, grid=HostileGrid(scenario, metric("local-steps", [0, 0])), out=tmp_path / "run")
    assert_dropped(run, tmp_path / "run", "client 4 reports 0 local steps")


@pytest.mark.parametrize("lost", [[math.nan], [10**9], [0, 1], [-1], [4.0]])
def test_lost_states_of_clients_that_were_not_sent_are_not_recorded(lost: list[float], tmp_path: Path) -> None:
    scenario = digits(*PLAIN)
    run = simulate(scenario, grid=HostileGrid(scenario, metric("state-lost", lost)), out=tmp_path / "run")
    assert run.rounds["respondents"].tolist()[1:] == [8, 8, 8]
    assert "client_states_lost" not in [e["kind"] for e in RunFolder(tmp_path / "run").read_events().values]


def is_of_round_2(message: Message) -> bool:
    config = message.content.config_records["config"]
    return message.metadata.message_type == "train" and config["server-round"] == 2


def test_reply_to_the_message_of_another_node_is_not_used(tmp_path: Path) -> None:
    scenario = digits(*PLAIN)

    class Posing(HostileGrid):
        def _reply(self, message: Message) -> Message:
            reply = super()._reply(message)
            held = self.contexts[message.metadata.dst_node_id].node_config["clients"]
            if held == "4-5" and is_of_round_2(message):
                reply.metadata.__dict__["_src_node_id"] = next(iter(self.contexts))
            return reply

    run = simulate(scenario, grid=Posing(scenario, lambda reply: None), out=tmp_path / "run")
    events = [e for e in RunFolder(tmp_path / "run").read_events().values if e["kind"] == "update_rejected"]
    assert ["it answers no message of this round to its node" in e["message"] for e in events] == [True]
    assert np.isfinite(run.rounds["train_loss"][1:]).all()


EVALUATIONS: dict[str, tuple[Change, str]] = {
    "other clients": (metric("client", [0, 1]), "it is for clients 0, 1, and clients 4, 5 were sent the model"),
    "no such client": (metric("client", [4, 10**6]), "it is for clients 4, 1000000"),
    "a client twice": (metric("client", [4, 4]), "it is for clients 4, 4"),
    "many clients": (metric("client", [4] * 100_000), "it is for 100,000 clients"),
    "nan loss": (metric("loss", [math.nan, 1.0]), "a loss or a score is not finite"),
    "infinite loss": (metric("loss", [math.inf, 1.0]), "a loss or a score is not finite"),
    "negative loss": (metric("loss", [-5.0, 1.0]), "a loss or a score is negative"),
    "accuracy of 7": (metric("accuracy", [7.0, 1.0]), "an accuracy is above 1"),
    "many examples": (metric("num-examples", [10**12, 1]), "client 4 reports 1000000000000 examples"),
    "nan examples": (metric("num-examples", [math.nan, 1.0]), "it has no number of examples, loss and accuracy"),
    "negative examples": (metric("num-examples", [-3, 1]), "client 4 reports -3 examples"),
    "counts of other classes": (metric("class-right", [1, 2]), "it has no counts by class"),
    "counts that do not add up": (metric("class-examples", [10**9] * 20), "its counts by class do not add up"),
    "arrays": (array(few((1,), b"x" * 1_000_000), "w", "model"), "bytes of arrays"),
}


def with_record(change: Change) -> Change:
    def made(reply: Message) -> None:
        reply.content["model"] = ArrayRecord()
        change(reply)

    return made


@pytest.mark.parametrize("case", EVALUATIONS)
def test_hostile_evaluation_is_dropped_and_named(case: str, tmp_path: Path) -> None:
    change, words = EVALUATIONS[case]
    scenario = digits(*PLAIN, "evaluation.federated_every=1")
    grid = HostileGrid(scenario, with_record(change), kind="evaluate")
    run = simulate(scenario, grid=grid, out=tmp_path / "run")
    assert_dropped(run, tmp_path / "run", words, "evaluation_rejected")
    assert np.isfinite(run.rounds["federated_loss"][1:]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_wrapper_of_privacy_gets_no_hostile_update(bad: float, tmp_path: Path) -> None:
    scenario = digits(*PLAIN, "nodes.max_update_norm=1e4")

    def wrapped(ours: Any) -> DifferentialPrivacyServerSideFixedClipping:
        return DifferentialPrivacyServerSideFixedClipping(ours, 0.0, 1e6, 8)

    def filled(reply: Message) -> None:
        name, old = next(iter(reply.content.array_records["arrays"].items()))
        reply.content.array_records["arrays"][name] = Array(np.full(old.shape, bad, np.float32))

    grid = HostileGrid(scenario, filled)
    run = simulate(scenario, strategy=wrapped, grid=grid, out=tmp_path / "run")
    assert run.rounds["respondents"].tolist()[1:] == [8, 6, 8]
    assert torch.isfinite(run.params).all()
    kinds = [e["kind"] for e in RunFolder(tmp_path / "run").read_events().values]
    assert kinds.count("update_rejected") == 2, "one message a client"


class Copying(Strategy):
    """Wraps ours as Flower's accounted privacy does: it sends a list of copies, and looks at each reply's numbers.

    Args:
        ours: the wrapped strategy.
        copied: a message of ours -> the message that is sent.
    """

    def __init__(self, ours: Strategy, copied: Callable[[Message], Message]) -> None:
        self.ours, self.copied, self.weights = ours, copied, list[object]()

    def configure_train(self, *arguments: Any) -> list[Message]:
        return [self.copied(message) for message in self.ours.configure_train(*arguments)]

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        kept = list(replies)
        self.weights += [m.content.metric_records["metrics"]["num-examples"] for m in kept]
        return self.ours.aggregate_train(server_round, kept)

    def configure_evaluate(self, *arguments: Any) -> list[Message]:
        return [self.copied(message) for message in self.ours.configure_evaluate(*arguments)]

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> Any:
        return self.ours.aggregate_evaluate(server_round, list(replies))

    def summary(self) -> None:
        pass


COPIES: dict[str, Callable[[Message], Message]] = {"same objects": lambda message: message, "new objects": repeated}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("value", [10**12, -1, math.nan])
def test_wrapper_that_copies_messages_gets_no_hostile_update(how: str, value: object, tmp_path: Path) -> None:
    scenario, made = digits(*PLAIN), list[Copying]()

    def wrapped(ours: Strategy) -> Copying:
        made.append(Copying(ours, COPIES[how]))
        return made[0]

    grid = HostileGrid(scenario, metric("num-examples", value))
    run = simulate(scenario, strategy=wrapped, grid=grid, out=tmp_path / "run")
    assert run.rounds["respondents"].tolist()[1:] == [8, 6, 8]
    assert np.nan_to_num(run.rounds["rejected"]).tolist()[1:] == [0, 2, 0]
    events = [e for e in RunFolder(tmp_path / "run").read_events().values if e["kind"] == "update_rejected"]
    assert sorted((e["round"], *e["clients"]) for e in events) == [(2, 4), (2, 5)]
    assert len(made[0].weights) == 22
    assert set(made[0].weights) == set(run.session.population.sizes.tolist())


@pytest.mark.parametrize("how", COPIES)
def test_wrapper_that_copies_messages_gets_no_hostile_evaluation(how: str, tmp_path: Path) -> None:
    scenario = digits(*PLAIN, "evaluation.federated_every=1")
    grid = HostileGrid(scenario, metric("loss", -5.0), kind="evaluate")
    wrapped = partial(Copying, copied=COPIES[how])
    run = simulate(scenario, strategy=wrapped, grid=grid, out=tmp_path / "run")
    events = [e for e in RunFolder(tmp_path / "run").read_events().values if e["kind"] == "evaluation_rejected"]
    assert sorted((e["round"], *e["clients"]) for e in events) == [(2, 4), (2, 5)]
    assert (run.rounds["federated_loss"][1:] > 0).all()


def test_wrapper_that_sends_copies_to_fewer_clients_trains_them_alone() -> None:
    """The others of the cohort are not counted as silent."""
    scenario = digits(*PLAIN)

    class Fewer(Copying):
        def configure_train(self, *arguments: Any) -> list[Message]:
            return super().configure_train(*arguments)[::3]

    wrapped = partial(Fewer, copied=repeated)
    run = simulate(scenario, strategy=wrapped, grid=HostileGrid(scenario, lambda reply: None), record=False)
    assert run.rounds["cohort"].tolist()[1:] == [3, 3, 3]
    assert run.rounds["respondents"].tolist()[1:] == [3, 3, 3]


def test_reply_to_a_message_of_the_wrapper_alone_is_not_used(tmp_path: Path) -> None:
    """The wrapper sends a node one message more, for two of its clients at once."""
    scenario = digits(*PLAIN, "run.rounds=1")

    class More(Copying):
        def configure_train(self, *arguments: Any) -> list[Message]:
            made = super().configure_train(*arguments)
            content = RecordDict(dict(made[-1].content))
            changed = {"clients": [6, 7], "grouped": True, "state-rounds": [0, 0]}
            content["config"] = ConfigRecord({**made[-1].content.config_records["config"], **changed})
            node = next(n for n, c in grid.contexts.items() if c.node_config["clients"] == "3,6,7")
            return [*made, Message(content, dst_node_id=node, message_type="train")]

    grid = HostileGrid(scenario, lambda reply: None)
    run = simulate(scenario, strategy=partial(More, copied=repeated), grid=grid, out=tmp_path / "run")
    assert run.rounds["respondents"].tolist()[1:] == [8]
    events = [e["message"] for e in RunFolder(tmp_path / "run").read_events().values if e["kind"] == "update_rejected"]
    assert ["it answers no message of this round to its node" in message for message in events] == [True]


def test_wrapper_that_does_not_ask_ours_for_messages_is_refused() -> None:
    scenario = digits(*PLAIN)

    class Alone(Copying):
        def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any) -> Any:
            content = RecordDict({"arrays": arrays, "config": config})
            return [Message(content, dst_node_id=n, message_type="train") for n in grid.get_node_ids()]

    with pytest.raises(StrategyError, match="Alone wraps ours and sends messages that ours did not make"):
        simulate(scenario, strategy=partial(Alone, copied=repeated),
                 grid=HostileGrid(scenario, lambda reply: None), record=False)  # fmt: skip


def test_error_of_a_node_is_cut(tmp_path: Path) -> None:
    scenario = digits(*PLAIN)

    def failing(reply: Message) -> None:
        raise ValueError("x" * 1_000_000)

    class Failing(HostileGrid):
        def _reply(self, message: Message) -> Message:
            from flwr.app import Error

            try:
                return super()._reply(message)
            except ValueError as error:
                return Message(Error(code=2, reason=str(error)), reply_to=message)

    simulate(scenario, grid=Failing(scenario, failing), out=tmp_path / "run")
    assert (tmp_path / "run" / "events.jsonl").stat().st_size < 20_000


NAMES = ["client", "num-examples", "local-steps", "train_loss", "train-errors", "client-drift", "gradient-norm",
         "server-round", "state-lost"]  # fmt: skip
VALUES = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.floats(), st.lists(st.integers(-(2**63), 2**64 - 1), max_size=3),
    st.lists(st.floats(), max_size=3),
)  # fmt: skip


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1, max_size=3))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_metrics_of_one_node_end_a_run(changed: dict[str, object]) -> None:
    scenario = digits(*PLAIN, "run.rounds=2")

    def change(reply: Message) -> None:
        reply.content.metric_records["metrics"].update(changed)  # type: ignore[arg-type]

    run = simulate(scenario, grid=HostileGrid(scenario, change), record=False)
    assert run.rounds["respondents"][-1] in (6, 8)
    assert torch.isfinite(run.params).all()
    assert np.isfinite(run.rounds["train_loss"][1:]).all()
