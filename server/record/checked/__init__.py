"""Reads what a run's folder holds: regular files of bounded size, checked against checksums and layouts.

Imports the errors of `clients.core` and the writing of whole files.
"""
