"""How clients' updates differ: dispersion, diversity, cosines, by client and by layer.

It imports torch and NumPy alone.
"""
