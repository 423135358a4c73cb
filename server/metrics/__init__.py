"""The table of metrics, each declared once, and the samples made from lines of the record.

It imports dispersion and record.
"""
