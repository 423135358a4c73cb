"""The user's own code fails: the error has the file and the line of it, the client and the round."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import FedAvg
from run_folders import digits
from torch import Tensor, nn

import fedscape as fs
from clients.core.errors import StrategyError, UserError
from clients.core.user_code import described, is_of_users_code, passes, user_place
from clients.models.build import build_model

pytestmark = pytest.mark.usefixtures("one_thread")

MINE = '''
import torch
import fedscape as fs
from torch import nn


class Picky(nn.Module):
    """Fails where a reading is above a limit."""

    def __init__(self, limit=1e9, only_training=False):
        super().__init__()
        self.limit, self.only_training = limit, only_training
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        if self.training or not self.only_training:
            self.check(x)
        return self.layer(x)

    def check(self, x):
        if bool((x > self.limit).any()):
            raise ValueError("a reading is above the limit")


class Narrow(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x)


@fs.local_rule
def rule(gradient, params, anchor, broadcast, state):
    return helper(gradient)


def helper(values):
    raise LookupError("no such layer")


def reduce(rows, weights):
    return helper(rows)


def update(aggregate, vectors, context):
    return helper(aggregate)
'''


@pytest.fixture
def mine(tmp_path: Path) -> Any:
    """Return the user's module, from a file of its own."""
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    module = ModuleType("mine")
    module.__file__ = str(path)
    exec(compile(MINE, str(path), "exec"), vars(module))
    return module


def place(mine: Any, line: str, function: str) -> str:
    """Return the place of a line of the user's module, in words; the last such line."""
    number = max(i for i, text in enumerate(MINE.splitlines(), 1) if text.strip() == line)
    return f"at {mine.__file__}, line {number}, in {function}: {line}"


def readings(high: int = 3) -> fs.Population:
    """Return five clients; one has a reading of 100."""
    x = [np.full((4, 2), 100.0 if k == high else k) for k in range(5)]
    test = (np.zeros((3, 2)), np.zeros(3, int))
    return fs.custom_population(lambda k: (x[k], np.arange(4) % 2), [4] * 5, outputs=2, validation=test, test=test)


def scenario(*sets: str) -> fs.Scenario:
    return fs.load_scenario(
        "digits-iid",
        sets=["algorithm.cohort=2", "convergence.target=", "evaluation.baselines=false", "run.rounds=30",
              "evaluation.federated_every=0", "engine.threads=1", *sets],
    )  # fmt: skip


def failure(given: fs.Scenario | None = None, kind: type[UserError] = UserError, **parts: Any) -> str:
    with pytest.raises(UserError) as error:
        fs.simulate(given or scenario(), record=False, **parts)
    assert type(error.value) is kind
    assert error.value.__cause__ is not None
    return str(error.value)


def test_model_that_fails_on_a_batch_has_the_line_of_its_forward(mine: Any) -> None:
    message = failure(model=mine.Narrow(), data=readings())
    assert message.startswith(
        "model: fails on features of shape (2,): RuntimeError: mat1 and mat2 shapes cannot be mul"
    )
    assert f"({place(mine, 'return self.layer(x)', 'forward')})" in message


@pytest.mark.parametrize("sets", [("engine.kind=plain",), ("engine.kind=plain", "local.local_epochs=2")])
def test_model_that_fails_in_a_round_names_client_and_round(mine: Any, sets: tuple[str, ...]) -> None:
    rounds: list[int] = []

    class Rounds:
        def round_finished(self, line: dict[str, Any]) -> None:
            rounds.append(line["round"])

    message = failure(scenario(*sets), model=mine.Picky(50.0), data=readings(), observers=[Rounds()])
    raised = place(mine, 'raise ValueError("a reading is above the limit")', "check")
    expected = (
        f"model: fails when training client 3 in round {rounds[-1] + 1}: ValueError: a reading is above the limit"
    )
    assert message == f"{expected} ({raised})."


def test_model_that_fails_in_evaluation_names_the_client(mine: Any) -> None:
    given = scenario("engine.kind=plain", "algorithm.cohort=1", "evaluation.federated_every=1")
    message = failure(given, model=mine.Picky(50.0), data=readings())
    assert message.startswith(
        "model: fails when evaluating client 3 in round 1: ValueError: a reading is above the lim"
    )


def test_model_that_fails_on_central_examples_names_them(mine: Any) -> None:
    high = (np.full((3, 2), 100.0), np.zeros(3, int))
    x = np.zeros((4, 2))
    data = fs.custom_population(lambda k: (x, np.arange(4) % 2), [4] * 5, outputs=2, validation=high, test=high)
    message = failure(model=mine.Picky(50.0), data=data)
    assert message.startswith("model: fails on the central validation examples in round 0: ValueError: a reading is ab")
    clean = (x, np.arange(4) % 2)
    data = fs.custom_population(lambda k: clean, [4] * 5, outputs=2, validation=clean, test=high)
    message = failure(scenario("run.rounds=1"), model=mine.Picky(50.0), data=data)
    assert message.startswith("model: fails after the last round, on test examples or in baselines: ValueError: a read")


def test_model_that_fails_in_training_mode_only_is_named_before_the_first_round(mine: Any) -> None:
    message = failure(model=mine.Picky(-1.0, only_training=True), data=readings())
    assert message.startswith("model: fails in a training pass on features of shape (4, 2): ValueError: a reading is")
    assert "above the limit (at " in message


def test_backward_pass_that_fails_is_an_error_of_the_model() -> None:
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Dropout(0.5, inplace=True), nn.Linear(4, 2))
    with pytest.raises(UserError, match=r"^model: fails .*modified by an inplace operation"):
        fs.simulate(scenario("run.rounds=1"), model=net, data=readings(), record=False)


def test_layers_of_torch_that_fail_name_the_client() -> None:
    tokens = [np.full((4, 2), 99 if k == 3 else k) for k in range(5)]
    data = fs.custom_population(
        lambda k: (tokens[k], np.arange(4) % 2), [4] * 5, outputs=2, dtype=torch.int64, validation=(tokens[0], [0] * 4)
    )
    model = nn.Sequential(nn.Embedding(10, 3), nn.Flatten(), nn.Linear(6, 2))
    message = failure(scenario("engine.kind=plain"), model=model, data=data)
    assert message.startswith("model: fails when training client 3 in round ")
    assert message.endswith(": IndexError: index out of range in self.")


@pytest.mark.parametrize(
    ("algorithm", "says"),
    [
        (lambda mine: fs.Algorithm("own", local=mine.rule), "algorithm: 'rule' fails when training client"),
        (
            lambda mine: fs.Algorithm("own", aggregation=replace(fs.weighted_mean(), reduce=mine.reduce)),
            "algorithm: 'own' fails in aggregation: LookupError",
        ),
        (
            lambda mine: fs.Algorithm("own", aggregation=replace(fs.weighted_mean(), map_update=mine.helper)),
            "algorithm: 'own' fails in aggregation: LookupError",
        ),
        (
            lambda mine: fs.Algorithm("own", server=fs.ServerTransform("own step", mine.update)),
            "algorithm: 'own' fails in aggregate_train: LookupError",
        ),
    ],
)
@pytest.mark.parametrize("engine", ["plain", "stacked"])
def test_part_of_an_algorithm_that_fails_is_named(
    algorithm: Callable[[Any], fs.Algorithm], says: str, engine: str, mine: Any
) -> None:
    given = digits(f"engine.kind={engine}", *(["engine.tile="] if engine == "plain" else []))
    message = failure(given, StrategyError, algorithm=algorithm(mine))
    assert message.startswith(says)
    raised = place(mine, 'raise LookupError("no such layer")', "helper")
    assert f"LookupError: no such layer ({raised})" in message


class Odd(FedAvg):
    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        raise AssertionError("too early")


def test_assertion_of_a_users_strategy_is_named() -> None:
    line = Odd.aggregate_train.__code__.co_firstlineno + 1
    message = failure(digits("algorithm.cohort="), StrategyError, strategy=Odd())
    source = 'raise AssertionError("too early")'
    assert message == (
        "strategy: Odd.aggregate_train raised AssertionError: too early "
        f"(at {__file__}, line {line}, in aggregate_train: {source})."
    )


def test_stop_asked_that_raises_is_named(mine: Any) -> None:
    message = failure(digits(), stop_asked=lambda: mine.helper(0))
    assert message.startswith("stop_asked: raised after round 1: LookupError: no such layer (at ")


# The helper


def caught(function: Callable[[], object]) -> Exception:
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("raised nothing")


def test_errors_of_fedscape_have_no_place_in_the_users_code() -> None:
    error = caught(lambda: build_model(None, None, 0))  # type: ignore[arg-type]
    error.__traceback__ = error.__traceback__.tb_next.tb_next if error.__traceback__ is not None else None  # type: ignore[union-attr]
    assert user_place(error) == ""
    assert not is_of_users_code(error)
    assert described(error) == "AttributeError: 'NoneType' object has no attribute 'kind'"


def test_place_is_the_innermost_frame_of_the_user() -> None:
    def outer() -> Tensor:
        return nn.Linear(3, 2)(torch.zeros(1, 4))

    error = caught(outer)
    line = outer.__code__.co_firstlineno + 1
    assert user_place(error) == f"at {__file__}, line {line}, in outer: return nn.Linear(3, 2)(torch.zeros(1, 4))"
    assert is_of_users_code(error)
    assert passes(error, [outer])
    assert not passes(error, [failure, None, len])


def test_installed_package_counts_where_nothing_else_does(tmp_path: Path) -> None:
    site = Path(sys.modules["numpy"].__file__ or "").parents[1]

    def run_as(path: Path) -> Exception:
        names: dict[str, Any] = {}
        exec(compile("def act():\n    raise OSError('no disk')\n", str(path), "exec"), names)
        error = caught(names["act"])
        assert error.__traceback__ is not None
        error.__traceback__ = error.__traceback__.tb_next  # without the frame of this file
        return error

    assert user_place(run_as(site / "their_models" / "net.py")).startswith(
        f"at {site}/their_models/net.py, line 2, in act"
    )
    assert user_place(run_as(site / "torch" / "net.py")) == ""
    assert user_place(run_as(Path("/usr/lib/python3/dist-packages/torch/net.py"))) == ""
    assert user_place(run_as(Path("/usr/lib/python3/dist-packages/theirs.py"))).endswith("theirs.py, line 2, in act")
    assert user_place(run_as(tmp_path / "net.py")).startswith(f"at {tmp_path}/net.py, line 2")


def test_long_errors_are_one_short_line() -> None:
    text = described(ValueError("a\nb " + "c" * 9999))
    assert "\n" not in text
    assert len(text) < 600
