"""Text to tables: dialects of CSV, records and their lines, numbers, times and their zones.

It imports core.
"""
