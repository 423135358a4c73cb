"""Tools to test your own parts: a round stepper, and the checks that every built-in algorithm passes.

It imports runs, scenario and everything below. `fedscape.testing` re-exports it.
"""
