"""The generated world that city sources read: map, districts, clock, weather, events.

It imports core alone.
"""
