"""Engines train a cohort: one client after another (plain) or as one tensor program (stacked). They also evaluate.

They import core, models and training, and not Flower.
"""
