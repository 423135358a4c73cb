"""Replays of recorded runs: branches from a kept checkpoint, certificates checked, the first difference of two runs.

It imports simulator.runs and below.
"""
