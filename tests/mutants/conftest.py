"""The modules that need mutmut are no tests, and have no doctests."""

collect_ignore = ["mutating.py", "run.py"]
