"""Processes of this machine that share one job: how they are forked and ended, and how tensors travel between them.

This room imports nothing of fedscape.
"""
