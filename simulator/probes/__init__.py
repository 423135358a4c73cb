"""Probes of a recorded run: rounds with one change from one of its states, drift by cause, theory beside the run.

The formulas are in `formulas`. It imports simulator.replay and below.
"""
