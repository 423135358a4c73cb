"""A torch module made ready for engines: copies, addressed dropout, seeded random numbers, trial passes.

It imports core alone.
"""
