"""The client side of Flower: ClientApp, messages, and models as arrays.

It imports core, training and engines. `shim` alone touches private parts of Flower.
"""
