"""What a run keeps of earlier rounds: parameters and whole checkpoints.

It imports server.record.
"""
