"""ClientApps that fail, return invalid replies, or are not supported: counted, named or refused, never a hang."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from quickstart import (
    app,
    changed,
    client_of,
    returning,
    run_app,
    train,
)

from clients.core.errors import EngineError, StrategyError
from server.record.checked.line_files import read_rounds

pytestmark = pytest.mark.usefixtures("one_thread")


def test_failing_client_is_counted_and_the_round_continues(tmp_path: Path) -> None:
    def sometimes(message: Message, context: Context) -> Message:
        if client_of(context) == 2 and message.content["config"]["server-round"] == 2:
            raise RuntimeError("the disk is on fire")
        return train(message, context)

    run = run_app(changed(sometimes), record=True, out=tmp_path / "run")
    assert [line["failures"] for line in run.rounds.lines[1:]] == [0, 1, 0, 0]
    assert [line["respondents"] for line in run.rounds.lines[1:]] == [6, 5, 6, 6]
    assert run.rounds["bytes_up"][2] == run.rounds["bytes_up"][1] * 5 / 6
    events, _ = read_rounds(tmp_path / "run" / "events.jsonl")
    place = f"at {__file__}, line {sometimes.__code__.co_firstlineno + 2}, in sometimes"
    raised = f'RuntimeError: the disk is on fire ({place}: raise RuntimeError("the disk is on fire"))'
    expected = f"1 of 6 clients failed; the first error: {raised}"
    assert [(e["round"], e["kind"], e["message"]) for e in events] == [(2, "clients_failed", expected)]


def test_failing_client_is_logged_once_with_the_line(caplog: pytest.LogCaptureFixture) -> None:
    def never_two(message: Message, context: Context) -> Message:
        if client_of(context) == 2:
            raise RuntimeError("the disk is on fire")
        return train(message, context)

    run_app(changed(never_two))
    (logged,) = [r.getMessage() for r in caplog.records if "failed" in r.getMessage()]
    assert logged.startswith("fedscape: round 1: 1 of 6 clients failed; the first error: RuntimeError: the disk is on")
    assert f"at {__file__}, line" in logged
    assert logged.endswith("run.rounds['failures'] counts them in each round.")


@pytest.mark.parametrize("strategy", [None, FedAvg])
def test_all_clients_failing_is_an_error_with_the_reason(strategy: type[FedAvg] | None, tmp_path: Path) -> None:
    """Flower alone would report a success with an empty model."""

    def never(message: Message, context: Context) -> Message:
        if message.content["config"]["server-round"] == 2:
            raise RuntimeError("no data here")
        return train(message, context)

    given = {"record": True, "out": tmp_path / "run"}
    with pytest.raises(StrategyError) as error:
        run_app(changed(never), strategy=strategy() if strategy else None, **given)
    assert str(error.value).startswith(
        f"clients: all 6 clients of the round failed; the first error: RuntimeError: no data here (at {__file__}, line "
        f'{never.__code__.co_firstlineno + 2}, in never: raise RuntimeError("no data here")). Correct the ClientApp.'
    )
    lines, _ = read_rounds(tmp_path / "run" / "rounds.jsonl")
    assert [line["round"] for line in lines] == [0, 1], "the record is incomplete"


def test_handler_missing_or_returning_nothing_is_a_failure() -> None:
    with pytest.raises(StrategyError, match="error: TypeError: the ClientApp returned NoneType, not a Message"):
        run_app(changed(lambda message, context: None))
    with pytest.raises(StrategyError, match="No train function registered"):
        run_app(ClientApp())


@pytest.mark.parametrize("strategy", [None, FedAvg])
def test_clients_without_examples_are_an_error(strategy: type[FedAvg] | None) -> None:
    with pytest.raises(StrategyError, match="all 6 respondents of the round report 0 examples"):
        run_app(returning(dict, **{"num-examples": 0}), strategy=strategy() if strategy else None)


def test_client_without_examples_has_no_weight() -> None:
    def handler(message: Message, context: Context) -> Message:
        reply = train(message, context)
        if client_of(context) == 0:
            wild = {k: v + 100 for k, v in reply.content["arrays"].to_torch_state_dict().items()}
            reply.content["arrays"] = ArrayRecord(wild)
            reply.content["metrics"]["num-examples"] = 0
        return reply

    run = run_app(changed(handler))
    assert float(run.params.abs().max()) < 10
    assert run.rounds["validation_accuracy"][-1] > 0.6


def test_client_returning_nan_diverges_the_run() -> None:
    def handler(message: Message, context: Context) -> Message:
        reply = train(message, context)
        if client_of(context) == 4 and message.content["config"]["server-round"] == 3:
            reply.content["arrays"] = ArrayRecord(
                {k: v * float("nan") for k, v in reply.content["arrays"].to_torch_state_dict().items()}
            )
        return reply

    for strategy in (None, FedAvg()):
        run = run_app(changed(handler), strategy=strategy)
        assert (run.verdict.outcome, run.verdict.round_index) == ("diverged", 3)
        assert run.outcome["last_finite_round"] == 2
        assert torch.isfinite(run.params).all(), "the final model is not finite"
        line = run.rounds.lines[-1]
        assert line["round"] == 3
        assert np.isnan(line["update_dispersion"])
        assert line["worst"]["update_norm"][0]["client"] == 4, "the record does not name the client"


def test_reply_that_averaging_cannot_use_is_named() -> None:
    cases = [
        (returning(dict, **{"num-examples": None}), "client 0 returned no number as 'num-examples'"),
        (returning(lambda s: {k: v for k, v in s.items() if k != "head.bias"}), "array 'head.bias' is missing"),
        (
            returning(lambda s: {**s, "head.bias": torch.zeros(4)}),
            "array 'head.bias' is float32 of shape (4,); numbers of shape (3,) were exp",
        ),
    ]
    for client_app, expected in cases:
        with pytest.raises(StrategyError) as error:
            run_app(client_app)
        assert f"clients: returned what fedavg cannot use: {expected}" in str(error.value)


def test_reply_that_flowers_strategy_cannot_use_is_named() -> None:
    with pytest.raises(StrategyError, match=r"FedAvg.aggregate_train raised InconsistentMessageReplies"):
        run_app(returning(dict, **{"num-examples": None}), strategy=FedAvg())


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (["algorithm.kind=fedprox"], "algorithm.kind: is 'fedprox', which changes how clients train"),
        (["algorithm.kind=scaffold", "algorithm.weighting="], "is 'scaffold', which changes how clients train"),
        (["algorithm.kind=fednova"], "is 'fednova', which needs local steps"),
        (["algorithm.partial_work=drop"], "algorithm.partial_work: is 'drop', which needs local steps"),
        (["local.batch_size=full", "local.local_epochs=1", "algorithm.kind=fedsgd"], "is 'fedsgd', which changes"),
    ],
)
def test_row_that_needs_our_clients_is_refused(sets: list[str], expected: str) -> None:
    with pytest.raises(StrategyError) as error:
        run_app(app, *sets)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("section", "sets"),
    [
        ("faults", ["faults.noisy.kind=noise"]),
        ("drifts", ["drifts.turn.kind=abrupt"]),
        ("features", ["features.normalise=federated"]),
    ],
)
def test_section_that_changes_our_clients_data_is_refused(section: str, sets: list[str]) -> None:
    with pytest.raises(StrategyError, match=f"^{section}: change the data of fedscape's own clients, and your Client"):
        run_app(app, *sets)


def test_named_engine_with_a_client_app_is_refused() -> None:
    with pytest.raises(EngineError, match=r"engine.kind: is 'plain', but your ClientApp trains. Leave it out."):
        run_app(app, "engine.kind=plain")
