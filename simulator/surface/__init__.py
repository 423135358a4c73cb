"""The error surface of a recorded run: loss over a plane of parameters, along a line, and curvature by round.

It imports simulator.replay, simulator.runs and below.
"""
