"""What engines do for a CUDA card alone: keep examples there, capture local steps.

It imports core and training.
"""
