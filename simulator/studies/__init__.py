"""Studies: arms and seeds of one scenario, run on all cores, resumed after a kill, and put into one table.

It imports simulator.runs and below, and dashboards.study for the page.
"""
