"""Sensor readings from CSV, Parquet and HDF5 files, and faults in their series.

It imports core, world and faults.
"""
