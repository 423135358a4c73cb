"""Nothing here is a test: `make bench` runs it, and pytest must neither collect nor import it."""

collect_ignore_glob = ["*.py"]
