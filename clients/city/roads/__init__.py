"""The road network of the traffic source: lanes, flows and speeds."""
