"""Two arms of a table: pairs by seed, the statistics that are chosen, and the words."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from clients.core.errors import UserError
from dashboards.report.compared_measures import MEASURES
from dashboards.statistics.comparing import Comparison, compare_arms, corrected
from dashboards.statistics.wording import change, interval

ROUNDS, ACCURACY, LOSS, DRIFT, BYTES = (
    next(m for m in MEASURES if m.key == key)
    for key in ("rounds_to_target", "test_accuracy", "validation_loss", "client_drift", "bytes_to_target")
)
NONE = [math.nan] * 100


def rows(arm: str, key: str, values: Any, at_least: Any = NONE, seeds: Any = None) -> pd.DataFrame:
    seeds = range(1, len(values) + 1) if seeds is None else seeds
    return pd.DataFrame(
        {"arm": arm, "seed": list(seeds), key: list(values), f"{key}_at_least": list(at_least[: len(values)])}
    )


def raced(fedavg: Any, scaffold: Any, *, first: Any = NONE, second: Any = NONE, **options: Any) -> Comparison:
    key = ROUNDS.key
    return compare_arms(rows("fedavg", key, fedavg, first), rows("scaffold", key, scaffold, second), ROUNDS, **options)


def test_fewer_rounds_are_told_as_the_issue_does() -> None:
    fedavg = np.array([60, 80, 45, 100, 72, 66, 90, 58, 77, 83])
    scaffold = np.array([40, 57, 33, 66, 49, 47, 62, 41, 50, 58])
    found = raced(fedavg, scaffold)
    logs = np.log(scaffold / fedavg)
    low, high = np.exp(stats.t.interval(0.95, 9, logs.mean(), stats.sem(logs)))
    size = f"{100 * (1 - np.exp(logs.mean())):.0f}%"
    assert found.sentence == (
        f"scaffold needs {size} fewer rounds to the target than fedavg "
        f"[{100 * (1 - high):.0f}, {100 * (1 - low):.0f}], 10 of 10 pairs"
    )
    assert (found.scale, found.test, found.better, found.wins) == (
        "ratio", "t test of log ratios", "scaffold", "10 of 10",
    )  # fmt: skip
    assert change(found) == f"−{size}"
    assert interval(found) == f"−{100 * (1 - low):.0f}% to −{100 * (1 - high):.0f}%"
    back = compare_arms(rows("scaffold", ROUNDS.key, scaffold), rows("fedavg", ROUNDS.key, fedavg), ROUNDS)
    assert back.estimate == pytest.approx(1 / found.estimate)
    assert back.p == pytest.approx(found.p)
    assert back.better == "scaffold"
    assert " more rounds to the target than scaffold" in back.sentence


def test_pairs_are_joined_by_seed_and_not_by_place() -> None:
    one = rows("a", LOSS.key, [1.0, 2.0, 4.0, 9.0], seeds=[1, 2, 3, 9])
    two = rows("b", LOSS.key, [8.0, 5.0, 2.0, 4.0], seeds=[3, 7, 1, 2])
    found = compare_arms(one, two, LOSS)
    assert (found.seeds, found.common, found.pairs) == ((1, 2, 3), 3, 3)
    assert found.paired is not None
    assert found.estimate == pytest.approx(2.0)
    assert found.interval is None  # 2/1, 4/2 and 8/4 are all 2
    assert (found.test, found.p) == ("sign test", pytest.approx(0.25))


def test_frames_and_plain_rows_say_the_same() -> None:
    one, two = rows("a", LOSS.key, [1.0, 2.0, 3.0]), rows("b", LOSS.key, [1.5, 2.0, 4.0])
    assert compare_arms(one, two, LOSS) == compare_arms(one.to_dict("records"), two.to_dict("records"), LOSS)


def test_first_of_rows_with_the_same_seed_counts() -> None:
    found = compare_arms(rows("a", LOSS.key, [1.0, 7.0], seeds=[1, 1]), rows("b", LOSS.key, [2.0], seeds=[1]), LOSS)
    assert (found.pairs, found.estimate) == (1, pytest.approx(2.0))


def test_scores_are_compared_by_their_difference() -> None:
    rng = np.random.default_rng(0)
    one = 0.9 + 0.01 * rng.normal(size=8)
    d = 0.02 + 0.004 * rng.normal(size=8)
    found = compare_arms(rows("a", ACCURACY.key, one), rows("b", ACCURACY.key, one + d), ACCURACY)
    low, high = stats.t.interval(0.95, 7, d.mean(), stats.sem(d))
    assert (found.scale, found.better) == ("difference", "b")
    assert (
        found.sentence
        == f"b has {d.mean():.3f} higher test accuracy than a [{low:.3f}, {high:.3f}], {(d > 0).sum()} of 8 pairs"
    )


def test_numbers_that_are_not_positive_are_compared_by_their_difference() -> None:
    found = compare_arms(rows("a", LOSS.key, [-1.0, 2.0]), rows("b", LOSS.key, [1.0, 2.5]), LOSS)
    assert (found.scale, found.estimate) == ("difference", 1.25)


def test_indistinguishable_names_the_seeds_for_the_stated_difference() -> None:
    fedavg = np.array([60.0, 80, 45, 100, 72, 66, 90, 58])
    factor = np.array([1.3, 0.7, 1.2, 0.8, 1.1, 0.9, 1.25, 0.8])
    found = raced(fedavg, fedavg * factor)
    assert not found.distinguishable
    assert found.better is None
    size = math.log(0.9)  # 10% fewer
    needed = stats.norm.ppf([0.975, 0.8]).sum() ** 2 * np.log(factor).var(ddof=1) / size**2 + 1.92
    assert found.needed == pytest.approx(needed, abs=1.5)
    assert found.sentence.startswith("scaffold and fedavg are indistinguishable in rounds to the target: ")
    assert found.sentence.endswith(f"; {found.needed} seeds would be needed to see a difference of 10%")
    stated = raced(fedavg, fedavg * factor, difference=0.5)
    assert stated.needed is not None
    assert stated.needed < found.needed
    assert stated.sentence.endswith("a difference of 50%")


def test_more_than_twice_is_told_as_times() -> None:
    found = raced([10, 20, 30, 40], [31, 59, 95, 118])
    assert found.sentence.startswith("scaffold needs 3 times the rounds to the target of fedavg [")
    assert change(found) == "× 3"
    assert interval(found).startswith("× 2.")


def test_misses_are_censored_and_told() -> None:
    fedavg = [60.0, 80, 45, math.nan, 72, 66, math.nan, 58]
    bound = [100.0 if math.isnan(t) else math.nan for t in fedavg]
    found = raced(fedavg, [40, 57, 33, 66, 49, 47, 62, 41], first=bound)
    assert found.paired is None
    assert found.censored is not None
    assert (found.test, found.p) == ("paired log-rank", pytest.approx(2 / 2**8))
    assert found.sentence.startswith(
        "scaffold needs 23.2 fewer rounds to the target than fedavg within 100 on average ["
    )
    assert found.sentence.endswith(
        "8 of 8 pairs, scaffold reached the target in 8 of 8 runs (median 48), "
        "fedavg reached the target in 6 of 8 runs (median 69)"
    )
    assert found.better == "scaffold"
    assert (found.numbers["first_missed"], found.numbers["second_missed"]) == (2, 0)


def test_few_pairs_with_a_miss_cannot_show_a_difference_and_say_so() -> None:
    found = raced([50, 60, 70, 80, 90], [math.nan] * 5, second=[100.0] * 5)
    assert not found.distinguishable
    assert "fewer than 6 pairs cannot show a difference where runs miss the target" in found.sentence
    six = raced([50, 60, 70, 80, 90, 95], [math.nan] * 6, second=[100.0] * 6)
    assert six.p == pytest.approx(2 / 2**6)
    assert six.better == "fedavg"


def test_arms_that_always_miss_are_unknown() -> None:
    found = raced([math.nan] * 3, [None] * 3, first=[100.0] * 3, second=[100.0] * 3)
    assert found.sentence == "scaffold and fedavg missed the target in all of 3 pairs: rounds to the target are unknown"


def test_runs_without_a_number_are_counted_and_make_no_pair() -> None:
    found = raced([50, math.nan, 70, pd.NA], [40, 50, math.inf, 60])
    assert (found.pairs, found.common, found.first_absent, found.second_absent) == (1, 4, 2, 1)
    assert found.sentence == "scaffold needs 20% fewer rounds to the target than fedavg, in one pair"
    nothing = raced([math.nan], [40])
    assert (nothing.pairs, nothing.wins) == (0, "0 of 0")
    assert math.isnan(nothing.p)
    assert nothing.sentence == "scaffold and fedavg have no pair with two numbers for rounds to the target"
    assert {nothing.numbers[key] for key in ("estimate", "low", "p", "first_mean", "seeds_needed")} == {None}


def test_equal_arms_are_indistinguishable() -> None:
    found = raced([50, 60, 70], [50, 60, 70])
    assert found.p == 1
    assert (
        found.sentence == "scaffold and fedavg are indistinguishable in rounds to the target: "
        "no difference, the same in each of 3 pairs, p = 1"
    )


def test_constant_change_is_judged_by_the_sign_test() -> None:
    few, many = (raced(np.arange(1.0, n + 1), 0.9 * np.arange(1.0, n + 1)) for n in (5, 6))
    assert (few.test, few.p, few.distinguishable) == ("sign test", pytest.approx(2 / 2**5), False)
    assert (many.p, many.distinguishable) == (pytest.approx(2 / 2**6), True)
    assert many.sentence == "scaffold needs 10% fewer rounds to the target than fedavg, the same in each of 6 pairs"


def test_measure_without_a_better_direction_has_no_winner() -> None:
    found = compare_arms(rows("a", DRIFT.key, [1.0, 2.0, 3.0]), rows("b", DRIFT.key, [2.0, 4.1, 6.0]), DRIFT)
    assert found.distinguishable
    assert found.better is None


def test_correction_counts_the_comparisons_that_have_a_p() -> None:
    a = rows("a", LOSS.key, [1.0, 2.0, 3.0, 4.0])
    first, second, nothing = (
        compare_arms(a, rows(name, LOSS.key, values), LOSS)
        for name, values in (("b", [0.9, 1.9, 2.6, 3.7]), ("c", [0.5, 1.1, 1.4, 2.1]), ("d", NONE[:4]))
    )
    found = corrected([first, second, nothing])
    assert [one.family for one in found] == [2, 2, 2]
    assert second.p < first.p < 0.05
    assert found[1].p_corrected == pytest.approx(2 * second.p)
    assert found[0].p_corrected == pytest.approx(max(first.p, 2 * second.p))
    assert math.isnan(found[2].p_corrected)
    borderline = replace(first, p=0.03, p_corrected=0.06, family=2)
    assert not borderline.distinguishable
    assert "p = 0.06 after correction for 2 comparisons" in borderline.sentence


def test_data_sizes_are_told_in_their_unit() -> None:
    key = BYTES.key
    first, second = rows("a", key, [2e6, 3e6, math.nan], [math.nan, math.nan, 8e6]), rows("b", key, [1e6, 1e6, 1e6])
    found = compare_arms(first, second, BYTES)
    assert found.numbers["first_mean"] == pytest.approx(13e6 / 3)
    assert "3.3 MB less" in found.sentence
    alone = compare_arms(first[2:], second[2:], BYTES)
    assert alone.sentence == "b needs 7 MB less data to the target than a within 8 MB on average, in one pair"


def test_numbers_are_flat_and_complete() -> None:
    found = raced([50, 60, 70], [40, 40, 50]).numbers
    assert found["measure"] == "rounds_to_target"
    assert (found["first"], found["second"], found["pairs"], found["wins"]) == ("fedavg", "scaffold", 3, "3 of 3")
    assert found["first_mean"] == 60
    assert found["low"] < found["estimate"] < found["high"]
    assert all(value is None or isinstance(value, str | int | float) for value in found.values())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"difference": 0.0}, "difference: must be positive, got 0.0"),
        ({"confidence": 95}, "confidence: must be between 0 and 1, got 95"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        raced([1, 2], [2, 3], **options)


def test_rows_of_several_arms_are_refused() -> None:
    one, two = rows("a", LOSS.key, [1.0, 2.0]), rows("b", LOSS.key, [1.0, 2.0])
    with pytest.raises(UserError, match=r"second: must be the rows of one arm, got a, b\. Choose one arm"):
        compare_arms(one, pd.concat([one, two]), LOSS)
    with pytest.raises(UserError, match="first: must be the rows of one arm, got none"):
        compare_arms(one[:0], two, LOSS)
