"""Grafana dashboards as code, and how they get onto a server."""
