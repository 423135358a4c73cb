"""How good are the examples that a model draws, beside examples that the server holds?

It imports core and the engines.
"""
