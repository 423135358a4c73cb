"""The client side of Flower: ClientApp, messages, and models as arrays.

It imports core, training and engines. Only `shim` uses private parts of Flower.
"""
