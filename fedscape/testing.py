"""Test your own parts: play rounds one by one, in memory, and run the checks that every built-in algorithm passes.

    from fedscape.testing import Stepper, check_algorithm

    check_algorithm(mine)                                # raises an AssertionError that says what is wrong
    stepper = Stepper("quadratic-two-clients", algorithm=mine)
    path = stepper.step(20)                              # the server's parameters after each round, [20, P]
    stepper.update.params                                # the parameters that the last cohort returned, [K, P]

`CohortGrid` is the in-memory Flower grid, to test a strategy alone.
"""

from simulator.grid.cohort_grid import CohortGrid
from simulator.testing.checks import (
    CHECKS,
    check_algorithm,
    check_engines_agree,
    check_local_rule,
    check_order_of_clients_changes_nothing,
    check_rounds_depend_on_the_state,
    check_same_seed_same_bits,
    check_server_transform,
    check_tiles_change_nothing,
    small_federation,
)
from simulator.testing.stepper import Stepper

__all__ = [
    "CHECKS",
    "CohortGrid",
    "Stepper",
    "check_algorithm",
    "check_engines_agree",
    "check_local_rule",
    "check_order_of_clients_changes_nothing",
    "check_rounds_depend_on_the_state",
    "check_same_seed_same_bits",
    "check_server_transform",
    "check_tiles_change_nothing",
    "small_federation",
]
