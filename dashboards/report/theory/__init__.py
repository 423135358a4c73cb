"""What probes of a run found, beside its curves: predicted course, limit of the local rate, drift by cause.

It imports the run data of the report and its formats, and `server`.
"""
