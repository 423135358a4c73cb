"""Experiment trackers: Weights & Biases and MLflow, each in a process of its own.

`tracking` is the run's side, `child` the process's, and a module for each tracker opens a run with its library.
"""
