"""Why a run went as it did, as the report shows it.

It imports `server.diagnosis` and the run data of the report.
"""
