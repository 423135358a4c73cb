"""Lessons: small runs that show one phenomenon each, with a text that has the runs' own numbers.

`table` lists them, `play` plays one, `pages` writes its page. May import everything of the simulator but the command.
"""
