"""How do engines take steps of Newton's method and L-BFGS? They hand gradients and Hessians of clients to training.

It imports core, training and the engines' batches.
"""
