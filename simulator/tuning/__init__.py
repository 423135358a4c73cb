"""Tuning through Optuna: trials are runs of a scenario, scored by the median over seeds.

It imports simulator.studies and below.
"""
