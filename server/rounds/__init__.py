"""The round loop and what it calls: strategy, sampling, round metrics, checkpoints, observers.

It imports algorithms, convergence, dispersion and record.
"""
