"""What the intrusion source is made of: botnets, network flows, and tables of their features."""
