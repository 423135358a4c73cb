"""How much clients differ: label skew, sizes, feature shift, spatial correlation.

It imports core alone.
"""
