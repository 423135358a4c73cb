"""The command `fedscape`."""
