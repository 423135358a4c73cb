"""Probes of a recorded run: rounds with one change from a state of it, drift by cause, curvature, theory beside the run.

Pure formulas: cohort_law, error_by_cause, lanczos, dissimilarity, predicted. It imports simulator.replay and below.
"""
