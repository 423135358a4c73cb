"""What clients hold, as text, figure and page."""
