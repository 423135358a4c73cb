"""Worker processes: how one round of work is dealt to the processes of one or several machines, and comes back.

A worker holds the task and an engine. The server's process, which is worker 0, sends it jobs over torch.distributed.
This room imports the server's sum of updates, and no other room of the simulator. `engines`, above it, forks trials.
"""
