"""The race judges candidates by medians, drops those that are beaten, prefers small ones and keeps to its budget."""

import itertools

import numpy as np
import pytest

from simulator.engines.probe import Cost, Sample
from simulator.engines.race import BEATEN, ENOUGH, MOST, TIE, Entrant, choose, race
from simulator.engines.timing import HEAVY_STEP, Candidate, Timing

SAMPLE = Sample(None, np.arange(8), np.full(8, 20))
FOREVER = 10**9


class Clock:
    """Gives the seconds of a candidate's steps; the call with a number in `slow` takes some seconds more."""

    def __init__(self, step, setup=0.0, slow=None):
        self.step, self.setup, self.slow = step, setup, slow or {}
        self.calls = []

    def __call__(self, steps):
        self.calls.append(steps)
        return self.setup + self.step * steps + self.slow.get(len(self.calls), 0.0)


def entrant(clock, engine="plain", width=2, threads=1, narrower=None):
    return Entrant(Candidate(engine, width, threads), Timing(clock, SAMPLE.longest), SAMPLE, narrower)


def ladder(clocks, threads=1):
    """Return stacked entrants by their width."""
    narrower, found = None, []
    for width, clock in clocks.items():
        narrower = entrant(clock, "stacked", width, threads, narrower)
        found.append(narrower)
    return found


@pytest.mark.parametrize("call", range(1, 9))
@pytest.mark.parametrize("seconds", [0.001, 0.05, 1.0, 61.0])
def test_one_slow_sample_never_decides(call, seconds):
    """Whichever call of whichever candidate is slow, the faster one is chosen."""
    for slow_one in range(2):
        fast, other = (Clock(s, 0.001, {call: seconds} if i == slow_one else None) for i, s in enumerate((1e-3, 2e-3)))
        entrants = [entrant(fast), entrant(other, width=2, threads=2)]
        assert choose(race(entrants, FOREVER)) is entrants[0]


@pytest.mark.parametrize("call", [1, 2])
def test_one_slow_step_of_a_heavy_candidate_never_decides(call):
    entrants = [entrant(Clock(0.1, slow={call: 60.0})), entrant(Clock(0.2), threads=2)]
    assert choose(race(entrants, 1)) is entrants[0]


def test_slow_first_step_does_not_stop_wider_tiles():
    entrants = ladder({1: Clock(1e-3, slow={1: 61.0}), 4: Clock(1e-3), 8: Clock(1e-3)})
    assert choose(race(entrants, FOREVER)) is entrants[2]


def test_beaten_candidate_drops_out_after_two_samples():
    fast, near, slow = Clock(1e-3), Clock(1e-3 * (BEATEN - 0.1)), Clock(1e-3 * (BEATEN + 0.1))
    entrants = [entrant(clock, threads=n) for n, clock in enumerate((fast, near, slow), 1)]
    race(entrants, FOREVER)
    assert [e.timing.repeats for e in entrants] == [MOST, MOST, 2]


def test_samples_of_candidates_are_interleaved():
    order = []

    class Noting(Clock):
        def __call__(self, steps):
            order.append(self)
            return super().__call__(steps)

    clocks = [Noting(1e-3), Noting(1.1e-3), Noting(1.2e-3)]
    race([entrant(clock, threads=n) for n, clock in enumerate(clocks, 1)], FOREVER)
    turns = [clock for clock, _ in itertools.groupby(order)]
    assert turns == clocks * (MOST + 1)  # once to warm up, and then in every round of the race


def test_equal_candidates_leave_the_choice_to_the_smaller():
    near = 1e-3 * (1 + (TIE - 1) / 2)
    entrants = [entrant(Clock(near, 0.0), "stacked", 8, 1), entrant(Clock(1e-3, 0.0), "stacked", 8, 2)]
    assert choose(race(entrants, FOREVER)).candidate.threads == 1
    far = 1e-3 * (2 * TIE - 1)
    entrants = [entrant(Clock(far, 0.0), "stacked", 8, 1), entrant(Clock(1e-3, 0.0), "stacked", 8, 2)]
    assert choose(race(entrants, FOREVER)).candidate.threads == 2
    narrow, wide = ladder({4: Clock(0.5 * near), 8: Clock(1e-3)})
    assert choose(race([narrow, wide], FOREVER)) is narrow


def test_budget_bounds_the_race_after_two_samples_of_each():
    clocks = [Clock(0.01), Clock(0.0101)]
    entrants = [entrant(clock, threads=n) for n, clock in enumerate(clocks, 1)]
    race(entrants, FOREVER, budget=0.1)
    assert [e.timing.repeats for e in entrants] == [2, 2]
    clocks = [Clock(1e-3), Clock(1.01e-3)]
    entrants = [entrant(clock, threads=n) for n, clock in enumerate(clocks, 1)]
    race(entrants, FOREVER, budget=0.1)
    assert sum(e.timing.spent for e in entrants) <= 0.1
    assert min(e.timing.repeats for e in entrants) >= 2


def test_heavy_candidates_are_timed_and_wide_heavy_tiles_are_not():
    plain = entrant(Clock(2.0))
    tiles = ladder({1: Clock(1.0), 4: Clock(4.0), 8: Clock(8.0)})
    timed = race([plain, *tiles], FOREVER)
    assert timed == [plain, tiles[0]]
    assert [e.timing.repeats for e in timed] == [2, 2]


def test_wider_tile_is_not_started_after_a_hopeless_one():
    plain = entrant(Clock(1e-3))
    tiles = ladder({1: Clock(HEAVY_STEP * 1.5), 4: Clock(HEAVY_STEP * 2), 8: Clock(1e-6)})
    timed = race([plain, *tiles], FOREVER)
    assert tiles[2] in timed  # nothing but this tile has two samples yet, so that none is hopeless
    plain = entrant(Clock(HEAVY_STEP * 1.5))
    tiles = ladder({1: Clock(HEAVY_STEP * 2), 4: Clock(HEAVY_STEP * 20), 8: Clock(1e-6)})
    assert race([plain, *tiles], FOREVER) == [plain, *tiles[:2]]


def test_short_run_has_a_short_race():
    entrants = [entrant(Clock(1e-3), threads=n) for n in (1, 2)]
    race(entrants, 1)
    assert [e.timing.repeats for e in entrants] == [ENOUGH, ENOUGH]


def test_cost_leaves_out_what_a_call_costs():
    timing = Timing(Clock(1e-3, 0.001), 20)
    timing.warm_up()
    assert timing.cost == Cost(0.0, 0.002)  # nothing but the first step is known
    timing.repeat()
    assert timing.cost == Cost(0.0, pytest.approx(0.009 / 8))  # one sample may be slow: no difference
    timing.repeat()
    assert (timing.cost.setup, timing.cost.step) == (pytest.approx(0.001), pytest.approx(1e-3))


def test_few_steps_are_timed_together():
    timing = Timing(Clock(1e-3, 0.002), 3)
    timing.burst(0.0)
    assert (timing.repeats, timing.cost) == (1, Cost(0.0, pytest.approx(0.005 / 3)))
