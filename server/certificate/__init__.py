"""The certificate of a run: hashes of the state after each round, by tensor and by client.

It imports server.record and below.
"""
