"""Which models are games of two players? Generative adversarial networks, and the Dirac-GAN as their quadratic.

It imports core and modules.
"""
