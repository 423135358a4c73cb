"""The command `fedscape`: one module for each group of commands, `main` joins them.

A command imports what it runs inside its function, so that help and completion stay light.
"""
