"""The page and the pictures of a study, made from its table and the records of its runs.

It imports dashboards.report, dashboards.statistics and below.
"""
