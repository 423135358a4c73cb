"""Dispersion of clients' updates: spread, diversity and cosines, by client and by layer.

It imports torch and NumPy alone.
"""
