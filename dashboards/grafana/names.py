"""What is called the same on a Grafana, in its provisioning files and in the dashboards' JSON."""

TAG = "fedscape"
FOLDER_UID = "fedscape"
LIVE_UID, RUNS_UID = "fedscape-live", "fedscape-runs"
