"""Which made objectives have more than one minimum? The double well.

It imports core.
"""
