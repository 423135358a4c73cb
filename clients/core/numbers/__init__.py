"""Which numbers options may take and why, norms of long vectors, eigenvalues of operators, evenly spaced places.

The bounds import nothing of fedscape, the others the arrays and streams of core.
"""
