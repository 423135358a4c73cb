"""Builds the population of a scenario's sections, in order: source, faults, features, concept drift.

It imports every room of clients that makes or changes data.
"""
