"""Dashboards, alerts and reports as code, built from the records of `server`."""
