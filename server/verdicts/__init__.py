"""What happened in a run, in words and numbers: its condition, the three signs of convergence, and the final verdict.

Pure functions of the lines of a record and the scenario's criteria, in O(n log n) of the rounds. The room imports
convergence and clients.core, and torch nowhere. docs/verdicts.md has the error rate of each condition.
"""
