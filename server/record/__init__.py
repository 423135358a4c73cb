"""The files of a run, written and read back: lines, client rows, checkpoints, environment.

It imports clients.core only.
"""
