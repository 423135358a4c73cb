"""Grafana dashboards as code, and pushing them to a server."""
