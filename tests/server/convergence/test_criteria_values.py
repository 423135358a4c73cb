"""Each criterion has the values that its definition gives, at its bounds too: numbers that binary fractions hold."""

import pytest

from server.convergence import criteria_options as kinds
from server.convergence.criteria import CRITERIA
from server.convergence.criterion import Best, update_best, update_criterion


def states(name, options, *series):
    """Return the state after each round; `series` has the values of one fact each."""
    criterion, found = CRITERIA[name], [None]
    for r, values in enumerate(zip(*series, strict=True)):
        facts = dict(zip(criterion.facts(options), values, strict=True))
        found.append(update_criterion(criterion, options, found[-1], r, facts))
    return found[1:]


def held(found):
    return [state.held for state in found]


def test_best_names_its_round_and_needs_the_whole_min_delta():
    first = update_best(None, 1.0, 7, 0.5, up=False)
    assert first == Best(1.0, 7, stale=0)
    assert update_best(first, 0.5, 8, 0.5, up=False) == Best(0.5, 8, stale=0)
    assert update_best(first, 0.625, 8, 0.5, up=False) == Best(1.0, 7, stale=1)
    assert update_best(first, 1.5, 8, 0.5, up=True) == Best(1.5, 8, stale=0)
    assert update_best(first, 1.0, 8, 0.0, up=False) == Best(1.0, 7, stale=1), "the same value is no gain"


# steps and gradients

BELOW = [
    ("settled", kinds.SettledOptions),
    ("pseudo_gradient", kinds.PseudoGradientOptions),
    ("gradient", kinds.GradientOptions),
]


@pytest.mark.parametrize(("name", "options"), BELOW)
@pytest.mark.parametrize(
    ("hold", "steps", "rounds_held", "rising"),
    [
        (2, [0.75, 0.5, 0.25, 0.125], [0, 0, 1, 2], [0, 0, 0, 0]),  # 0.5 is not below 0.5
        (1, [0.125, 0.25, 0.375], [1, 0, 0], [0, 1, 2]),  # it grows in every round
        (2, [0.25, 0.125, 0.25], [1, 2, 3], [0, 0, 1]),  # it fell in one of the rounds
        (1, [0.0, 0.125], [1, 2], [0, 0]),  # a path that rested takes a first step
    ],
)
def test_fact_stays_below_its_bound_without_growing(name, options, hold, steps, rounds_held, rising):
    found = states(name, options(below=0.5, hold=hold), steps)
    assert held(found) == rounds_held
    assert [state.rising for state in found] == rising
    assert [state.value for state in found] == steps
    assert {state.threshold for state in found} == {0.5}
    assert [state.distance for state in found] == [max(0.0, step - 0.5) / 0.5 for step in steps]


# plateau


@pytest.mark.parametrize(("metric", "sign"), [("validation_loss", 1.0), ("validation_accuracy", -1.0)])
def test_plateau_has_the_value_that_would_be_better_as_its_threshold(metric, sign):
    options = kinds.PlateauOptions(metric=metric, min_delta=0.125, patience=4)
    found = states("plateau", options, [0.5, 0.5, 0.5 - sign * 0.25])
    assert [state.threshold for state in found] == [0.5 - sign * 0.125] * 2 + [0.5 - sign * 0.375]
    assert [state.distance for state in found] == [1.0, 0.75, 1.0]


def test_plateau_says_whether_its_metric_improved():
    found = states("plateau", kinds.PlateauOptions(min_delta=0.125, patience=4), [1.0, 1.0, 1.0, 0.5])
    assert [state.words for state in found] == [
        "validation loss still improves (1)",
        "validation loss did not beat its best by 0.125 in 1 round (best 1)",
        "validation loss did not beat its best by 0.125 in 2 rounds (best 1)",
        "validation loss still improves (0.5)",
    ]


@pytest.mark.parametrize(("loss", "rounds"), [(1.5, 1), (1.625, 0)])
def test_plateau_at_its_first_value_allows_a_loss_of_min_delta(loss, rounds):
    assert held(states("plateau", kinds.PlateauOptions(min_delta=0.5), [1.0, loss])) == [0, rounds]


def test_plateau_counts_nothing_while_its_metric_recovers_down_to_min_delta():
    losses = [8.0, 0.0, 6.0, 5.0, 4.0, 3.0, 2.0]
    assert held(states("plateau", kinds.PlateauOptions(min_delta=2.0), losses)) == [0, 0, 1, 0, 0, 0, 1]


def test_plateau_close_to_its_best_waits_while_the_loss_climbs():
    found = states("plateau", kinds.PlateauOptions(min_delta=1.0, patience=3), [8.0, 0.0, 0.125, 0.25, 0.375, 0.5])
    assert held(found) == [0, 0, 1, 2, 2, 2]
    assert not found[-1].rests


def test_plateau_counts_anew_from_a_jump():
    """The one value after the jump is all that is compared with the best: it is not at rest there."""
    before, after = states("plateau", kinds.PlateauOptions(min_delta=1.0), [8.0, 0.0, 0.0, 6.0])[-2:]
    assert (before.held, before.since, before.rests) == (1, 2, True)
    assert (after.held, after.since, after.rests) == (1, 3, False)


@pytest.mark.parametrize(("median", "rests"), [(4.0, True), (4.125, False)])
def test_plateau_rests_up_to_four_deviations_above_its_best(median, rests):
    """Residuals (1, 0, -1, -1, 0, 1) around a constant: variance 4 / (6 - 2), so the deviation is 1."""
    losses = [64.0, 0.0, *(median + residual for residual in (1.0, 0.0, -1.0, -1.0, 0.0, 1.0))]
    last = states("plateau", kinds.PlateauOptions(min_delta=0.5, patience=6), losses)[-1]
    assert (last.held, last.rests) == (6, rests)


# the gap of the losses


def gaps(train, validation, *, below=0.5, patience=4):
    return states("gap", kinds.GapOptions(below=below, min_delta=0.0, patience=patience), train, validation)


def test_gap_counts_rounds_in_which_the_losses_are_close_and_still():
    found = gaps([1.0] * 6, [1.25] * 6)
    assert held(found) == [0, 1, 2, 3, 4, 5]
    assert [state.distance for state in found] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    start = "validation loss minus training loss 0.25, "
    assert found[0].words == f"{start}but a loss still improves"
    assert found[1].words == f"{start}below 0.5 and neither improved"
    assert found[2].words == f"{start}below 0.5 and neither improved for 2 rounds"


def test_gap_of_exactly_its_bound_is_too_wide():
    assert held(gaps([1.0, 1.0], [1.5, 1.5])) == [0, 0]
    assert held(gaps([1.0, 1.0], [1.375, 1.375])) == [0, 1]


def test_gap_adds_its_excess_to_the_share_of_rounds_that_are_missing():
    found = gaps([1.0, 1.0], [2.5, 2.5])
    assert [state.distance for state in found] == [1.5 / 0.5 - 1.0 + 1.0] * 2
    assert found[1].words == "validation loss minus training loss 1.5, needs below 0.5"


@pytest.mark.parametrize("rising", ["train", "validation"])
def test_gap_waits_while_one_of_the_losses_climbs(rising):
    climb = [1.0, 1.0625, 1.125, 1.1875, 1.25]
    flat = [1.25 if rising == "train" else 0.875] * 5
    train, validation = (climb, flat) if rising == "train" else (flat, climb)
    found = gaps(train, validation, patience=3)
    assert held(found) == [0, 1, 2, 2, 2]
    assert found[1].words.endswith("below 0.5 and neither improved")
    assert found[-1].words.endswith(", but a loss rises")
    assert held(gaps(train[:2], validation[:2], patience=1)) == [0, 1], "one rise is no climb"


@pytest.mark.parametrize(
    ("train", "validation", "warns"),
    [
        ([1.0, 0.75, 0.5], [1.0, 1.25, 1.5], True),
        ([1.0, 0.75, 0.5], [1.0, 1.0, 1.0], False),  # validation loss is at its best
        ([3.0, 2.5, 1.5], [1.0, 1.25, 1.5], False),  # training loss is not below validation loss
    ],
)
def test_gap_warns_of_a_validation_loss_above_its_best_and_above_the_training_loss(train, validation, warns):
    last = gaps(train, validation, patience=2)[-1]
    warning = "validation loss is 0.5 above its best (round 0) while training loss still falls"
    assert last.warning == (warning if warns else "")


# errors on the training examples


def test_error_free_counts_errors_and_says_so():
    found = states("error_free", kinds.ErrorFreeOptions(hold=2), [3.0, 1.0, 0.0, 0.0])
    assert held(found) == [0, 0, 1, 2]
    assert [state.distance for state in found] == [3.0, 1.0, 0.0, 0.0]
    assert {state.threshold for state in found} == {0.0}
    assert [state.words for state in found] == [
        "3 training errors, needs 0",
        "1 training error, needs 0",
        "no training errors",
        "no training errors for 2 rounds",
    ]
