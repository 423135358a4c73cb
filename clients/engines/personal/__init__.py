"""How good is a model after clients have adapted it to their own data?

It imports core, training and the engines.
"""
