"""Explains a run: looks at its data and gradients, plays trials, diagnoses, and tries the suggested change.

It imports replay, runs and the rooms below, and `server.diagnosis`.
"""
