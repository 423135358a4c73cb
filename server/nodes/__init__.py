"""Real nodes: which node holds which client, how messages are sent and awaited, and which replies are used.

It imports clients and Flower.
"""
