"""One client's training over several devices: ranks of torch.distributed that share each batch.

This room imports the plain engine, whose numbers it reproduces within rounding, and `clients.processes`.
"""
