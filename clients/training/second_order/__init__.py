"""How does a client step with Newton's method or L-BFGS? Directions, the line search, Hessians, what is refused.

It imports core, modules and training's options and losses. Engines give it gradients and Hessians of stacked clients.
"""
