"""The scenarios of labelled rows in docs/data.md run on generated files, and learn more than the commonest class."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.record.checked.line_files import read_rounds
from simulator.cli.exit_codes import EXIT_OK
from simulator.cli.main import main

TEXT = "to be or not to be that is the question whether tis nobler in the mind to suffer " * 3
PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def scenario(path: str) -> str:
    """Return the page's scenario that reads a file."""
    if not PAGE.is_file():
        pytest.skip("docs/ is not installed beside the package")
    blocks = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return next(b for b in blocks if f'path = "{path}"' in b)


def patients(folder: Path) -> None:
    random = np.random.default_rng(1)
    lines = ["patient;hospital;age;pressure;smoker;postcode;admitted;outcome"]
    for i in range(900):
        hospital, age, pressure = i % 6, random.normal(55, 12), random.normal(130, 15)
        smoker = random.choice(["yes", "no"])
        risk = (age - 55) / 6 + (pressure - 130) / 10 + (1.5 if smoker == "yes" else -1.5)
        outcome = "died" if random.random() < 1 / (1 + np.exp(-2 * risk)) else "recovered"
        pressure_text = "" if i % 40 == 3 else f"{pressure:.1f}".replace(".", ",")
        smoker_text = "?" if i % 50 == 7 else smoker
        age_text, postcode = f"{age:.1f}".replace(".", ","), f"0{1067 + i % 3}"
        lines.append(
            f"P{i:04};Klinik {'ÄBCDEF'[hospital]};{age_text};{pressure_text};{smoker_text};{postcode};"
            f"2021-03-{1 + i % 28:02};{outcome}"
        )
    (folder / "patients.csv").write_text("\n".join(lines), "latin-1")


def churn(folder: Path) -> None:
    random = np.random.default_rng(2)
    lines = ["customer,tenure,charges,contract,churn"]
    for _ in range(1200):
        tenure, charges, contract = random.integers(1, 72), random.normal(70, 25), random.choice(["monthly", "yearly"])
        odds = 2 - tenure / 12 + charges / 40 + (1.5 if contract == "monthly" else -1.5)
        lines.append(
            f"{random.integers(10**8)},{tenure},{charges:.2f},{contract},"
            f"{'yes' if random.random() < 1 / (1 + np.exp(-odds)) else 'no'}"
        )
    (folder / "churn.csv").write_text("\n".join(lines))


def shakespeare(folder: Path) -> None:
    random = np.random.default_rng(3)
    for part, count in (("train", 50), ("test", 12)):
        users = {}
        for k in range(10):
            starts = random.integers(0, len(TEXT) - 9, count).tolist()
            users[f"role {k}"] = {"x": [TEXT[i : i + 8] for i in starts], "y": [TEXT[i + 8] for i in starts]}
        content = {"users": list(users), "num_samples": [count] * len(users), "user_data": users}
        (folder / "data" / "shakespeare" / part).mkdir(parents=True)
        (folder / "data" / "shakespeare" / part / "all.json").write_text(json.dumps(content))


def run(folder: Path, text: str, *sets: str) -> tuple[dict[str, Any], float]:
    """Run a scenario; return the facts of its start, and its last validation accuracy."""
    (folder / "mine.toml").write_text(text, "utf-8")
    out = folder / f"run {len(list(folder.glob('run *')))}"
    changes = [a for s in ("engine.kind=stacked", *sets) for a in ("--set", s)]
    assert main(["run", "mine.toml", *changes, "--out", str(out)]) == EXIT_OK
    facts = json.loads((out / "environment.json").read_text())["run"]
    return facts, float(read_rounds(out / "rounds.jsonl")[0][-1]["validation_accuracy"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def counts_of(facts: dict[str, Any]) -> list[int]:
    notice = next(n for n in facts["notices"] if n.startswith("classes of"))
    return [int(n.replace(",", "")) for n in re.findall(r"\(([\d,]+)\)", notice)]


def test_patients_are_told_apart_at_their_hospitals(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patients(folder)
    facts, accuracy = run(folder, scenario("patients.csv"))
    counts = counts_of(facts)
    assert sum(counts) == 900
    assert accuracy > max(counts) / 900 + 0.15
    data = facts["data_facts"]
    assert data["classes"] == "died, recovered"
    wanted = ["age", "pressure", "smoker=no", "smoker=yes", "smoker=missing", "postcode=01067", "postcode=01068"]
    assert data["features"].split(", ") == [*wanted, "postcode=01069"]
    printed = capsys.readouterr().out
    for words in (
        "6 clients, 630 examples",
        "read as: 1 file, ';', cp1252, decimal ','",
        "no features: outcome (the label), hospital (the client), patient (excluded), admitted (a time)",
        "23 of 'pressure' by the training mean",
        "18 of 'smoker' by the category 'missing'",
    ):
        assert words in printed


def test_churn_is_learnt_from_rows_that_a_partition_deals_out(folder: Path) -> None:
    churn(folder)
    facts, accuracy = run(folder, scenario("churn.csv"))
    counts = counts_of(facts)
    assert accuracy > max(counts) / 1200 + 0.1
    assert facts["data_facts"]["partition"] == "dirichlet"
    assert facts["data_facts"]["features"] == "tenure, charges, contract=monthly, contract=yearly"


def test_faults_of_labels_and_numbers_cost_accuracy(folder: Path) -> None:
    patients(folder)
    _, clean = run(folder, scenario("patients.csv"))
    faults = """
[faults.wrong]
kind = "label_symmetric"
severity = 0.9

[faults.loud]
kind = "noise"
severity = 1.0
channels = ["age", "pressure"]
"""
    _, faulty = run(folder, scenario("patients.csv") + faults)
    assert faulty < clean - 0.05


def test_next_characters_of_leafs_text_are_learnt(folder: Path) -> None:
    shakespeare(folder)
    facts, accuracy = run(folder, scenario("data/shakespeare"))
    counts = counts_of(facts)
    assert accuracy > max(counts) / 620 + 0.3
    assert facts["data_facts"]["vocabulary"] == "".join(sorted(set(TEXT)))


def test_engines_agree_on_ids_of_characters(folder: Path) -> None:
    shakespeare(folder)
    text = scenario("data/shakespeare")
    sets = ("run.rounds=2", "run.seed=3", "model.hidden=8")
    losses = [run(folder, text, *sets, f"engine.kind={kind}")[1] for kind in ("stacked", "plain")]
    assert losses[0] == losses[1]
    stacked, plain = (
        [line["validation_loss"] for line in read_rounds(folder / f"run {k}" / "rounds.jsonl")[0]] for k in range(2)
    )
    np.testing.assert_allclose(stacked, plain, rtol=1e-4)
    assert stacked[-1] < stacked[0]
