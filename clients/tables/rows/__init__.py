"""Labelled rows for classification and regression: from tables, and from LEAF's JSON.

It imports core, partition, and the reading of files in tables.
"""
