"""Checks of the arguments of public functions. This room imports scenarios, and the parts that Python passes."""
