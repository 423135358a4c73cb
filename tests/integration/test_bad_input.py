"""User mistakes: exit code 2, one clear message, no traceback, no folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from run_folders import Capture, digits, mistake
from torch import nn

from clients.core.errors import DataError, UserError
from clients.core.population import Population
from clients.sources.custom import custom_population
from simulator.runs.run import Run, simulate
from simulator.scenario.sections import load_scenario, to_toml

ALGORITHMS = (
    "fedavg, fedsgd, fedavgm, fedprox, fedadam, fedyogi, fedadagrad, scaffold, fednova, feddyn, reptile, fomaml"
)
SETS = {
    "local.locl_lr=0.1": "local.locl_lr: 'locl_lr' is not a key of [local]. Nearest: 'local_lr'.",
    "lokal.local_lr=0.1": "lokal: 'lokal' is not a key of a scenario. Nearest: 'local'.",
    "local.schedule.kinds=step": "local.schedule.kinds: 'kinds' is not a key of [local.schedule]. Nearest: 'kind'.",
    "run.rounds=many": "run.rounds: must be a whole number, got 'many'.",
    "run.rounds=2.5": "run.rounds: must be a whole number, got 2.5.",
    "local.local_lr=fast": "local.local_lr: must be a number, got 'fast'.",
    "model.hidden=many": "model.hidden: must be a list of whole numbers, got 'many'.",
    "model.hidden=[64,2.5]": "model.hidden: must be a list of whole numbers, got [64, 2.5].",
    "local=5": "local: must be a section (a table of keys), got 5. Its keys: optimizer, local_lr, ",
    "algorithm=fedprox": "algorithm: must be a section (a table of keys), got 'fedprox'. "
    "Write algorithm.kind = 'fedprox'.",
    "model=resnet18": "model: must be a section (a table of keys), got 'resnet18'. "
    "From Python, any torch.nn.Module can be",
    "data=mnst": "data: must be a section (a table of keys), got 'mnst'. "
    "Write data.kind = one of digits, images, table, ",
    "schedule=cosine": "local.schedule: must be a section (a table of keys), got 'cosine'. "
    "Write local.schedule.kind = 'cosine'.",
    "convergence=never": "convergence: must be a section (a table of keys), got 'never'. "
    "Write convergence.stop = 'never'.",
    "plateau=false": "convergence.plateau: must be a section (a table of keys), got false. "
    "Its keys: metric, min_delta, patience. To leave it out: --set convergence.plateau=.",
    "run.local_lr=0.1": "run.local_lr: 'local_lr' is not a key of [run]. All: rounds, seed, dtype, checkpoint_seconds, "
    "checkpoint_rounds, keep_parameters_every, keep_checkpoints_every, certificate. "
    "It belongs to the section [local]: local.local_lr.",
    "fleet.deadline=30": "fleet.deadline: 'deadline' is not a key of [fleet]. All: seconds_per_local_step, "
    "bytes_per_second_down, bytes_per_second_up. A round waits for all of its clients; no client is late.",
    "local.local_lr=-1": "local.local_lr: must be > 0, got -1.0.",
    "local.local_lr=nan": "local.local_lr: must be ",
    "run.rounds=0": "run.rounds: must be >= 1, got 0.",
    "algorithm.cohort=0": "algorithm.cohort: must be >= 1, got 0.",
    "partition.clients=0": "partition.clients: must be ",
    "data.test_fraction=1.5": "data.test_fraction: must be ",
    "algorithm.kind=fedaveg": f"algorithm.kind: 'fedaveg' is not an algorithm. Nearest: 'fedavg'. All: {ALGORITHMS}.",
    "data.kind=digit": "data.kind: 'digit' is not a kind of data. Nearest: 'digits'.",
    "model.kind=mpl": "model.kind: 'mpl' is not a model. Nearest: 'mlp'.",
    "partition.kind=dirichelt": "partition.kind: 'dirichelt' is not a partition. Nearest: 'dirichlet'.",
    "local.optimizer=sdg": "local.optimizer: must be 'gd', 'sgd',",
    "engine.kind=gpu": "engine.kind: must be 'auto', 'plain' or 'stacked', got 'gpu'. Clients train on the CPU",
    "run.device=cuda": "run.device: 'device' is not a key of [run]. All: rounds, seed, dtype, checkpoint_seconds, "
    "checkpoint_rounds, keep_parameters_every, keep_checkpoints_every, certificate. "
    "Clients train on the CPU unless engine.device names",
    "engine.gpu=1": "engine.gpu: 'gpu' is not a key of [engine]. All: kind, tile, compile, native, keep_bytes, "
    "threads, workers, on_worker_loss, device, tf32, bf16. ",
    "run.gpus=1": "run.gpus: 'gpus' is not a key of [run].",
    "device=gpu": "engine.device: must be 'auto', 'cpu', 'cuda' or 'cuda:N' with the number of a card, got 'gpu'.",
    "engine.device=cuda:999": "engine.device: is 'cuda:999', and t",
    "num_rounds=5": "num_rounds: is not a key of a scenario. Use --set run.rounds=N.",
    "lr=0.1": "lr: is not a key of a scenario. Use --set local.local_lr=VALUE.",
    "fraction_fit=0.1": "fraction_fit: is not a key of a scenario. Write how many clients train in a round",
    "weight_decay=1e-4": "weight_decay: is not a key of a scenario. As a penalty in the gradient",
    "client.epochs=5": "client.epochs: is not a key of a scenario. Use --set local.local_epochs=N.",
    "client.depth=5": "client: 'client' is not a key of a scenario. Nearest: 'fleet'. All: ",
    "data.kind=mnist": "data.kind: 'mnist' is not a kind of data. Nearest: 'n_baiot'.",
    "convergence.target.metric=val_loss": "convergence.target.metric: 'val_loss' is not a metric that may stop a run. "
    "Nearest: 'validation_loss'.",
    "convergence.gradient.below=0.1": "convergence.gradient: needs gradient_norm",
    "local.local_steps=3": "local.local_steps: cannot be combined with local_epochs. Give one of the two. "
    "To remove the other: --set local_epochs= or --set local_steps=.",
    "algorithm.cohort=101": "algorithm.cohort: must be at most the 100 clients that have data, got 101. Set a smaller",
    "partition.clients=5000": "partition.clients: 5000 clients cannot share 1437 examples. At most 1437 clients fit.",
    "data=": "data: is missing. Such as --set data.kind=digits",
    "rounds": "--set: must be section.key=value, got 'rounds'.",
    "run.rounds.x=3": "--set: run.rounds.x: rounds is a value, not a section.",
}


@pytest.mark.parametrize("change", SETS)
def test_invalid_change_of_a_scenario_is_refused(change: str, capsys: Capture, tmp_path: Path) -> None:
    message = mistake(capsys, "run", "--set", change, "--out", str(tmp_path / "run"))
    assert message.startswith(SETS[change])
    assert not (tmp_path / "run").exists(), "the mistake created a folder"


def test_scenario_missing_or_not_toml_is_refused(capsys: Capture, tmp_path: Path) -> None:
    message = mistake(capsys, "run", "digits-lable-skew")
    assert "'digits-lable-skew' is not a scenario file or a built-in scenario. Nearest: 'digits-label-skew'." in message
    assert "is a folder, so it is not a scenario file. It has no TOML file." in mistake(capsys, "run", str(tmp_path))
    (tmp_path / "broken.toml").write_text("[run\nrounds = 3")
    message = mistake(capsys, "run", str(tmp_path / "broken.toml"))
    assert message.startswith(f"{tmp_path / 'broken.toml'}: is not TOML:")
    assert "line 1" in message
    (tmp_path / "broken.toml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as UTF-8: byte 0xff at position 0. Save" in mistake(
        capsys, "run", str(tmp_path / "broken.toml")
    )


def test_path_that_does_not_exist_is_no_such_file(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert mistake(capsys, "run", "mine.toml") == "scenario: no such file: 'mine.toml'."
    (tmp_path / "mime.toml").touch()
    (tmp_path / "other.csv").touch()
    assert mistake(capsys, "run", "mine.toml").endswith("Nearest in that folder: 'mime.toml'.")
    assert mistake(capsys, "show", "./mine").endswith("Nearest in that folder: 'mime.toml'.")
    assert mistake(capsys, "data", "no/mine.toml") == "scenario: no such file: 'no/mine.toml'. There is no folder 'no'."
    message = mistake(capsys, "run", "digits-iid.toml")
    assert message == "scenario: no such file: 'digits-iid.toml'. 'digits-iid' without .toml is a built-in scenario."
    assert mistake(capsys, "run", ".").endswith("is not a scenario file. Name a file in it: mime.toml.")
    assert mistake(capsys, "run", "a" * 5000).startswith("scenario: 'aaa")
    assert mistake(capsys, "run", "a\0b").startswith("scenario: 'a")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("mine.json", b'{"run": {"rounds": 5}}', "Its name says JSON; a scenario is a TOML file."),
        ("mine.yaml", b"run:\n  rounds: 5\n", "Its name says YAML; a scenario is a TOML file."),
        ("mine.csv", b"time,a\n1,2\n", "Data are named inside one: [data] with kind = 'table' and path."),
        ("mine.npz", b"PK\x03\x04\xff\xfe", "Its name says an archive of arrays; a scenario is a TOML file."),
        ("mine.toml", b"[run]\nrounds = 3\n[run]\nseed = 1\n", "is not TOML: Cannot declare ('run',) twice"),
        ("mine.toml", b"[run]\nrounds = 3\nrounds = 4\n", "is not TOML: Cannot overwrite a value"),
        ("mine.toml", b"run = " + b"[" * 5000, "is not TOML"),
        ("mine.toml", b"[run]\nrounds = " + b"9" * 5000, "is not TOML: Exceeds the limit"),
        ("mine.toml", b"[run]\nrounds = 1" + b"0" * 400, "run.rounds: must be at most 1,000,000,000, got a whole "),
        ("mine.toml", b"[local]\nlocal_lr = 1e400", "local.local_lr: must be at most 1e+18, got inf: float32"),
        ("mine.toml", b"rounds = 3", "It belongs to the section [run]: run.rounds."),
        ("mine.toml", b"[training]\nepochs = 3", "The section is called [local]."),
        ("mine.toml", b"[local]\nepochs = 3", "Use --set local.local_epochs=N."),
    ],
)  # fmt: skip
def test_file_that_is_no_scenario_is_explained(
    name: str, content: bytes, words: str, capsys: Capture, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert words in mistake(capsys, "show", str(tmp_path / name))


def test_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xef\xbb\xbf[run]\nrounds = 3\n")
    assert load_scenario(tmp_path / "mine.toml").run.rounds == 3


def test_folder_of_a_run_is_no_scenario_and_says_what_is_possible(capsys: Capture, tmp_path: Path) -> None:
    over, stopped = tmp_path / "over", tmp_path / "stopped"
    simulate(digits("run.rounds=1"), out=over)
    simulate(digits(), out=stopped, stop_asked=lambda: True)
    message = mistake(capsys, "run", str(over))
    assert message.endswith(f"fedscape run {over / 'scenario.toml'}, or look at the run in it: fedscape report {over}")
    message = mistake(capsys, "run", str(stopped))
    assert message.endswith(f", or continue the run in it: fedscape resume {stopped}")


def test_mistake_in_a_file_names_the_file(capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(to_toml(digits()).replace("local_lr", "lokal_lr"))
    assert "Nearest: 'local_lr'. All: optimizer, local_lr," in (message := mistake(capsys, "run", str(file)))
    assert message.endswith(f"In {file}.")


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (lambda x, y: (np.where(np.arange(len(x))[:, None] == 7, np.nan, x), y), "must be finite, and row 7, column 0"),
        (lambda x, y: (np.where(np.arange(len(x))[:, None] == 3, np.inf, x), y), "must be finite, and row 3, column 0"),
        (lambda x, y: (x, y - 1), "row "),
        (lambda x, y: (x, y + 0.5), "must be integers"),
        (lambda x, y: (x[:-1], y), "numbers must be equal"),
    ],
)
def test_invalid_numbers_are_refused(
    broken: Callable[..., tuple[object, object]], expected: str, capsys: Capture, tmp_path: Path
) -> None:
    x, y = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32), np.arange(200) % 3
    features, labels = broken(x, y)
    np.savez(tmp_path / "set.npz", x=features, y=labels)
    sets = ["data.kind=images", f"data.path={tmp_path / 'set.npz'}", "partition.clients=4", "algorithm.cohort=2"]
    arguments = [a for s in sets for a in ("--set", s)]
    message = mistake(capsys, "run", *arguments, "--out", str(tmp_path / "run"))
    assert expected in message
    assert "set.npz" in message
    assert not (tmp_path / "run").exists()


HOURS = [f"2024-03-01 {h:02}:00" for h in range(24)]


@pytest.mark.parametrize(
    ("rows", "sets", "message"),
    [
        ([f"{t},{i if i - 4 else 'n/a'}" for i, t in enumerate(HOURS)], [], "data.columns: {}, line 6, column 'v': 'n"),
        ([f"{t};1,{i:03}" for i, t in enumerate(HOURS)], [], "data.columns: {}, line 2, column 'v': '1,000' is not a"),
        ([f"{t},{i}" for i, t in enumerate(HOURS[:3] + HOURS)], [], "data.time: {}, line 5, 2024-03-01 00:00:00: does"),
        ([f"{t[:10]} {t[11:13]}00,{i}" for i, t in enumerate(HOURS)], [], "data.time: {}, line 2, column 'time': '202"),
        ([f"{1 + i}/3/2024,{i}" for i in range(12)], [], "data.time_format: {}, line 2, column 'time': '1/3/2024' may"),
        ([f"{t},{i}" for i, t in enumerate(HOURS)], ["clients=['w']"], "data.clients: {}: 'w' is not a column. All: "),
        ([f"{t},{i}" for i, t in enumerate(HOURS)], ["encoding=utf-88"], "data.encoding: is not known: 'utf-88'. Try"),
        ([f"{t},{i}" for i, t in enumerate(HOURS)], ["time_zone=Berlin"], "data.time_zone: 'Berlin' is not a time zon"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_known_are_refused(
    rows: list[str], sets: list[str], message: str, capsys: Capture, tmp_path: Path
) -> None:
    file = tmp_path / "x.csv"
    file.write_text("\n".join([f"time{',' if ',' in rows[0] and ';' not in rows[0] else ';'}v", *rows]))
    parts = ("model", "linear"), ("algorithm", "fedavg"), ("local", "")
    sections = "".join(f"[{s}]\n" + (f"kind = '{kind}'\n" if kind else "local_lr = 0.1\n") for s, kind in parts)
    scenario = tmp_path / "s.toml"
    scenario.write_text(f"title = 'x'\n[data]\nkind = 'table'\npath = '{file}'\n{sections}")
    arguments = [a for s in sets for a in ("--set", f"data.{s}")]
    answer = mistake(capsys, "data", str(scenario), *arguments, "--out", str(tmp_path / "run"))
    assert answer.startswith(message.format(file))


# Clients from Python


def clients_of(sizes: list[int], change: Callable[[int, np.ndarray, np.ndarray], object] | None = None) -> Population:
    """Make clients with three classes; `change` may corrupt a client's arrays in place, or return others."""

    def client(k: int) -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.default_rng(k)
        labels = draw.integers(0, 3, sizes[k])
        features = np.eye(3)[labels] + 0.3 * draw.normal(size=(sizes[k], 3))
        other = change(k, features, labels) if change is not None else None
        return other if isinstance(other, tuple) else (features, labels)

    return custom_population(client, sizes, outputs=3, feature_shape=(3,))


def play(data: Population, *sets: str) -> Run:
    fixed = ["algorithm.cohort=", "convergence.stop=never", "convergence.target=", "convergence.plateau="]
    fixed += ["convergence.agreement=", "evaluation.baselines=false", "run.rounds=3", "engine.threads=1"]
    scenario = load_scenario("digits-iid", sets=[*fixed, *sets])
    return simulate(scenario, model=nn.Linear(3, 3), data=data, record=False)


@pytest.mark.parametrize("engine", ["plain", "stacked"])
@pytest.mark.parametrize(
    "sizes",
    [[12, 0, 20, 9], [1, 30, 12], [25], [1]],
    ids=["an empty client", "a client with one example", "a single client", "a single example"],
)
def test_small_clients_are_accepted(sizes: list[int], engine: str) -> None:
    run = play(clients_of(sizes), f"engine.kind={engine}")
    busy = sum(n > 0 for n in sizes)
    assert [line["cohort"] for line in run.rounds.lines[1:]] == [busy] * 3
    assert torch.isfinite(run.params).all()
    losses = run.rounds["train_loss"][1:]
    assert losses[-1] < losses[0]
    assert all("nan" not in str(line["update_norm"]) for line in run.rounds.lines[1:])


def test_client_with_one_class_trains() -> None:
    def alike(k: int, features: np.ndarray, labels: np.ndarray) -> None:
        if k == 1:
            labels[:] = 2

    run = play(clients_of([20, 30, 20], alike))
    assert run.rounds["train_loss"][-1] < run.rounds["train_loss"][1]


def test_clients_without_any_example_are_refused() -> None:
    with pytest.raises(DataError, match=r"sizes: no client has examples. Give at least one client a size above 0."):
        custom_population(lambda k: (np.zeros((0, 3)), np.zeros(0, int)), [0, 0], outputs=3)
    with pytest.raises(UserError, match="no client has any training example"):
        play(clients_of([0, 0]))


def test_batch_normalisation_refuses_a_client_with_one_example() -> None:
    with pytest.raises(UserError, match=r"local.batch_size: batch normalisation needs batches of at least 2") as error:
        simulate(
            load_scenario("digits-iid", sets=["algorithm.cohort=", "run.rounds=1"]),
            model=nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)),
            data=clients_of([1, 30]),
            record=False,
        )
    assert "group normalisation" in error.value.fix


def test_cohort_larger_than_clients_with_data_is_refused() -> None:
    with pytest.raises(UserError) as error:
        play(clients_of([12, 0, 20, 9]), "algorithm.cohort=4")
    assert str(error.value).startswith(
        "algorithm.cohort: must be at most the 3 clients that have data (1 of 4 are empty), got 4."
    )


CORRUPTED: dict[str, tuple[Callable[[int, np.ndarray, np.ndarray], object], str]] = {
    "nan": (lambda k, x, y: x.__setitem__((4, 1), np.nan), "features must be finite, and row 4, column 1 is nan"),
    "infinity": (lambda k, x, y: x.__setitem__((2, 0), np.inf), "features must be finite, and row 2, column 0 is inf"),
    "label too large": (lambda k, x, y: y.__setitem__(5, 3), "labels must be from 0 to 2 (3 outputs), and row 5 is 3"),
    "label below 0": (lambda k, x, y: y.__setitem__(5, -1), "labels must be from 0 to 2 (3 outputs), and row 5 is -1"),
    "other size": (lambda k, x, y: (x[:-1], y[:-1]), "has 19 examples, and its size is given as 20"),
    "other shape": (lambda k, x, y: (x[:, :2], y), "features have shape [2] an example, the population's have [3]"),
    "no pair": (lambda k, x, y: ((x, y, x),), "must be (features, targets), got tuple"),
}


@pytest.mark.parametrize("what", CORRUPTED)
def test_client_with_invalid_data_is_named(what: str) -> None:
    corrupt, expected = CORRUPTED[what]

    def one(k: int, features: np.ndarray, labels: np.ndarray) -> object:
        found = corrupt(k, features, labels) if k == 2 else None
        return (found[0] if isinstance(found[0], tuple) else found) if isinstance(found, tuple) else None

    with pytest.raises(DataError) as error:
        play(clients_of([20, 20, 20, 20], one))
    assert str(error.value).startswith(f"client 2: {expected}")


def test_labels_outside_the_models_outputs_are_refused() -> None:
    with pytest.raises(UserError, match=r"model: returns \(4, 5\) for 4 examples where classification needs \(4, 10\)"):
        simulate(digits(), model=nn.Sequential(nn.Linear(64, 5)), record=False)
    with pytest.raises(UserError, match=r"model: fails on features of shape \(64,\)"):
        simulate(digits(), model=nn.Sequential(nn.Linear(32, 10)), record=False)
