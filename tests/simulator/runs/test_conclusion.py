"""The verdict of a run that does not converge: its reasons and its hint."""

import io
from pathlib import Path

import pytest

import fedscape as fs
from clients.core.errors import RunFolderError
from server.record.records import RunFolder
from simulator.cli.console import ConsoleObserver
from simulator.runs.run import simulate
from simulator.scenario.sections import load_scenario


class StopAfter:
    """Requests a stop after a number of calls."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def __call__(self) -> bool:
        self.calls -= 1
        return self.calls <= 0


def test_interrupted_run_names_the_command_that_continues_it(tmp_path: Path) -> None:
    run = simulate("quadratic-two-clients", out=tmp_path / "run", stop_asked=StopAfter(2))
    assert run.verdict.headline == "Interrupted at round 2"
    assert run.verdict.reasons == ("a stop was requested",)
    assert run.verdict.hint == "To continue: fedscape resume RUN"
    console = io.StringIO()
    ConsoleObserver(console).run_finished(run.outcome)
    assert f"\n  To continue: fedscape resume {tmp_path / 'run'}\n" in console.getvalue()
    assert fs.open_run(tmp_path / "run").verdict == run.verdict


def test_interrupted_run_without_a_record_cannot_be_resumed() -> None:
    run = simulate("quadratic-two-clients", record=False, stop_asked=StopAfter(1))
    assert run.verdict.headline == "Interrupted at round 1"
    assert run.verdict.hint == "The run was not recorded, so it cannot be resumed."


def test_interrupted_run_with_parts_from_python_is_resumed_from_python(tmp_path: Path) -> None:
    run = simulate("quadratic-two-clients", strategy=lambda ours: ours, out=tmp_path / "run", stop_asked=StopAfter(2))
    assert run.verdict.hint == "To continue in Python: fedscape.resume(path, strategy=...)"
    with pytest.raises(RunFolderError) as error:
        RunFolder.create_at(tmp_path / "run")
    assert "fedscape resume" not in str(error.value)


def test_missing_model_offers_to_resume_only_a_run_that_is_not_over(tmp_path: Path) -> None:
    simulate("quadratic-two-clients", out=tmp_path / "over")
    simulate("quadratic-two-clients", out=tmp_path / "stopped", stop_asked=StopAfter(2))
    for name, words in (("over", "The run is over, and this file is gone"), ("stopped", "fedscape resume")):
        (tmp_path / name / "model.safetensors").unlink()
        with pytest.raises(RunFolderError, match=words):
            fs.open_run(tmp_path / name).model()


def test_run_that_diverges_in_round_1_keeps_the_initial_model(tmp_path: Path) -> None:
    sets = ["local.local_lr=1e12", "engine.kind=stacked", "engine.threads=1", "engine.workers=1"]
    run = simulate(load_scenario("digits-diverges", sets=sets), out=tmp_path / "run")
    assert run.verdict.headline == "Diverged at round 1"
    assert run.verdict.quantity is not None
    assert "local_lr" in run.verdict.hint
    assert run.verdict.hint.endswith("The final model is that of round 0, the last with finite parameters.")
    assert "_" not in run.verdict.reason
    assert str(fs.open_run(tmp_path / "run").verdict) == str(run.verdict)


def test_run_that_does_not_converge_names_the_criteria_that_do_not_hold() -> None:
    sets = ["run.rounds=2", "engine.kind=stacked", "engine.threads=1", "engine.workers=1", "evaluation.baselines=false"]
    run = simulate(load_scenario("digits-label-skew", sets=sets), record=False)
    assert run.verdict.headline == "Stopped at round 2"
    assert run.verdict.reasons[0] == "the budget of 2 rounds is spent"
    assert len(run.verdict.reasons) == 4
