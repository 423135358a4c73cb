"""Assigns pooled examples to clients: partitions, calibrated partitions, long tails, an angle for each client.

It imports core and heterogeneity.
"""
