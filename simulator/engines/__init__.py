"""Which engine runs a scenario: timing, planning, compiling."""
