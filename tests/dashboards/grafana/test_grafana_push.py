"""Pushing to a Grafana: what it creates, that a second push changes nothing, and the messages of failures."""

import json
import re
from pathlib import Path

import pytest
from grafana_stub import TOKEN, GrafanaStub, grafana_stub

from clients.core.errors import UserError
from dashboards.grafana import server
from dashboards.grafana.push import COMMITTED, annotate, committed, data_sources, findings
from dashboards.grafana.server import connect
from server.record.records import RunFolder
from simulator.cli.main import main


@pytest.fixture
def grafana():
    with grafana_stub() as stub:
        yield stub


@pytest.fixture(autouse=True)
def _token(monkeypatch):
    monkeypatch.setenv("FEDSCAPE_GRAFANA_TOKEN", TOKEN)


def pushed(stub: GrafanaStub, *more: str) -> int:
    return main(["dashboards", "push", "--url", stub.url, *more])


def test_push_creates_data_sources_folder_and_dashboards(grafana, capsys):
    assert pushed(grafana) == 0
    assert {one["uid"]: one["url"] for one in grafana.data_sources} == {
        "fedscape-live": "http://127.0.0.1:9090",
        "fedscape-runs": "http://127.0.0.1:9099",
    }
    assert all(one["jsonData"]["timeInterval"] == "1s" for one in grafana.data_sources)
    assert grafana.folders["fedscape"]["title"] == "fedscape"
    assert len(grafana.dashboards) == 6
    for model in committed():
        saved = grafana.dashboards[model["uid"]]
        assert saved["meta"]["folderUid"] == "fedscape"
        assert {k: v for k, v in saved["dashboard"].items() if k not in ("id", "version")} == {
            k: v for k, v in model.items() if k != "id"
        }
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 9
    assert all(line.startswith("created ") for line in printed)


def test_second_push_changes_nothing(grafana, capsys):
    assert pushed(grafana) == 0
    before = grafana.state()
    grafana.requests.clear()
    capsys.readouterr()
    assert pushed(grafana) == 0
    assert grafana.state() == before
    assert {method for method, _, _ in grafana.requests} == {"GET"}
    assert all(line.startswith("unchanged ") for line in capsys.readouterr().out.splitlines())


def test_push_never_uses_the_numeric_id_of_a_data_source(grafana):
    pushed(grafana)
    pushed(grafana, "--runs-url", "http://elsewhere:9099")
    paths = [path for _, path, _ in grafana.requests if "datasources" in path]
    assert "/api/datasources/uid/fedscape-runs" in paths
    assert not [path for path in paths if re.search(r"datasources/(id/|\d)", path)]


def test_push_restores_what_was_changed(grafana, capsys):
    pushed(grafana)
    grafana.dashboards["fedscape-data"]["dashboard"]["title"] = "Mine"
    grafana.folders["fedscape"]["title"] = "Old"
    number = grafana.dashboards["fedscape-data"]["dashboard"]["id"]
    capsys.readouterr()
    assert pushed(grafana, "--runs-url", "http://elsewhere:9099") == 0
    printed = dict(line.split(maxsplit=1)[::-1] for line in capsys.readouterr().out.splitlines())
    assert [what for what, done in printed.items() if done == "updated"] == [
        "data source fedscape runs", "folder fedscape", "dashboard fedscape: Data",
    ]  # fmt: skip
    assert grafana.dashboards["fedscape-data"]["dashboard"]["title"] == "fedscape: Data"
    assert grafana.dashboards["fedscape-data"]["dashboard"]["id"] == number
    assert grafana.data_sources[1]["url"] == "http://elsewhere:9099"
    assert len(grafana.data_sources) == 2


def run_folder(root: Path, name: str = "digits-1121-0714-7f3a", *, words: str = "converged at round 9: why") -> Path:
    folder = root / name
    (folder / "clients").mkdir(parents=True)
    (folder / "scenario.toml").write_text("")
    (folder / "rounds.jsonl").write_text("")
    (folder / "environment.json").write_text(json.dumps({"run": {"run_id": name}}))
    event = {"round": 4, "kind": "clients_failed", "message": "3 clients answered with an error"}
    (folder / "events.jsonl").write_text(json.dumps(event) + "\n")
    drift = {"words": "rose to round 3, then fell", "worst_clients": ["17"]}
    condition = {"kind": "converged", "round": 7, "words": "validation loss rests at 0.1"}
    outcome = {"outcome": "converged", "round": 9, "words": words, "drift": drift, "condition": condition}
    (folder / "outcome.json").write_text(json.dumps(outcome))
    return folder


def test_run_is_annotated_at_its_rounds(grafana, tmp_path):
    folder = run_folder(tmp_path)
    assert pushed(grafana, "--run", str(folder)) == 0
    first, last = grafana.annotations
    assert first["time"] == 946_684_804_000
    assert "3 clients answered" in first["text"]
    assert last["time"] == 946_684_809_000
    assert set(last["tags"]) == {"fedscape", folder.name, "converged"}
    assert "converged at round 9: why" in last["text"]
    assert "what happened: validation loss rests at 0.1" in last["text"]
    assert "rose to round 3, then fell" in last["text"]


def test_annotations_are_updated_and_not_doubled(grafana, tmp_path):
    pushed(grafana, "--run", str(run_folder(tmp_path)))
    before = grafana.state()
    pushed(grafana, "--run", str(tmp_path / "digits-1121-0714-7f3a"))
    assert grafana.state() == before
    pushed(grafana, "--run", str(run_folder(tmp_path / "again", words="converged at round 9: otherwise")))
    assert len(grafana.annotations) == 2
    assert "otherwise" in grafana.annotations[1]["text"]


CLIPPED = {
    "kind": "clipping_dominates", "title": "clipping dominates", "strength": 3.3,
    "evidence": ["100% of the clients have gradients above the bound", "a round without it gains 0.3 more"],
    "change": {"sets": {"local.clip_norm": 1.87, "model.hidden": [64, 32]}, "words": "clip only the largest tenth"},
}  # fmt: skip
OVERFITS = {"kind": "overfitting", "title": "overfitting", "strength": 2.0, "evidence": ["it rose"], "round_index": 3}


def explained(folder: Path, *findings: dict[str, object], last: int = 9) -> Path:
    RunFolder(folder).write_explanation({"findings": list(findings)})
    (folder / "rounds.jsonl").write_text("".join(json.dumps({"round": r}) + "\n" for r in range(last + 1)))
    return folder


def annotated(stub: GrafanaStub, folder: Path) -> dict[str, str]:
    """Annotate the findings of a run; return what was done by cause."""
    with server.connect(stub.url, TOKEN) as grafana:
        done = list(annotate(grafana, folder.name, findings(RunFolder(folder))))
    return {what.split()[-1]: how for what, how in done}


def test_finding_is_annotated_at_its_round_with_its_change(grafana, tmp_path):
    folder = explained(run_folder(tmp_path), CLIPPED, OVERFITS)
    assert annotated(grafana, folder) == {"clipping_dominates": "created", "overfitting": "created"}
    clipped, overfits = grafana.annotations
    assert clipped["time"] == 946_684_809_000
    assert set(clipped["tags"]) == {"fedscape", folder.name, "finding", "clipping_dominates"}
    assert clipped["text"] == (
        f"{folder.name}: Clipping dominates: 100% of the clients have gradients above the bound; a round without it "
        "gains 0.3 more. Try: clip only the largest tenth (--set local.clip_norm=1.87 --set model.hidden=[64,32])."
    )
    assert overfits["time"] == 946_684_803_000
    assert overfits["text"] == f"{folder.name}: Overfitting: it rose."


def test_explaining_again_changes_nothing_and_moves_what_changed(grafana, tmp_path):
    folder = explained(run_folder(tmp_path), CLIPPED, OVERFITS)
    annotated(grafana, folder)
    before = grafana.state()
    assert set(annotated(grafana, folder).values()) == {"unchanged"}
    assert grafana.state() == before
    explained(folder, CLIPPED | {"evidence": ["otherwise"]}, OVERFITS, last=12)
    assert annotated(grafana, folder) == {"clipping_dominates": "updated", "overfitting": "unchanged"}
    assert len(grafana.annotations) == 2
    assert grafana.annotations[0]["time"] == 946_684_812_000
    assert "otherwise" in grafana.annotations[0]["text"]


def test_finding_that_is_no_longer_found_loses_its_annotation_alone(grafana, tmp_path):
    folder, other = (
        explained(run_folder(tmp_path), CLIPPED, OVERFITS),
        explained(run_folder(tmp_path, "other"), CLIPPED),
    )
    for one in (folder, other):
        annotated(grafana, one)
    pushed(grafana, "--run", str(folder))  # the event and the outcome too
    assert annotated(grafana, explained(folder, OVERFITS)) == {"overfitting": "unchanged", "finding": "removed"}
    assert annotated(grafana, explained(folder)) == {"finding": "removed"}
    kinds = sorted((note["tags"][1], note["tags"][-1]) for note in grafana.annotations)
    assert kinds == [(folder.name, "clients_failed"), (folder.name, "converged"), ("other", "clipping_dominates")]


def test_push_annotates_the_findings_that_explain_annotated(grafana, tmp_path):
    folder = explained(run_folder(tmp_path), CLIPPED)
    annotated(grafana, folder)
    assert pushed(grafana, "--run", str(folder)) == 0
    assert len(grafana.annotations) == 3
    before = grafana.state()
    assert pushed(grafana, "--run", str(folder)) == 0
    assert grafana.state() == before


def test_push_removes_the_findings_of_a_run_that_has_no_notes_any_more(grafana, tmp_path):
    folder = explained(run_folder(tmp_path), CLIPPED)
    annotated(grafana, folder)
    explained(folder)
    (folder / "outcome.json").unlink()
    (folder / "events.jsonl").write_text("")
    assert pushed(grafana, "--run", str(folder)) == 0
    assert grafana.annotations == []


def refused(capsys, stub: GrafanaStub, *more: str) -> str:
    code = pushed(stub, "--timeout", "0.5", *more)
    out = capsys.readouterr()
    assert code == 2
    assert "Traceback" not in out.err
    assert len(out.err.splitlines()) == 1
    assert TOKEN not in out.out + out.err
    return out.err


def test_wrong_token_is_refused(grafana, capsys, monkeypatch):
    monkeypatch.setenv("FEDSCAPE_GRAFANA_TOKEN", "glsa_wrong")
    printed = refused(capsys, grafana)
    assert "401" in printed
    assert "token is wrong" in printed
    assert "glsa_wrong" not in printed
    assert not grafana.data_sources


@pytest.mark.parametrize(("path", "fault", "words"), [
    ("/api/health", (404, "no"), ["404", "--url", "path it is served under"]),
    ("/api/health", "html", ["not as Grafana does", "--url"]),
    ("/api/health", (503, "db"), ["503", "log"]),
    ("/api/datasources", (403, "denied"), ["403", "role Admin"]),
    ("/api/datasources", "html", ["not as Grafana does"]),
    ("/api/datasources", (500, "broken"), ["500", "broken", "log says why"]),
    ("/api/folders", (409, "same name"), ["409", "same name", "--folder"]),
    ("/api/dashboards/db", (412, "changed by someone else"), ["412", "changed by someone else", "provisioning"]),
    ("/api/dashboards/db", (400, "schema"), ["400", "schema", "version"]),
    ("/api/dashboards/db", "hang", ["did not answer", "0.5 seconds", "--timeout"]),
    ("/api/health", "hang", ["did not answer", "version"]),
])  # fmt: skip
def test_failure_message_names_the_cause_and_the_fix(grafana, capsys, path, fault, words):
    grafana.faults[path] = fault
    printed = refused(capsys, grafana)
    assert [word for word in words if word not in printed] == []


def test_push_after_a_failure_completes_the_rest(grafana, capsys):
    grafana.faults["/api/dashboards/db"] = (500, "broken")
    refused(capsys, grafana)
    assert len(grafana.data_sources) == 2
    grafana.faults.clear()
    assert pushed(grafana) == 0
    assert len(grafana.dashboards) == 6


def test_old_server_is_refused(grafana, capsys):
    grafana.version = "9.5.2"
    printed = refused(capsys, grafana)
    assert "Grafana 9.5.2" in printed
    assert "11.1" in printed
    grafana.version = "11.1.0-pre"
    assert pushed(grafana) == 0


def test_token_repeated_by_the_server_is_not_printed(grafana, capsys):
    grafana.faults["/api/folders"] = (500, "you sent {token}")
    assert "you sent Bearer (hidden)" in refused(capsys, grafana)


@pytest.mark.parametrize("path", ["/api/health", "/api/datasources", "/api/dashboards/db"])
def test_redirect_is_refused_and_gets_no_token(grafana, capsys, path):
    with grafana_stub() as other:
        grafana.faults[path] = f"{other.url}{path}"
        printed = refused(capsys, grafana)
        assert other.requests == []
    assert f"redirects to {other.url}{path}, where the token is not sent" in printed
    assert "Give --url the address" in printed


def test_too_large_answer_is_refused(grafana, capsys, monkeypatch):
    assert pushed(grafana) == 0
    capsys.readouterr()
    monkeypatch.setattr(server, "LARGEST_ANSWER", 2000)
    assert "not as Grafana does" in refused(capsys, grafana)
    monkeypatch.setattr(server, "LARGEST_ANSWER", 1 << 20)
    assert pushed(grafana) == 0


def test_unreachable_server_is_named(capsys):
    with grafana_stub() as stub:
        pass
    assert "nothing answers there" in refused(capsys, stub)


@pytest.mark.parametrize(("url", "words"), [
    ("localhost:3000", "http://"), ("ftp://x", "http://"), ("http://me:pw@host", "name or password"),
    ("http://host:99999", "port"), ("http://", "http://"),
])  # fmt: skip
def test_invalid_urls_are_refused(url, words):
    with pytest.raises(UserError, match=words), connect(url, TOKEN):
        pass


@pytest.mark.parametrize("token", ["", "two\nlines", "tokén"])
def test_invalid_tokens_are_refused(token):
    with pytest.raises(UserError, match="FEDSCAPE_GRAFANA_TOKEN") as caught, connect("http://host", token):
        pass
    assert not token or token not in str(caught.value)


def test_connect_keeps_a_path_and_an_ipv6_host():
    with connect("https://[::1]:3000/tools/grafana/", TOKEN) as made:
        assert made._face.api.url == "https://[::1]:3000/tools/grafana/api"


def test_write_copies_the_dashboards_and_list_names_them(tmp_path, capsys):
    assert main(["dashboards", "write", str(tmp_path / "out")]) == 0
    for path in COMMITTED.glob("*.json"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    capsys.readouterr()
    assert main(["dashboards", "list"]) == 0
    printed = capsys.readouterr().out
    assert all(model["uid"] in printed for model in committed())
    (tmp_path / "file").write_text("")
    assert main(["dashboards", "write", str(tmp_path / "file")]) == 2


def test_two_data_sources_differ_in_name_uid_and_url():
    live, runs = data_sources()
    assert all(live[key] != runs[key] for key in ("name", "uid", "url"))


def test_token_on_the_command_line_is_refused_and_not_shown(grafana, capsys):
    assert pushed(grafana, "--token", TOKEN) == 2
    printed = "".join(capsys.readouterr())
    assert "every user of this machine can read" in printed
    assert "FEDSCAPE_GRAFANA_TOKEN_FILE" in printed
    assert TOKEN not in printed
