"""A generated city: one seeded world, and the sources that read it."""
