"""Scenario files: sections, loading, error messages; the built-in ones are in `builtin/`."""
