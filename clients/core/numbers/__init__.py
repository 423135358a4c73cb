"""Which numbers options may take and why, norms of long vectors, and eigenvalues of operators.

The bounds import nothing of fedscape, the others the arrays and streams of core.
"""
