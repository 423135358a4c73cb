"""Which numbers options may take, and why.

It imports nothing of fedscape.
"""
