"""Chooses the engine that runs a scenario: timing, planning, compiling."""
