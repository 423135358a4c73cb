"""The exit codes of the command."""

EXIT_OK = 0
"""Every honest outcome, a run that diverges among them."""
EXIT_MISTAKE = 2
"""The user's mistake; one line on standard error names it."""
EXIT_INTERRUPTED = 130
"""Ctrl-C; what was recorded is kept."""
