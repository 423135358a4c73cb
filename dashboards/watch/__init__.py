"""The local page that shows runs while they are recorded."""
