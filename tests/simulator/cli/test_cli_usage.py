"""A mistake on the command line exits with 2 and one line with the option and the nearest valid one."""

from __future__ import annotations

import pytest
from run_folders import Capture, mistake


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("run --sed 3", "--sed: is not an option of fedscape run. Nearest: --seed. See fedscape run --help"),
        ("run --remote-writ x", "--remote-writ: is not an option of fedscape run. Nearest: --remote-write. See"),
        (
            "run --rounds 5",
            "--rounds: is not an option of fedscape run. A key of the scenario: --set run.rounds=VALUE.",
        ),
        ("run --local-lr 1", "A key of the scenario: --set local.local_lr=VALUE. See fedscape run --help"),
        ("data --rounds 3", "Nearest: --round. A key of the scenario: --set run.rounds=VALUE. See fedscape data"),
        ("resume r --rounds 5", "--rounds: is not an option of fedscape resume. See fedscape resume --help"),
        (
            "run --device cuda",
            "--device: is not an option of fedscape run. Clients train on the CPU unless engine.device",
        ),
        ("run --gpu", "--gpu: is not an option of fedscape run. Clients train on the CPU unless engine.device"),
        ("run --config x", "--config: is not an option of fedscape run. The scenario is the first word after the"),
        ("run --output-dir x", "The run's folder is an option of the command: --out FOLDER (out= in Python). See fed"),
        ("run --num-rounds 5", "--num-rounds: is not an option of fedscape run. Use --set run.rounds=N. See fedscape"),
        ("run --epochs 5", "Use --set local.local_epochs=N. See fedscape run --help"),
        ("resume r --device cuda", "--device: is not an option of fedscape resume. See fedscape resume --help"),
        (
            "run digits-iid rounds=5",
            "Got unexpected extra argument (rounds=5). Did you mean --set rounds=5? See ",
        ),
        (
            "run digits-iid --set rounds 5",
            "unexpected extra argument (5). Did you mean --set rounds=5? See ",
        ),
        ("run digits-iid --set rounds = 5", "arguments (= 5). Did you mean --set rounds=5? See "),
        ("train", "'train' is not a command of fedscape. Use fedscape run. See fedscape --help"),
        ("init", "'init' is not a command of fedscape. Use fedscape show NAME > my.toml, then fedscape run my.toml."),
        ("show -x", "-x: is not an option of fedscape show. See fedscape show --help"),
        ("run --seed x", "--seed: 'x' is not a valid integer. See fedscape run --help"),
        ("run --set", "--set: needs a value. See fedscape run --help"),
        ("run --tensorboard=3", "--tensorboard: does not take a value. See fedscape run --help"),
        ("resume", "RUN: is missing. See fedscape resume --help"),
        ("report", "RUN: is missing. See fedscape report --help"),
        (
            "export r",
            "--to: is missing; one of remote-write, openmetrics, tensorboard, wandb, mlflow. See fedscape export",
        ),
        (
            "export r --to x",
            "--to: 'x' is not one of 'remote-write', 'openmetrics', 'tensorboard', 'wandb', 'mlflow'. See",
        ),
        ("show a b", "Got unexpected extra argument (b). See fedscape show --help"),
        ("shw", "'shw' is not a command of fedscape. Nearest: 'show'. All: run, resume, federate, certs, scenarios,"),
        ("dashboards pus", "'pus' is not a command of fedscape dashboards. Nearest: 'push'. All: list, write, push."),
        ("--verson", "--verson: is not an option of fedscape. Nearest: --version. See fedscape --help"),
        ("run --set a", "--set: must be section.key=value, got 'a'."),
        ("show no-such", "scenario: 'no-such' is not a scenario file or a built-in scenario."),
    ],
)
def test_mistake_is_one_line(arguments: str, words: str, capsys: Capture) -> None:
    assert words in mistake(capsys, *arguments.split())
