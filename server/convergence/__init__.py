"""Whether a run converged: facts, criteria, divergence, verdict, fitted rate, targets, outcome.

Everything is a pure fold over the lines of a record. It imports clients.core alone, and torch nowhere.
"""
