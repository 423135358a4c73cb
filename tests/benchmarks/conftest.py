"""This folder has no tests: `make bench` runs its files, and pytest must not collect or import them."""

collect_ignore_glob = ["*.py"]
