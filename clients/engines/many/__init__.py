"""Losses of many models on the same examples, in one tensor program for a block of models.

They import the engines' evaluation, objective and programs.
"""
