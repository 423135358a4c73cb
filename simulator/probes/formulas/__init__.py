"""The formulas of probes, over arrays alone: laws of cohorts, error by cause, dissimilarity, predictions.

It imports clients.core and nothing of a run.
"""
