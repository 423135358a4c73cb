"""Parts of the intrusion source: botnets, network flows, and tables of their features."""
