"""What one client does in a round: options, local rules, losses, optimizers, batches, remedies.

It imports core alone; engines run it.
"""
