"""Why a run did not converge as it should: causes, ranked, each with its evidence and one change that would remove it.

A diagnosis is a pure function of a run's record, its scenario and what `fedscape explain` looked at. It imports the
convergence room, how verdicts foresee a fall, and NumPy.
"""
