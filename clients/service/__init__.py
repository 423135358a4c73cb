"""A local service that keeps task, engine and ranks alive between Flower's messages, each of which has a new process.

This room imports `core.errors` alone, and no torch: the process of a message starts in a fraction of a second.
"""
