"""What a run leaves on disk, written and read back: lines, client rows, checkpoints, environment.

It imports clients.core alone.
"""
