"""Recorded data sets in their published layouts.

It imports core, partition and tables.
"""
