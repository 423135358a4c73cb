"""The exit codes of the command."""

EXIT_OK = 0
"""Every complete run, also one that diverges."""
EXIT_FAILED = 1
"""A study in which a run failed, as its table says; a lesson one of whose claims does not hold."""
EXIT_DIFFERENT = 1
"""`verify` and `bisect`: a round differs."""
EXIT_NOT_HERE = 3
"""`verify`: the environment is another one, and the numbers agree within a tolerance."""
EXIT_MISTAKE = 2
"""The user's mistake; one line on standard error names it."""
EXIT_INTERRUPTED = 130
"""Ctrl-C; the record is kept."""
