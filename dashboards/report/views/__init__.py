"""Parts of the report about one subject each: the city, forecasts, samples, why the run went as it did.

They import the run data of the report and its formats, and `server`.
"""
