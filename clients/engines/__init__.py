"""How a cohort trains: one client after another (plain) or as one tensor program (stacked); and evaluation.

Engines import core, models and training. They know nothing of Flower.
"""
