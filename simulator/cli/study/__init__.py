"""The commands on several runs: study, tune, lessons, branch, verify, bisect.

They import the rooms that do the work when they are called.
"""
