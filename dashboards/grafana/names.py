"""Names shared by a Grafana, its provisioning files and the dashboards' JSON."""

TAG = "fedscape"
FOLDER_UID = "fedscape"
LIVE_UID, RUNS_UID = "fedscape-live", "fedscape-runs"
