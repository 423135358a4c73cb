"""Data that need no city: custom, images, quadratics, synthetic.

It imports core and partition.
"""
