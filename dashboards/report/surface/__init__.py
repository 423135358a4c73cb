"""The error surface as the page draws it.

It imports what the report reads of a run.
"""
