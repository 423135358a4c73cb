"""What a run keeps of earlier rounds: whole checkpoints.

It imports server.record.
"""
