"""Concept drift, a change over rounds in what clients learn: its options, and its application to a population.

It imports core alone.
"""
