"""The experiment: scenario files, the cohort grid, the planner, the clock, the command line."""
