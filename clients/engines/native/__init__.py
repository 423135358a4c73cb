"""Kernels in C that train clients: compiled on first use, loaded by ctypes, and left out where that is impossible.

They import core, models, modules and training, and the engines' batch and program types.
"""
