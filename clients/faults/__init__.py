"""What sensors and labels get wrong: the table of faults, their options, and what each does to a block of readings.

It imports core alone.
"""
