"""Statistics of paired runs, as numbers and words: intervals, tests, censored times, the seeds that a difference needs.

It imports NumPy, SciPy and statsmodels, and nothing of fedscape but clients.core.
"""
