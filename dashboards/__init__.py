"""What people look at: dashboards, alerts and reports as code, built on the records of `server`."""
