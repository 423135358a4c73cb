"""Faults of sensors and labels: their table, their options, and how each changes a block of readings.

It imports core alone.
"""
