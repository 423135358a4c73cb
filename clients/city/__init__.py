"""The generated data sources of a city, held to bands around real or published figures.

It imports core and world; it knows nothing of faults.
"""
