"""A real federation on this machine: certificates, Flower's processes, and the run as one sees it from outside.

It may import what runs and scenarios need. Flower itself is used through its commands alone.
"""
