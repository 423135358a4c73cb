"""The commands that say why a run went as it did: explain, probe, surface."""
