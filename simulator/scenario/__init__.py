"""Scenario files: sections, loading, mistakes; the built-in ones are in `builtin/`."""
