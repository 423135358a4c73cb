"""The rate at which a loss approaches its limit: recursions, added noise, families of curves, intervals.

It imports NumPy and SciPy alone.
"""
