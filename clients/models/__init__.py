"""The table of models and the blocks they are built from.

It imports core alone.
"""
