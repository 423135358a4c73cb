"""Faults of sensors and labels, with the truth kept."""
