"""How what clients learn changes over rounds: the options of concept drifts, and drifts applied to a population.

It imports core alone.
"""
