"""The local page that follows runs as they grow."""
