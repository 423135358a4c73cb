"""An interrupted and resumed run has the bits of an uninterrupted one; runs that cannot be resumed are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg, Strategy
from run_folders import assert_same_run, digits, recorded, stop_after
from torch import Tensor, nn

from clients.core.errors import RunFolderError
from clients.core.population import Population
from clients.sources.custom import custom_population
from server.record.checked.line_files import read_rounds
from server.record.jsonlines import RoundWriter
from server.record.records import RunFolder
from simulator.runs.run import resume, simulate

ALGORITHMS = {
    "fedavg": (),
    "scaffold": ("algorithm.kind=scaffold", "algorithm.weighting="),
    "feddyn": ("algorithm.kind=feddyn", "algorithm.weighting="),
    "fedavgm": ("algorithm.kind=fedavgm",),
    "fedadam": ("algorithm.kind=fedadam",),
    "local buffers": ("model.norm=batch", "local.buffers=local", "local.drop_last=true", "partition.min_size=16"),
    "criteria": (
        "convergence.stop=any",
        "convergence.plateau.patience=4",
        "convergence.plateau.min_delta=0.1",
        "run.rounds=60",
    ),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_resumed_run_equals_the_uninterrupted_one(name: str, tmp_path: Path) -> None:
    scenario = digits(*ALGORITHMS[name])
    whole = simulate(scenario, out=tmp_path / "whole")
    cut = tmp_path / "cut"
    stops = iter([2, 1, 3])  # interrupted after rounds 2, 3 and 6
    run = simulate(scenario, out=cut, stop_asked=stop_after(next(stops)))
    while run.verdict.outcome == "interrupted":
        run = resume(cut, stop_asked=stop_after(next(stops, 1000)))
    assert next(stops, None) is None, "the run ended before the third interruption"
    assert torch.equal(run.params, whole.params)
    assert_same_run(cut, tmp_path / "whole")
    assert list(run.rounds["round"]) == list(range(whole.verdict.round_index + 1))
    events, _ = read_rounds(RunFolder(cut).events)
    assert [e["round"] for e in events if e["kind"] == "resumed"] == [2, 3, 6]


def test_rounds_after_the_checkpoint_are_replayed_with_an_event(tmp_path: Path) -> None:
    """As after a kill: the record is ahead of the checkpoint, and its last line and the next part are incomplete."""
    scenario = digits("run.checkpoint_rounds=4")
    simulate(scenario, out=tmp_path / "whole")
    cut = tmp_path / "cut"
    simulate(scenario, out=cut, stop_asked=stop_after(4))
    folder = RunFolder(cut)
    writer = RoundWriter(folder.rounds)
    writer.append({"round": 5, "validation_loss": 99.0, "bytes_total": 1})
    writer.close()
    with folder.rounds.open("a") as file:
        file.write('{"round": 6, "validation_lo')
    (folder.clients / "part-00000005-00000005.parquet").write_bytes(b"not a whole part")
    folder.outcome.unlink()
    resume(cut)
    assert_same_run(cut, tmp_path / "whole")
    event = read_rounds(folder.events)[0][0]
    assert event["message"] == (
        "resumed after round 4: 1 recorded rounds after it are played again; the last line of the record was not whole"
    )


def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    scenario = digits("run.checkpoint_rounds=2", "algorithm.kind=scaffold", "algorithm.weighting=")
    simulate(scenario, out=tmp_path / "whole")
    cut = tmp_path / "cut"
    simulate(scenario, out=cut, stop_asked=stop_after(4))
    manifest = json.loads((cut / "checkpoint" / "manifest.json").read_text())
    state = cut / "checkpoint" / manifest["state"]["name"]
    state.write_bytes(state.read_bytes()[:-100])
    run = resume(cut)
    assert_same_run(cut, tmp_path / "whole")
    message = read_rounds(RunFolder(cut).events)[0][0]["message"]
    assert message.startswith("resumed after round 2: the last checkpoint cannot be used")
    assert "2 recorded rounds after it are played again" in message
    assert run.verdict.outcome == "stopped"


def test_run_stopped_before_its_first_checkpoint_starts_again(tmp_path: Path) -> None:
    simulate(digits(), out=tmp_path / "whole")
    cut = tmp_path / "cut"
    simulate(digits(), out=cut, stop_asked=stop_after(3))
    shutil.rmtree(cut / "checkpoint")
    (cut / "checkpoint").mkdir()
    resume(cut)
    assert_same_run(cut, tmp_path / "whole")
    assert "there was no checkpoint yet; 4 recorded rounds" in read_rounds(RunFolder(cut).events)[0][0]["message"]


def test_resume_uses_the_recorded_engine(tmp_path: Path) -> None:
    scenario = digits("engine.kind=auto", "engine.tile=", "run.rounds=3")
    simulate(scenario, out=tmp_path / "cut", stop_asked=stop_after(1))
    folder = RunFolder(tmp_path / "cut")
    environment = folder.read_environment()
    assert environment is not None
    chosen = environment["run"]["engine_plan"]
    other = {"engine": "plain", "tile": None} if chosen["engine"] == "stacked" else {"engine": "stacked", "tile": 2}
    folder.write_environment({**environment["run"], "engine_plan": chosen | other | {"reason": "chosen before"}})
    run = resume(folder.path)
    assert run.session.engine is not None
    assert (run.session.engine.name, run.session.plan.reason) == (other["engine"], "chosen before")


class RememberingFedAdam(FedAdam):
    """Flower's FedAdam with the two methods that a checkpoint needs."""

    def state_dict(self) -> dict[str, Tensor]:
        moments = {"m": self.m_t, "v": self.v_t}
        return {f"{n}.{k}": torch.from_numpy(np.array(a)) for n, d in moments.items() if d for k, a in d.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name in "mv":
            held = {k.partition(".")[2]: t.numpy() for k, t in state.items() if k.startswith(f"{name}.")}
            setattr(self, f"{name}_t", held or None)


def fedadam() -> Strategy:
    return RememberingFedAdam(fraction_train=0.5, fraction_evaluate=0.5, eta=0.03)


def test_users_strategy_resumes_by_its_state_dict(tmp_path: Path) -> None:
    whole = simulate(digits(), strategy=fedadam(), out=tmp_path / "whole")
    cut = tmp_path / "cut"
    simulate(digits(), strategy=fedadam(), out=cut, stop_asked=stop_after(3))
    run = resume(cut, strategy=fedadam())
    assert torch.equal(run.params, whole.params)
    assert_same_run(cut, tmp_path / "whole")

    class Forgetful(RememberingFedAdam):
        def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
            """Forget the moments."""

    shutil.rmtree(cut)
    simulate(digits(), strategy=fedadam(), out=cut, stop_asked=stop_after(3))
    forgot = resume(cut, strategy=Forgetful(fraction_train=0.5, fraction_evaluate=0.5, eta=0.03))
    assert not torch.equal(forgot.params, whole.params), "the moments have no effect, so this test cannot fail"


class OneStep(FedAvg):
    """A strategy without state. Resuming it is refused, because nothing declares that it has no state."""


def interrupted(path: Path, **given: object) -> Path:
    simulate(digits("run.rounds=3"), out=path, stop_asked=stop_after(1), **given)  # type: ignore[arg-type]
    return path


def refused(path: Path, **given: object) -> str:
    before = {f: f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file()}
    with pytest.raises(RunFolderError) as error:
        resume(path, **given)  # type: ignore[arg-type]
    assert {f: f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file()} == before, "the refusal changed files"
    return str(error.value)


def test_strategy_without_state_dict_is_refused(tmp_path: Path) -> None:
    path = interrupted(tmp_path / "run", strategy=OneStep())
    assert refused(path, strategy=OneStep()) == (
        f"{path}: was run with OneStep, which has no state_dict and load_state_dict. "
        "Give the strategy those two methods and run again."
    )
    assert "was started from Python with its own strategy" in refused(path)
    assert "resume(path, strategy=...)" in refused(path)


def test_resume_needs_the_model_from_python_and_checks_its_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = interrupted(tmp_path / "run", model=nn.Sequential(nn.Linear(64, 10)))
    assert "was started from Python with its own model" in refused(path)
    wider = nn.Sequential(nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 10))
    folder = RunFolder(path)
    before = recorded(path)
    with pytest.raises(RunFolderError, match="holds 650 parameters, and the model has 385"):
        resume(path, model=wider)
    assert recorded(path) == before
    assert folder.checkpoint.joinpath("manifest.json").exists()
    assert resume(path, model=nn.Sequential(nn.Linear(64, 10))).verdict.outcome == "stopped"


def test_resume_with_other_data_or_another_model_is_refused(tmp_path: Path) -> None:
    def data(shift: float) -> Population:
        x = np.random.default_rng(0).normal(size=(30, 4)) + shift
        y = np.arange(30) % 2
        return custom_population(lambda k: (x[k::3], y[k::3]), [10] * 3, outputs=2, validation=(x, y), test=(x, y))

    torch.manual_seed(0)
    linear = nn.Linear(4, 2)
    scenario = digits("run.rounds=3", "algorithm.cohort=", "convergence.target=")
    whole = simulate(scenario, record=False, model=linear, data=data(0.0))
    path = tmp_path / "run"
    simulate(scenario, out=path, stop_asked=stop_after(1), model=linear, data=data(0.0))
    with pytest.raises(RunFolderError, match=r"validation loss of .* in the record, and .* with the model and data of"):
        resume(path, model=linear, data=data(1.0))
    with pytest.raises(RunFolderError, match="Pass the model= and data= that the run was started with"):
        resume(path, model=nn.Sequential(linear, nn.Tanh()), data=data(0.0))
    assert torch.equal(resume(path, model=linear, data=data(0.0)).params, whole.params)


def test_resume_of_our_algorithm_refuses_a_strategy(tmp_path: Path) -> None:
    assert "was started without strategy from Python" in refused(interrupted(tmp_path / "run"), strategy=fedadam())


def test_resume_of_a_client_app_is_refused(tmp_path: Path) -> None:
    app = ClientApp()

    @app.train()
    def train(message, context):  # type: ignore[no-untyped-def]
        from flwr.app import Message, MetricRecord, RecordDict

        arrays = ArrayRecord({k: Array(a.numpy()) for k, a in message.content["arrays"].items()})
        return Message(RecordDict({"arrays": arrays, "m": MetricRecord({"num-examples": 1})}), reply_to=message)

    path = tmp_path / "run"
    scenario = digits("run.rounds=3", "engine.kind=auto", "engine.tile=", "engine.compile=", "engine.threads=")
    simulate(scenario, client_app=app, out=path, stop_asked=stop_after(1))
    assert "had its clients in a ClientApp, whose states were not kept" in refused(path)


def test_checkpoint_of_another_scenario_is_refused(tmp_path: Path) -> None:
    path = interrupted(tmp_path / "run")
    file = path / "scenario.toml"
    text = file.read_text()
    file.write_text(text.replace("local_lr = 0.05", "local_lr = 0.06"))
    assert "its checkpoint belongs to another scenario or algorithm" in refused(path)
    file.write_text(text.replace("rounds = 3", "rounds = 5"))  # a longer budget is the same experiment
    run = resume(path)
    assert run.verdict.round_index == 5


def test_record_shorter_than_its_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    simulate(digits(), out=path, stop_asked=stop_after(4))
    lines = (path / "rounds.jsonl").read_text().splitlines(keepends=True)
    (path / "rounds.jsonl").write_text("".join(lines[:3]))
    assert "lacks rounds before the checkpoint at round 4; the newest recorded round is 2" in refused(path)
    (path / "rounds.jsonl").write_text("".join([*lines[:2], *lines[3:]]))
    assert "lacks rounds before the checkpoint at round 4" in refused(path)


def test_finished_run_and_foreign_folder_are_refused(tmp_path: Path) -> None:
    simulate(digits("run.rounds=1"), out=tmp_path / "run")
    assert "is over: Stopped at round 1. Run the scenario again" in refused(tmp_path / "run")
    with pytest.raises(RunFolderError, match="no such folder"):
        resume(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunFolderError, match=r"lacks scenario.toml and rounds.jsonl"):
        resume(tmp_path / "empty")


def test_running_run_cannot_be_resumed_and_keeps_its_record(tmp_path: Path) -> None:
    """Two writers would mix their rounds in one record."""
    scenario, path = digits(), tmp_path / "run"
    refusals: list[str] = []

    class Impatient:
        def round_finished(self, line: Mapping[str, object]) -> None:
            if line["round"] == 3:
                with pytest.raises(RunFolderError) as error:
                    resume(path)
                refusals.append(str(error.value))

    run = simulate(scenario, out=path, observers=[Impatient()])
    assert refusals == [
        f"{path}: is still running: another process writes its record. Wait for its end, or stop it with Ctrl-C and "
        "resume it then."
    ]
    lines, truncated = read_rounds(RunFolder(path).rounds)
    assert [line["round"] for line in lines] == list(range(run.verdict.round_index + 1))
    assert not truncated
