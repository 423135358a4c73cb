"""The vocabulary that everything on a client shares: random streams, parameter layouts, populations, options, errors.

It imports nothing of fedscape.
"""
