"""Which client holds which of the pooled examples: partitions, calibrated ones, long tails.

It imports core and heterogeneity.
"""
