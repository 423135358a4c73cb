"""One run from start to end: session, strategy, resumption, conclusion, and reading it back."""
