"""Several runs side by side: the keys that differ, the changes of pairs with their sign, what pairs do not share."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dashboards.report.compare import comparison
from dashboards.report.compared_measures import MEASURES
from dashboards.report.differences import CENSORED
from dashboards.report.report import write_report
from dashboards.report.run_data import RunData, read_run
from tests.support.made_records import make_record, rewrite


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
    assert pair["title"] == "scaffold against fedavg"
    assert pair["columns"] == [
        "measure", "fedavg", "scaffold", "change", "95% interval", "p", "direction", "pairs",
    ]  # fmt: skip
    assert pair["seeds"] == [1, 2, 3]
    assert pair["marks"] == []
    rows = {row[0]: row[1:] for row in pair["rows"]}
    differences = -np.array([-0.05, 0.08, -0.01])  # of the score, seeds 1, 2, 3: it falls if the loss rises
    low, high = stats.t.interval(0.95, 2, differences.mean(), stats.sem(differences))
    p = float(stats.ttest_1samp(differences, 0.0).pvalue)
    interval = f"−{abs(low):.3f} to +{high:.3f}"
    assert rows["test accuracy"] == [
        "0.880", "0.873", "−0.007", interval, f"{p:.2g}", "higher in 2, lower in 1", "3 pairs",
    ]  # fmt: skip
    assert rows["rounds to the target"] == ["22", "22", "0%", "the same in each", "1", "no difference", "3 pairs"]
    normal = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) ** 2 * differences.var(ddof=1) / 0.01**2
    needed = np.ceil(normal + stats.norm.ppf(0.975) ** 2 / 2)  # the t test's correction to the normal's number
    assert found["words"] == [
        f"scaffold and fedavg are indistinguishable in test accuracy: 0.007 lower [−{high:.3f}, {-low:.3f}], "
        f"1 of 3 pairs, p = {p:.2g}; {needed:.0f} seeds would be needed to see a difference of 0.010",
        "scaffold and fedavg are indistinguishable in rounds to the target: no difference, the same in each of 3 "
        "pairs, p = 1",
    ]


def test_losses_are_compared_by_their_ratios(tmp_path: Path) -> None:
    found = comparison(
        runs_of(tmp_path, {("fedavg", 1): 0.0, ("fedavg", 2): 0.1, ("scaffold", 1): 0.3, ("scaffold", 2): 0.2})
    )
    end = 0.2 + 2.0 * 0.97**30
    logs = np.log([(end + 0.3) / end, (end + 0.2) / (end + 0.1)])
    low, high = stats.t.interval(0.95, 1, logs.mean(), stats.sem(logs))
    rows = {row[0]: row[1:] for row in found["pairs"][0]["rows"]}
    mean, interval = rows["validation loss, at the end"][2:4]
    assert mean == f"+{100 * (np.exp(logs.mean()) - 1):.0f}%"
    assert interval == f"−{100 * (1 - np.exp(low)):.0f}% to +{100 * (np.exp(high) - 1):.0f}%"


def test_one_pair_has_no_interval_and_pairs_need_equal_seeds(tmp_path: Path) -> None:
    found = comparison(runs_of(tmp_path, {("fedavg", 1): 0.0, ("fedprox", 1): 0.5, ("feddyn", 2): 0.0}))
    (pair,) = found["pairs"]
    assert pair["title"] == "fedprox against fedavg"
    assert pair["columns"] == ["measure", "fedavg", "fedprox", "change", "pairs"]
    assert {row[0]: row[1:] for row in pair["rows"]}["test accuracy"] == ["0.900", "0.400", "−0.500", "1 pair"]
    assert found["words"][0] == "fedprox has 0.500 lower test accuracy than fedavg, in one pair"
    assert "feddyn and fedavg have no seed in common, so they make no pairs." in found["notes"]


def test_p_is_corrected_for_the_arms_that_are_compared(tmp_path: Path) -> None:
    shifts = {("fedavg", s): 0.0 for s in (1, 2, 3)}
    shifts |= {("scaffold", s): 0.1 + 0.01 * s for s in (1, 2, 3)} | {("fedprox", s): -0.01 * s for s in (1, 2, 3)}
    found = comparison(runs_of(tmp_path, shifts))
    p = {pair["title"]: {row[0]: row[5] for row in pair["rows"]}["test accuracy"] for pair in found["pairs"]}
    raw = {d: float(stats.ttest_1samp(values, 0.0).pvalue)
           for d, values in {"scaffold": [0.11, 0.12, 0.13], "fedprox": [0.01, 0.02, 0.03]}.items()}  # fmt: skip
    assert raw["scaffold"] < raw["fedprox"]
    assert p["scaffold against fedavg"] == f"{2 * raw['scaffold']:.2g}"
    assert p["fedprox against fedavg"] == f"{raw['fedprox']:.2g}"
    assert "Each p is corrected for the 2 variants compared with fedavg (Holm)." in found["notes"]


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
    assert (CENSORED in found["notes"]) == (None in rounds.values())
    return {row[0]: row[1:] for row in found["pairs"][0]["rows"]}


def test_missed_targets_are_censored_and_counted(tmp_path: Path) -> None:
    """10 seeds, 7 of which scaffold misses: the three hits alone would read 10 rounds fewer, lower in 3 of 3."""
    rounds: dict[tuple[str, int], int | None] = {("fedavg", s): 20 + s for s in range(10)}
    rounds |= {("scaffold", s): 10 + s if s < 3 else None for s in range(10)}
    rows = raced(tmp_path, rounds)
    differences = np.array([-10.0] * 3 + [100.0 - 20 - s for s in range(3, 10)])  # nobody is censored before round 100
    low, high = stats.t.interval(0.95, 9, differences.mean(), stats.sem(differences))
    first, second, change, interval, p, way, pairs = rows["rounds to the target"]
    assert first == "24.5 (median 24.5)"
    assert second == "73.3 (missed in 7 of 10)"
    assert change == f"+{differences.mean():.3g} within 100"
    assert interval == f"+{low:.3g} to +{high:.3g}"
    assert 0.001 < float(p) < 0.2  # seven of ten lose, and three of ten win by less
    assert way == "higher in 7, lower in 3"
    assert pairs == "10 pairs"
    assert rows["bytes to the target"][2] == f"+{differences.mean() * 38480 / 1e6:.2g} MB within 3.8 MB"


def test_miss_of_the_first_arm_is_higher_than_a_hit(tmp_path: Path) -> None:
    rows = raced(tmp_path, {("fedavg", 1): None, ("fedavg", 2): 50, ("scaffold", 1): 40, ("scaffold", 2): 40})
    assert rows["rounds to the target"][:3] == ["75 (missed in 1 of 2)", "40 (median 40)", "−35 within 100"]
    assert rows["rounds to the target"][5] == "higher in 0, lower in 2"


def test_pairs_that_both_miss_are_unknown(tmp_path: Path) -> None:
    rows = raced(tmp_path, {("fedavg", s): at for s, at in ((1, None), (2, 50), (3, None))}
                 | {("scaffold", s): at for s, at in ((1, 40), (2, None), (3, None))})  # fmt: skip
    assert rows["rounds to the target"][5] == "higher in 1, lower in 1, unknown in 1"


def test_arms_that_always_miss_have_no_row(tmp_path: Path) -> None:
    rows = raced(tmp_path, {(kind, s): None for kind in ("fedavg", "scaffold") for s in (1, 2)})
    assert "rounds to the target" not in rows
    assert "test accuracy" in rows


def test_hit_after_the_budget_of_a_miss_cannot_be_compared(tmp_path: Path) -> None:
    rows = raced(tmp_path, {("fedavg", 1): 140, ("fedavg", 2): 50, ("scaffold", 1): None, ("scaffold", 2): 50})
    assert rows["rounds to the target"][5] == "higher in 0, lower in 0, unknown in 1"


def test_interrupted_run_is_censored_at_its_last_round(tmp_path: Path) -> None:
    missed = {"outcome": "interrupted", "to_target": TARGET}
    run = read_run(make_record(tmp_path / "run", rounds=30, rows=False, outcome=missed).path)
    assert {m.key: m.at_least(run) for m in MEASURES if m.at_least(run) is not None} == {
        "rounds_to_target": 30, "bytes_to_target": 30 * 38480, "simulated_seconds_to_target": 15,
    }  # fmt: skip


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
    assert rows["test accuracy"] == [
        "0.810", "0.810", "0.000", "one pair", "–", "no difference", "1 of 3 pairs (scaffold has none in 2)",
    ]  # fmt: skip


def test_runs_that_differ_only_in_seed_make_no_pairs(tmp_path: Path) -> None:
    found = comparison(runs_of(tmp_path, {("fedavg", 1): 0.0, ("fedavg", 2): 0.1}))
    assert found["differ"] == []
    assert found["pairs"] == []
    assert found["labels"] == ["seed 1", "seed 2"]
    assert found["notes"] == ["The runs differ only in their seeds, so there are no pairs to compare."]


def test_pairs_with_other_data_rounds_or_sizes_are_marked(tmp_path: Path) -> None:
    one, two = runs_of(tmp_path, {("fedavg", 1): 0.0, ("scaffold", 1): 0.1})
    two.folder.scenario.write_text(two.folder.scenario.read_text() + "[partition]\nclients = 5\n")
    rewrite(
        two.folder.environment,
        lambda value: value | {"run": value["run"] | {"rounds": 50, "clients": 5, "examples": 1234}},
    )
    found = comparison([one, read_run(two.folder.path)])
    assert found["differ"] == ["algorithm.kind", "partition.clients"]
    assert found["pairs"][0]["marks"] == [
        "other rounds: 50, not 100",
        "other sizes: 5, not 30 clients",
        "other sizes: 1,234, not 900 examples",
        "another partition: partition.clients",
    ]
    assert found["words"][0].endswith(f"in one pair ({'; '.join(found['pairs'][0]['marks'])})")


def test_pairs_with_another_target_are_marked(tmp_path: Path) -> None:
    one, two = runs_of(tmp_path, {("fedavg", 1): 0.0, ("scaffold", 1): 0.1})
    two.folder.scenario.write_text(two.folder.scenario.read_text().replace("at_least = 0.9", "at_least = 0.8"))
    (pair,) = comparison([one, read_run(two.folder.path)])["pairs"]
    assert pair["marks"] == ["another target: convergence.target.at_least"]


def test_runs_without_a_seed_make_no_pairs(tmp_path: Path) -> None:
    one, two, three = runs_of(tmp_path, {("fedavg", 1): 0.0, ("scaffold", 1): 0.1, ("scaffold", 2): 0.1})
    three.folder.environment.unlink()
    three.folder.scenario.write_text('[algorithm]\nkind = "scaffold"\n')
    found = comparison([one, two, read_run(three.folder.path)])
    assert "scaffold-2: no seed is recorded, so these runs make no pairs." in found["notes"]


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
    assert [{row[0]: row[1:4] for row in pair["rows"]}["rounds"] for pair in found["pairs"]] == [
        ["30", "12", "−60%"], ["30", "8", "−73%"],
    ]  # fmt: skip
    page = write_report([tmp_path / "a", tmp_path / "b", tmp_path / "c"], tmp_path / "all.html")
    assert page.stat().st_size < 2_000_000


@pytest.mark.parametrize("names", [("same", "same"), ("one", "two")])
def test_labels_are_distinct(names: tuple[str, str], tmp_path: Path) -> None:
    runs = [read_run(make_record(tmp_path / str(i) / name, rows=False).path) for i, name in enumerate(names)]
    labels = comparison(runs)["labels"]
    assert len(set(labels)) == 2
    assert all(name in label for name, label in zip(names, labels, strict=True))
