"""From the sections of a scenario to its population, in order: source, faults, features, concept drift.

It imports every room of clients that makes or changes data.
"""
