"""Where is a row that a client keeps between rounds? In memory while rows are few, in a mapped file beyond.

It may import `clients.core`, and knows nothing of algorithms, rounds or records.
"""
