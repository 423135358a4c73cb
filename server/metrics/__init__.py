"""Every metric, declared once, and the samples that a line of the record makes.

It imports dispersion and record.
"""
