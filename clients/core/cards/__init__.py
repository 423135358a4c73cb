"""What tensors on a CUDA card need: copies that nothing waits for, and random numbers made there.

It imports core alone.
"""
