"""The table of algorithms: aggregations, server transforms, and the rows that join them with local rules.

It imports clients only.
"""
