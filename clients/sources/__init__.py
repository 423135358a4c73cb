"""Data sources outside the city: custom, images, quadratics, synthetic.

It imports core and partition.
"""
