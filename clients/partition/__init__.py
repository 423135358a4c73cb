"""Assigns pooled examples to clients: partitions, calibrated partitions, long tails.

It imports core and heterogeneity.
"""
