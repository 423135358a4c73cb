"""Whether a run converged: criteria, divergence, fitted rate, targets, outcome.

Pure folds over the lines of a record; it imports clients.core alone.
"""
