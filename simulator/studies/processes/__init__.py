"""The processes that play the runs of a study, and how the study's process gives them runs and hears from them.

It imports simulator.studies and below.
"""
