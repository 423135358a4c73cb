"""A run's folder that lost files: resume, the report and `open_run` say what is missing, compared with the record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from run_folders import assert_same_run, digits, mistake, recorded, stop_after

from clients.core.errors import UserError
from dashboards.report.report import write_report
from dashboards.report.run_data import read_run
from server.record.checked.line_files import read_rounds
from server.record.client_table import ClientTable
from server.record.completeness import NO_CHECKSUMS
from server.record.records import RunFolder
from simulator.cli.exit_codes import EXIT_OK
from simulator.cli.main import main
from simulator.runs.record import open_run
from simulator.runs.run import resume, simulate

Capture = pytest.CaptureFixture[str]
SCENARIO = digits("run.checkpoint_rounds=2", "evaluation.federated_every=0")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run"
    simulate(SCENARIO, out=path)
    return path


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cut") / "run"
    simulate(SCENARIO, out=path, stop_asked=stop_after(5))
    return path


def copied(folder: Path, tmp_path: Path) -> RunFolder:
    shutil.copytree(folder, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def problems(run: RunFolder, caplog: pytest.LogCaptureFixture) -> tuple[str, ...]:
    """Return the problems that the report and `open_run` state."""
    found = open_run(run.path).problems
    assert read_run(run.path).problems == found
    assert [message for message in found if message not in caplog.text] == []
    return found


def test_undamaged_run_has_no_problem(whole: Path, cut: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert problems(RunFolder(whole), caplog) == problems(RunFolder(cut), caplog) == ()


def test_lost_client_rows_are_counted(whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = copied(whole, tmp_path)
    (run.clients / "part-00000003-00000004.parquet").unlink()
    assert problems(run, caplog) == ("Client rows of rounds 3 to 4 are missing: 8 of 32 rows.",)
    shutil.rmtree(run.clients)
    assert problems(run, caplog) == ("Client rows of rounds 1 to 8 are missing: 32 of 32 rows.",)


def test_damaged_client_rows_are_named(whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = copied(whole, tmp_path)
    part = run.clients / "part-00000003-00000004.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 3] ^= 1
    part.write_bytes(content)
    assert problems(run, caplog) == (
        f"clients/{part.name}: is damaged: its content does not have its checksum.",
        "Client rows of rounds 3 to 4 are missing: 8 of 32 rows.",
    )
    with pytest.raises(UserError, match=r"part-00000003-00000004\.parquet: is damaged"):
        open_run(run.path).clients  # noqa: B018


def test_resume_says_which_client_rows_are_missing(whole: Path, cut: Path, tmp_path: Path) -> None:
    run = copied(cut, tmp_path)
    (run.clients / "part-00000001-00000002.parquet").unlink()
    resume(run.path)
    assert recorded(run.path) == recorded(whole)
    message = read_rounds(run.events)[0][0]["message"]
    assert message == "resumed after round 5: Client rows of rounds 1 to 2 are missing: 8 of 20 rows"


def test_rounds_cut_off_the_end_are_missing(whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = copied(whole, tmp_path)
    lines = run.rounds.read_bytes().splitlines(keepends=True)
    run.rounds.write_bytes(b"".join(lines[:-2]))
    assert problems(run, caplog)[0] == "rounds.jsonl: rounds 7 to 8 are missing; the run reached round 8."


def test_record_of_another_run_is_noticed(
    whole: Path, cut: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = copied(whole, tmp_path / "a")
    shutil.copy(cut / "rounds.jsonl", run.rounds)
    assert any("is not the record that the outcome was computed from" in words for words in problems(run, caplog))
    other = copied(cut, tmp_path / "b")
    lines = (whole / "rounds.jsonl").read_bytes().splitlines(keepends=True)
    other.rounds.write_bytes(b"".join(lines[:6]))
    with pytest.raises(UserError, match="is not the record of the checkpoint at round"):
        resume(other.path)


def test_lost_model_and_changed_scenario_are_stated(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = copied(whole, tmp_path)
    run.model.unlink()
    run.scenario.write_text(run.scenario.read_text().replace("rounds = 8", "rounds = 9"))
    assert problems(run, caplog) == (
        "scenario.toml: was changed after the run wrote it.",
        "model.safetensors: is missing.",
    )


def test_scenario_changed_before_the_first_checkpoint_is_refused(cut: Path, tmp_path: Path) -> None:
    run = copied(cut, tmp_path)
    shutil.rmtree(run.checkpoint)
    run.scenario.write_text(run.scenario.read_text().replace("rounds = 8", "rounds = 9"))
    with pytest.raises(UserError, match=r"scenario\.toml: was changed after the run wrote it\. There is no checkpoint"):
        resume(run.path)


def test_resume_writes_the_report_of_a_run_killed_before_it(whole: Path, tmp_path: Path, capsys: Capture) -> None:
    run = copied(whole, tmp_path)
    run.report.unlink()
    assert main(["resume", str(run.path)]) == EXIT_OK
    assert f"report          {run.report}" in capsys.readouterr().out
    assert_same_run(run.path, whole)
    assert run.report.is_file()
    assert "is over: Stopped at round 8. Run the scenario again" in mistake(capsys, "resume", str(run.path))
    run.report.unlink()
    with pytest.raises(UserError, match="is over: Stopped at round 8; its report was missing and is written now"):
        resume(run.path)


def test_resume_writes_a_lost_partition_again(whole: Path, cut: Path, tmp_path: Path) -> None:
    run = copied(cut, tmp_path)
    run.partition.unlink()
    resume(run.path)
    assert run.partition.read_bytes() == (whole / "partition.json").read_bytes()


def as_an_earlier_version_wrote(run: RunFolder) -> None:
    """Remove every checksum from a folder."""
    for file in (run.rounds, run.events):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "chain"}) + "\n" for line in lines))
    for file in [*run.path.glob("*.json"), *run.checkpoint.glob("*.json")]:
        value = json.loads(file.read_text())
        del value["checksum"]
        if file.parent == run.checkpoint:
            value["format"] = 1
            del value["facts"]["record"]
        file.write_text(json.dumps(value))
    run.scenario.write_text(run.read_scenario())
    (run.clients / "_parts.jsonl").unlink()


def test_run_of_an_earlier_version_resumes_to_the_same_end_and_says_that_it_has_no_checksums(
    whole: Path, cut: Path, tmp_path: Path
) -> None:
    run = copied(cut, tmp_path)
    as_an_earlier_version_wrote(run)
    assert open_run(run.path).problems == (NO_CHECKSUMS,)
    resume(run.path)
    assert_same_run(run.path, whole)
    message = read_rounds(run.events)[0][0]["message"]
    assert message == "resumed after round 5: the record has no checksums, since an earlier version wrote it"
    assert open_run(run.path).problems == ("partition.json: has no checksum.",)


def test_truncated_rows_keep_their_index(tmp_path: Path, cut: Path) -> None:
    run = copied(cut, tmp_path)
    for _ in range(2):
        ClientTable(run.clients).truncate(3)
        names = [line["part"] for line in read_rounds(run.clients / "_parts.jsonl")[0]]
        assert names == ["part-00000001-00000002.parquet", "part-00000003-00000003.parquet"]


# Pages that are written here


def test_pages_here_never_replace_a_file(whole: Path, cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                         capsys: Capture) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compare.html").write_text("mine")
    assert main(["report", str(whole), str(cut)]) == EXIT_OK
    assert capsys.readouterr().out == "compare-2.html\n"
    assert (tmp_path / "compare.html").read_text() == "mine"
    for folder in ("data-quadratic-two-clients", "data-quadratic-two-clients-2"):
        assert main(["data", "quadratic-two-clients"]) == EXIT_OK
        assert f"{folder}/data.html" in capsys.readouterr().out
        assert sorted(file.name for file in (tmp_path / folder).iterdir()) == ["data.html", "data.png"]


def test_named_file_is_replaced_only_where_it_is_a_page_of_ours(whole: Path, tmp_path: Path, capsys: Capture) -> None:
    page, notes = tmp_path / "page.html", tmp_path / "notes.html"
    notes.write_text("mine")
    for _ in range(2):
        assert write_report([whole], page) == page
    assert "exists and is no page of fedscape's. Name a new file" in mistake(
        capsys, "report", str(whole), "--out", str(notes)
    )
    assert notes.read_text() == "mine"
    message = mistake(capsys, "report", str(whole), "--out", str(tmp_path / "page.pdf"))
    assert message == "out: must end in .html, got 'page.pdf'. The report is a page: name it page.html."
    (tmp_path / "data.html").write_text("mine")
    assert "is no page of fedscape's" in mistake(capsys, "data", "quadratic-two-clients", "--out", str(tmp_path))
