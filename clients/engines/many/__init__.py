"""A loss over weighted examples: of many models in one tensor program, and its Hessian at one model.

They import the engines' evaluation, objective and programs.
"""
