"""Where the files of a run's folder are, and how they are read: regular files of bounded size, checksums, layouts.

Imports the errors of `clients.core`, the writing of whole files, and JSON text (`server.record.jsonlines`).
"""
