"""The local work of one client: options, local rules, losses, optimisers, batches, remedies.

It imports core only. Engines run it.
"""
