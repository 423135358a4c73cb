"""The table of algorithms: aggregations, server transforms, and the rows that join them to local rules.

It imports clients alone.
"""
