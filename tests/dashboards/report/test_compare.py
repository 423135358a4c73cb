"""Several runs side by side: the keys that differ, and the differences of pairs with their sign."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dashboards.report.compare import comparison
from dashboards.report.report import write_report
from dashboards.report.run_data import RunData, read_run
from tests.support.made_records import make_record


def runs_of(tmp_path: Path, shifts: dict[tuple[str, int], float]) -> list[RunData]:
    """Make a run for each (algorithm, seed), with its losses shifted."""
    return [
        read_run(
            make_record(tmp_path / f"{kind}-{seed}", rounds=30, kind=kind, seed=seed, shift=shift, rows=False).path
        )
        for (kind, seed), shift in shifts.items()
    ]


def test_differences_are_the_later_variant_minus_the_first_pair_by_pair(tmp_path: Path) -> None:
    shifts = {("fedavg", s): 0.01 * s for s in (1, 2, 3)} | {
        ("scaffold", 3): 0.02,
        ("scaffold", 1): -0.04,
        ("scaffold", 2): 0.1,
    }
    found = comparison(runs_of(tmp_path, shifts))
    assert found["differ"] == ["algorithm.kind"]
    assert found["labels"][0] == "fedavg · seed 1"
    assert found["variants"] == ["fedavg", "scaffold"]
    assert found["variant"] == [0, 0, 0, 1, 1, 1]
    (pair,) = found["pairs"]
    assert pair["title"] == "scaffold minus fedavg"
    assert pair["seeds"] == [1, 2, 3]
    rows = {row[0]: row[1:] for row in pair["rows"]}
    differences = np.array([-0.05, 0.08, -0.01])  # seeds 1, 2, 3
    low, high = stats.t.interval(0.95, 2, differences.mean(), stats.sem(differences))
    mean, interval, way, pairs = rows["validation loss, at the end"]
    assert mean == "+0.00667"
    assert interval == f"−{abs(low):.3g} to +{high:.3g}"
    assert way == "higher in 1, lower in 2"
    assert pairs == "3 pairs"
    assert rows["test accuracy"][0] == "−0.007"  # the score falls if the loss rises
    assert rows["rounds to the target"][:3] == ["0", "0 to 0", "no difference"]
    assert found["words"] == [
        f"scaffold minus fedavg: test accuracy −0.007 ({rows['test accuracy'][1]}), higher in 2, lower in 1 of 3 pairs"
    ]


def test_one_pair_has_no_interval_and_pairs_need_equal_seeds(tmp_path: Path) -> None:
    found = comparison(runs_of(tmp_path, {("fedavg", 1): 0.0, ("fedprox", 1): 0.5, ("feddyn", 2): 0.0}))
    (pair,) = found["pairs"]
    assert pair["title"] == "fedprox minus fedavg"
    assert {row[2] for row in pair["rows"]} == {"one pair"}
    assert {row[0]: row[1] for row in pair["rows"]}["training loss, at the end"] == "+0.5"
    assert "feddyn and fedavg have no seed in common, so they make no pairs." in found["notes"]


TARGET = {"metric": "validation_accuracy", "value": 0.9}


def raced(tmp_path: Path, rounds: dict[tuple[str, int], int | None]) -> dict[str, list[str]]:
    """Return the rows of pairs of runs that reached the target after some rounds, or missed it (None)."""
    runs = []
    for (kind, seed), at in rounds.items():
        reached = TARGET if at is None else TARGET | {"rounds": at, "bytes": 38480 * at, "simulated_seconds": 0.5 * at}
        folder = make_record(tmp_path / f"{kind}-{seed}", rounds=30, kind=kind, seed=seed, rows=False,
                             outcome={"to_target": reached})  # fmt: skip
        runs.append(read_run(folder.path))
    found = comparison(runs)
    assert ("missed" in str(found["rows"])) == (None in rounds.values())
    assert any("counted at its budget" in note for note in found["notes"]) == (None in rounds.values())
    return {row[0]: row[1:] for row in found["pairs"][0]["rows"]}


def test_run_that_missed_the_target_is_counted_at_its_budget_and_named(tmp_path: Path) -> None:
    """10 seeds, 7 of which scaffold misses: the three hits alone would read 10 rounds fewer, lower in 3 of 3."""
    rounds: dict[tuple[str, int], int | None] = {("fedavg", s): 20 + s for s in range(10)}
    rounds |= {("scaffold", s): 10 + s if s < 3 else None for s in range(10)}
    rows = raced(tmp_path, rounds)
    differences = np.array([-10.0] * 3 + [100.0 - 20 - s for s in range(3, 10)])  # the budget is 100 rounds
    low, high = stats.t.interval(0.95, 9, differences.mean(), stats.sem(differences))
    mean, interval, way, pairs = rows["rounds to the target"]
    assert mean == f"≥ +{differences.mean():.3g}"
    assert interval == f"+{low:.3g} to +{high:.3g}"
    assert way == "higher in 7, lower in 3"
    assert pairs == "10 pairs (scaffold missed it in 7)"
    assert rows["bytes to the target"][0] == f"≥ +{differences.mean() * 38480 / 1e6:.2g} MB"
    assert rows["bytes to the target"][2:] == [way, pairs]


def test_miss_of_the_first_variant_bounds_the_difference_from_above(tmp_path: Path) -> None:
    rows = raced(tmp_path, {("fedavg", 1): None, ("fedavg", 2): 50, ("scaffold", 1): 40, ("scaffold", 2): 40})
    assert rows["rounds to the target"][0] == "≤ −35"
    assert rows["rounds to the target"][2:] == ["higher in 0, lower in 2", "2 pairs (fedavg missed it in 1)"]


def test_misses_of_both_variants_leave_no_mean(tmp_path: Path) -> None:
    rows = raced(tmp_path, {("fedavg", s): at for s, at in ((1, None), (2, 50), (3, None))}
                 | {("scaffold", s): at for s, at in ((1, 40), (2, None), (3, None))})  # fmt: skip
    assert rows["rounds to the target"] == [
        "–", "no bound: both missed", "higher in 1, lower in 1, unknown in 1",
        "3 pairs (fedavg missed it in 2, scaffold missed it in 2)",
    ]  # fmt: skip


def test_hit_after_the_budget_of_a_miss_cannot_be_compared(tmp_path: Path) -> None:
    rows = raced(tmp_path, {("fedavg", 1): 140, ("scaffold", 1): None})
    assert rows["rounds to the target"][2] == "higher in 0, lower in 0, unknown in 1"


def test_pairs_without_a_number_are_counted(tmp_path: Path) -> None:
    """Two of three runs of scaffold diverge and have no score."""
    lost = {"outcome": "diverged", "test_accuracy": float("nan")}
    runs = [
        read_run(
            make_record(tmp_path / f"{kind}-{seed}", rounds=30, kind=kind, seed=seed, rows=False,
                        outcome=lost if kind == "scaffold" and seed > 1 else {"test_accuracy": 0.8 + 0.01 * seed}).path
        )
        for kind in ("fedavg", "scaffold")
        for seed in (1, 2, 3)
    ]  # fmt: skip
    rows = {row[0]: row[1:] for row in comparison(runs)["pairs"][0]["rows"]}
    assert rows["test accuracy"] == ["0.000", "one pair", "no difference", "1 of 3 pairs (scaffold has none in 2)"]


def test_runs_that_differ_only_in_seed_make_no_pairs(tmp_path: Path) -> None:
    found = comparison(runs_of(tmp_path, {("fedavg", 1): 0.0, ("fedavg", 2): 0.1}))
    assert found["differ"] == []
    assert found["pairs"] == []
    assert found["labels"] == ["seed 1", "seed 2"]
    assert found["notes"] == ["The runs differ only in their seeds, so there are no pairs to compare."]


def test_difference_in_the_data_is_a_note(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, {("fedavg", 1): 0.0, ("scaffold", 1): 0.1})
    text = runs[1].folder.scenario.read_text() + "[partition]\nclients = 5\n"
    runs[1].folder.scenario.write_text(text)
    found = comparison([runs[0], read_run(runs[1].folder.path)])
    assert found["differ"] == ["algorithm.kind", "partition.clients"]
    assert found["notes"] == ["The runs of a pair also differ in partition, so they do not share their random numbers."]


def test_diverged_and_killed_runs_are_compared_by_their_measures(tmp_path: Path) -> None:
    lost = {"outcome": "diverged", "test_accuracy": float("nan"), "to_target": None}
    one = read_run(make_record(tmp_path / "a", rounds=30).path)
    two = read_run(make_record(tmp_path / "b", rounds=12, kind="scaffold", outcome=lost).path)
    three = read_run(make_record(tmp_path / "c", rounds=8, kind="feddyn", ended=False).path)
    found = comparison([one, two, three])
    reached = [dict(zip(["ended", *found["measures"]], row, strict=True)) for row in found["rows"]]
    assert [row["ended"] for row in reached] == ["stopped", "diverged", "unfinished"]
    assert [row["test accuracy"] for row in reached] == ["0.900", "–", "–"]
    assert [row["rounds"] for row in reached] == ["30", "12", "8"]
    assert [{row[0]: row[1] for row in pair["rows"]}["rounds"] for pair in found["pairs"]] == ["−18", "−22"]
    page = write_report([tmp_path / "a", tmp_path / "b", tmp_path / "c"], tmp_path / "all.html")
    assert page.stat().st_size < 2_000_000


@pytest.mark.parametrize("names", [("same", "same"), ("one", "two")])
def test_labels_are_distinct(names: tuple[str, str], tmp_path: Path) -> None:
    runs = [read_run(make_record(tmp_path / str(i) / name, rows=False).path) for i, name in enumerate(names)]
    labels = comparison(runs)["labels"]
    assert len(set(labels)) == 2
    assert all(name in label for name, label in zip(names, labels, strict=True))
